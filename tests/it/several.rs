//! Several instances on one ledger: caps that hold over all of them, while
//! instances die. What is in use is counted by the callees.

use std::time::Duration;

use futures_util::future::join;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::seller::Campaign;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const FIRST: &str = "+15550101401";
const SECOND: &str = "+15550101402";
/// Live calls at once of two clients, over all campaigns.
const CAPS: [u64; 2] = [7, 4];

/// Two instances with an Asterisk each, and what they share.
struct Two {
    one: Service,
    other: Service,
    phones: [Phones; 2],
    campaigns: [Campaign; 2],
}

impl Two {
    async fn start(manners: [Manner; 2]) -> Self {
        let one = Service::start_production().await;
        let other = Service::start_beside(&one).await;
        let phones = [Phones::start(&one, manners[0]).await, Phones::start(&one, manners[1]).await];
        let mut clients = Vec::new();
        for (phones, cap) in phones.iter().zip(CAPS) {
            let client = one.client(&phones.contact()).await;
            let cap = json!({"maxConcurrency": cap});
            one.admin().put(&format!("/api/admin/clients/{client}"), cap).await;
            clients.push(client);
        }
        let seller = one.seller().await;
        let campaigns = [
            seller.campaign(&one, FIRST, "priority", 20).await,
            seller.campaign(&one, SECOND, "priority", 20).await,
        ];
        // Each campaign prefers another client.
        for (campaign, order) in campaigns.iter().zip([[1, 2], [2, 1]]) {
            for (client, priority) in clients.iter().zip(order) {
                campaign.link(*client, json!({"forwardingPriority": priority})).await;
            }
        }
        in_force(&other, SECOND).await;
        Self { one, other, phones, campaigns }
    }

    /// No client had more calls at once than it buys, as its own phones saw it.
    fn assert_caps_held(&self) -> [u64; 2] {
        let most = [0, 1].map(|client| self.phones[client].trace().most_at_once() as u64);
        assert!(most[0] <= CAPS[0] && most[1] <= CAPS[1], "{most:?} calls at once");
        most
    }

    /// Nothing is left over, and the ledger says what the logs say.
    async fn assert_clean(&self) {
        self.one.assert_clean().await;
        self.other.assert_no_calls().await;
        for service in [&self.one, &self.other] {
            let (code, told) = service.verify_caps();
            assert!(code == 0 && told.contains("agrees"), "{code}: {told}");
        }
    }
}

/// Waits until an instance knows what was changed on another: it has a second.
async fn in_force(service: &Service, number: &str) {
    let known = async || {
        let asked = json!({"did": number});
        let simulated = service.admin().try_post("/api/admin/routing/simulate", asked).await?;
        (simulated["order"].as_array()?.len() == 2).then_some(())
    };
    eventually("a change is in force on the other instance", seconds(1), known).await;
}

fn answered(logs: &[Value]) -> usize {
    logs.iter().filter(|log| log["callStatus"] == "ANSWERED").count()
}

/// Calls that race for the eleven that the caps let talk at once, and how many of them
/// come to each instance in a second: four times as many as caps let through.
const RACING: usize = 1_000;
const RATE: u32 = 75;
/// Of each instance: where the machine is slow, none is refused because too many are in setup.
const AT_ONCE: u32 = 40;

#[tokio::test]
async fn a_thousand_racing_calls_over_two_instances_never_exceed_a_clients_cap() {
    let quick = Manner::answers_after(60).hangs_up_after(250);
    let two = Two::start([quick, quick]).await;
    let calls = u32::try_from(RACING / 2).unwrap();
    let plan = |number| Plan { number, calls, rate: RATE, talk_ms: 5_000 };
    let one = plan(FIRST).start_at_most(AT_ONCE, &two.one);
    let other = plan(SECOND).start_at_most(AT_ONCE, &two.other);
    let (one, other) = join(one.finish(seconds(90)), other.finish(seconds(90))).await;

    let logs = two.one.logs(RACING).await;
    let taken = one.answered_with(200) + other.answered_with(200);
    let refused = one.answered_with(503) + other.answered_with(503);
    let by_caps = logs.iter().filter(|log| log["callStatus"] == "REJECTED_CC").count();
    eprintln!("{taken} of {RACING} were answered, {by_caps} refused by caps, of {refused}");
    assert_eq!((taken, taken + refused), (answered(&logs), RACING), "{:#?}", odd(&logs));
    assert!(by_caps > RACING / 2, "the caps were reached time and again");
    let most = two.assert_caps_held();
    eprintln!("{most:?} calls at once, as the clients' phones saw it");
    two.assert_clean().await;
}

