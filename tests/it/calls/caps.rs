//! 5 and 6. Caps under calls that come all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use capconduit::clock;
use chrono::Timelike;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::seller::{Campaign, count};
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550100501";

/// Looks at a campaign's only link again and again.
struct Watch {
    /// The most that was ever `used + held`.
    most: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(campaign: &Campaign, window: &'static str) -> Self {
        let most = Arc::new(AtomicU64::new(0));
        let (campaign, seen) = (campaign.clone(), most.clone());
        let task = tokio::spawn(async move {
            loop {
                seen.fetch_max(campaign.links().await[0].taken(window), Ordering::Relaxed);
            }
        });
        Self { most, task }
    }

    fn stop(self) -> u64 {
        assert!(!self.task.is_finished(), "it looked all the time");
        self.task.abort();
        self.most.load(Ordering::Relaxed)
    }
}

fn with_status<'a>(logs: &'a [Value], status: &str) -> Vec<&'a Value> {
    logs.iter().filter(|log| log["callStatus"] == status).collect()
}

#[tokio::test]
async fn a_concurrency_cap_of_2_lets_2_of_10_callers_talk() {
    let service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(100)).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    let cap = json!({"maxConcurrency": 2});
    campaign.link(service.client(&client.contact()).await, cap).await;
    let watch = Watch::start(&campaign, "concurrency");

    let mut callers = join_all((0..10).map(|_| Phone::call(&service, NUMBER))).await;
    let answers = join_all(callers.iter_mut().map(Phone::answer)).await;
    let count = |code| answers.iter().filter(|answer| **answer == code).count();
    assert_eq!((count(200), count(503)), (2, 8), "{answers:?}");
    assert_eq!(Phone::call(&service, NUMBER).await.answer().await, 503, "it is full");

    let answered = callers.into_iter().zip(answers).filter(|(_, code)| *code == 200);
    let mut talking: Vec<Phone> = answered.map(|(phone, _)| phone).collect();
    talking.pop().unwrap().hang_up().await;
    eventually("one of the two is free", seconds(2), async || {
        (campaign.links().await[0].live() == 1).then_some(())
    })
    .await;
    let mut next = Phone::call(&service, NUMBER).await;
    assert_eq!(next.answer().await, 200, "after one ends, the next is taken");
    assert_eq!(Phone::call(&service, NUMBER).await.answer().await, 503, "it is full again");
    next.hang_up().await;
    talking.pop().unwrap().hang_up().await;

    let logs = service.logs(13).await;
    assert_eq!(with_status(&logs, "ANSWERED").len(), 3);
    let rejected = with_status(&logs, "REJECTED_CC");
    assert_eq!(rejected.len(), 10);
    for log in rejected {
        assert_eq!(log["reason"], "no_eligible_clients_available");
        let log = service.log_in_full(log).await;
        assert_eq!(log["attempts"], json!([]));
        assert_eq!(log["trace"]["links"][0]["verdict"], "concurrency_cap");
    }
    assert_eq!(watch.stop(), 2, "as the API saw it");
    assert_eq!(client.trace().most_at_once(), 2, "as the client saw it");
    service.assert_clean().await;
}

#[tokio::test]
async fn a_total_cap_of_5_answers_exactly_5_of_30_callers() {
    let service = Service::start().await;
    let manner = Manner { refusals: 6, ..Manner::answers_after(80) };
    let client = Phones::start(&service, manner).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    let cap = json!({"totalCallsAllowed": 5});
    campaign.link(service.client(&client.contact()).await, cap).await;
    let watch = Watch::start(&campaign, "total");

    let callers = Plan { number: NUMBER, calls: 30, rate: 40, talk_ms: 300 };
    let callers = callers.start(&service).finish(seconds(30)).await;

    let answered = [200, 486, 503].map(|code| callers.answered_with(code));
    assert_eq!(answered, [5, 6, 19]);
    let logs = service.logs(30).await;
    let logged =
        ["ANSWERED", "BUSY", "REJECTED_TOTAL"].map(|status| with_status(&logs, status).len());
    assert_eq!(logged, [5, 6, 19]);
    let client = client.trace();
    assert_eq!(client.count(|message| message.is_answer(200, "INVITE")), 5);
    assert!(client.most_at_once() <= 5, "never more, as the client saw it");
    assert!(watch.stop() <= 5, "never more, as the API saw it");
    let link = &campaign.links().await[0];
    assert_eq!((link.total(), link.taken("total")), (5, 5));
    service.assert_clean().await;
}

