//! 5 and 6. Caps under calls that come all at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::seller::Campaign;
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