/// Logs of calls that weren't answered, nor refused by a cap or because there were too many.
fn odd(logs: &[Value]) -> Vec<&Value> {
    let is_plain = |log: &Value| {
        let status = log["callStatus"].as_str().unwrap();
        ["ANSWERED", "REJECTED_CC"].contains(&status) || log["reason"] == "capacity_unavailable"
    };
    logs.iter().filter(|log| !is_plain(log)).collect()
}

/// So often is an instance killed.
const KILLS: u32 = 50;

#[tokio::test]
async fn an_instance_killed_fifty_times_under_load_exceeds_no_cap_and_leaves_nothing() {
    let manners = [
        Manner::answers_after(150).hangs_up_after(700),
        Manner::answers_after(400).hangs_up_after(300),
    ];
    let mut two = Two::start(manners).await;
    // Calls enough for all the time that it takes; the rest of them is let go.
    let load = |number| Plan { number, calls: 3_000, rate: 12, talk_ms: 5_000 };
    let callers = [load(FIRST).start(&two.one), load(SECOND).start(&two.other)];
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..KILLS {
        sleep(Duration::from_millis(random.random_range(0..700))).await;
        two.other.kill();
        two.other.start_again().await;
    }
    for callers in callers {
        callers.stop(seconds(20)).await;
    }
    two.assert_caps_held();
    let logs = two.one.logs_so_far().await;
    assert!(answered(&logs) > 100, "{} of {} calls were answered", answered(&logs), logs.len());
    two.assert_clean().await;
    let used = units_used(&two.campaigns).await;
    let logs = two.one.logs_so_far().await;
    assert_eq!(used, answered(&logs) as u64, "as many units are used as calls were answered");
}

async fn units_used(campaigns: &[Campaign]) -> u64 {
    let mut used = 0;
    for campaign in campaigns {
        used += campaign.links().await.iter().map(|link| link.total()).sum::<u64>();
    }
    used
}

#[tokio::test]
async fn a_client_that_moved_is_called_at_its_new_address_by_every_instance() {
    let one = Service::start_production().await;
    let other = Service::start_beside(&one).await;
    let before = Phones::start(&one, Manner::answers_after(50)).await;
    let after = Phones::start(&one, Manner::answers_after(50)).await;
    let campaign = one.seller().await.campaign(&one, FIRST, "priority", 20).await;
    let client = one.client(&before.contact()).await;
    campaign.link(client, json!({})).await;
    eventually("the number is known on the other instance", seconds(5), async || {
        let mut caller = Phone::call(&other, FIRST).await;
        let is_answered = caller.answer().await == 200;
        if is_answered {
            caller.hang_up().await;
        }
        is_answered.then_some(())
    })
    .await;

    let contact = json!({"pjsip": {"aor": {"contact": after.contact()}}});
    one.admin().put(&format!("/api/admin/clients/{client}"), contact).await;
    let answered = || after.trace().count(|message| message.is_answer(200, "INVITE"));
    let mut caller = Phone::call(&one, FIRST).await;
    assert_eq!(caller.answer().await, 200, "the very next call");
    eventually("it is called at its new address", seconds(3), async || {
        (answered() == 1).then_some(())
    })
    .await;
    caller.hang_up().await;
    eventually("the other instance calls it there too", seconds(3), async || {
        let mut caller = Phone::call(&other, FIRST).await;
        assert_eq!(caller.answer().await, 200);
        caller.hang_up().await;
        (answered() > 1).then_some(())
    })
    .await;
    one.assert_clean().await;
    other.assert_no_calls().await;
}