const ANOTHER_NUMBER: &str = "+15550100502";

/// Callers who call at once; those who are answered, and how many get 503.
async fn race(service: &Service, numbers: &[&str]) -> (Vec<Phone>, usize) {
    let mut callers = join_all(numbers.iter().map(|number| Phone::call(service, number))).await;
    let answers = join_all(callers.iter_mut().map(Phone::answer)).await;
    let refused = answers.iter().filter(|code| **code == 503).count();
    let answered: Vec<Phone> = callers
        .into_iter()
        .zip(&answers)
        .filter(|(_, code)| **code == 200)
        .map(|(p, _)| p)
        .collect();
    assert_eq!(answered.len() + refused, numbers.len(), "{answers:?}");
    (answered, refused)
}

async fn hang_up_all(phones: Vec<Phone>) {
    for mut phone in phones {
        phone.hang_up().await;
    }
}

/// What refused each call that found no room: its status, the link's verdict and the cap.
async fn refusals(service: &Service, calls: usize) -> Vec<(Value, Value, Value)> {
    let mut refusals = Vec::new();
    for log in service.logs(calls).await.iter().filter(|log| log["callStatus"] != "ANSWERED") {
        assert_eq!(log["reason"], "no_eligible_clients_available");
        let log = service.log_in_full(log).await;
        assert_eq!(log["attempts"], json!([]));
        let link = &log["trace"]["links"][0];
        let row = (log["callStatus"].clone(), link["verdict"].clone(), link["refusedBy"].clone());
        refusals.push(row);
    }
    refusals
}

/// The cap that refused, with the numbers that were compared.
fn refused_by(scope: &str, window: Option<&str>, used: u32, limit: u32) -> Value {
    json!({"scope": scope, "window": window, "used": used, "held": 0, "limit": limit})
}

#[tokio::test]
async fn caps_of_a_campaign_and_of_its_seller_hold_over_two_campaigns() {
    let service = Service::start().await;
    let client = Phones::start(&service, Manner::answers_after(100)).await;
    let seller = service.seller().await;
    for number in [NUMBER, ANOTHER_NUMBER] {
        let campaign = seller.campaign(&service, number, "priority", 20).await;
        campaign.link(service.client(&client.contact()).await, json!({})).await;
        if number == NUMBER {
            campaign.change(json!({"maxConcurrency": 2})).await;
        }
    }
    let account = format!("/api/admin/users/{}", seller.id);
    service.admin().put(&account, json!({"maxConcurrency": 3})).await;

    let (mut talking, refused) = race(&service, &[NUMBER; 4]).await;
    assert_eq!((talking.len(), refused), (2, 2), "the campaign is full");
    let (others, refused) = race(&service, &[ANOTHER_NUMBER; 3]).await;
    assert_eq!((others.len(), refused), (1, 2), "the seller is full, over both campaigns");
    talking.extend(others);
    let shown = service.admin().get(&account).await;
    assert_eq!(shown["caps"][0]["used"], 3);
    talking.pop().unwrap().hang_up().await;
    eventually("the seller has room again", seconds(2), async || {
        (service.admin().get(&account).await["caps"][0]["used"] == 2).then_some(())
    })
    .await;
    let (next, refused) = race(&service, &[NUMBER]).await;
    assert_eq!((next.len(), refused), (0, 1), "the campaign is still full");
    let (next, _) = race(&service, &[ANOTHER_NUMBER]).await;
    assert_eq!(next.len(), 1, "the other campaign isn't");
    talking.extend(next);
    hang_up_all(talking).await;

    let refusals = refusals(&service, 9).await;
    let by = |verdict: &str, cap: Value| (json!("REJECTED_CC"), json!(verdict), cap);
    let campaign = by("campaign_concurrency_cap", refused_by("campaign", None, 2, 2));
    let seller = by("seller_concurrency_cap", refused_by("seller", None, 3, 3));
    assert_eq!(
        refusals,
        [campaign.clone(), campaign.clone(), seller.clone(), seller, campaign],
        "in the order of the calls"
    );
    assert_eq!(client.trace().most_at_once(), 3, "as the client saw it");
    service.assert_clean().await;
}

/// Two sellers' campaigns that share one client.
async fn shared_client(service: &Service, client: i64) {
    for number in [NUMBER, ANOTHER_NUMBER] {
        let campaign = service.seller().await.campaign(service, number, "priority", 20).await;
        campaign.link(client, json!({})).await;
    }
}

#[tokio::test]
async fn a_clients_cap_holds_over_two_sellers_campaigns() {
    let service = Service::start().await;
    let phones = Phones::start(&service, Manner::answers_after(100)).await;
    let client = service.client(&phones.contact()).await;
    shared_client(&service, client).await;
    let path = format!("/api/admin/clients/{client}");
    service.admin().put(&path, json!({"maxConcurrency": 3})).await;

    let numbers = [NUMBER, ANOTHER_NUMBER].repeat(5);
    let (talking, refused) = race(&service, &numbers).await;
    assert_eq!((talking.len(), refused), (3, 7));
    assert_eq!(service.admin().get(&path).await["caps"][0]["used"], 3);
    hang_up_all(talking).await;

    let by_client = refused_by("client", None, 3, 3);
    let expected = (json!("REJECTED_CC"), json!("client_concurrency_cap"), by_client);
    assert_eq!(refusals(&service, 10).await, vec![expected; 7]);
    assert_eq!(phones.trace().most_at_once(), 3, "as the client saw it");
    service.assert_clean().await;
}

#[tokio::test]
async fn a_clients_daily_cap_holds_over_two_sellers_campaigns_and_a_restart() {
    let mut service = Service::start().await;
    let phones = Phones::start(&service, Manner::answers_after(100).hangs_up_after(50)).await;
    let client = service.client(&phones.contact()).await;
    shared_client(&service, client).await;
    let path = format!("/api/admin/clients/{client}");
    // As far from a change of day as can be, whenever the test runs.
    let zone = if clock::now().hour() < 12 { "Etc/GMT-6" } else { "Etc/GMT+6" };
    service.admin().put(&path, json!({"dailyCap": 3, "timeZone": zone})).await;

    let numbers = [NUMBER, ANOTHER_NUMBER].repeat(4);
    let (talking, refused) = race(&service, &numbers).await;
    assert_eq!((talking.len(), refused), (3, 5));
    drop(talking);
    service.assert_clean().await;
    let day = service.admin().get(&path).await["caps"][0].clone();
    assert_eq!((&day["scope"], &day["window"]), (&json!("client"), &json!("day")));
    assert_eq!((&day["used"], &day["held"]), (&json!(3), &json!(0)));
    let (answered, _) = race(&service, &[NUMBER]).await;
    assert_eq!(answered.len(), 0, "the day's calls are used");
    let refusals = refusals(&service, 9).await;
    assert_eq!(refusals.len(), 6);
    for (status, verdict, cap) in &refusals {
        assert_eq!((status, verdict), (&json!("REJECTED_TOTAL"), &json!("daily_cap")));
        let taken = count(&cap["used"]) + count(&cap["held"]);
        assert_eq!((&cap["scope"], &cap["window"], taken), (&json!("client"), &json!("day"), 3));
    }
    assert_eq!(refusals.last().unwrap().2, refused_by("client", Some("day"), 3, 3));

    service.stop();
    service.start_again().await;
    assert_eq!(service.admin().get(&path).await["caps"][0], day, "as the records have it");
    let (answered, _) = race(&service, &[ANOTHER_NUMBER]).await;
    assert_eq!(answered.len(), 0, "still none is left");
    service.assert_clean().await;
}
