//! Two things at the same moment, a thousand times: an answer and the end of the ring
//! time, a hang-up and the answer. One of the two happened, and everybody says which:
//! the caller, the client's phone, the record and the ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::seller::Campaign;
use crate::support::service::Service;
use crate::support::sip::Trace;
use crate::support::wait::{eventually, ms, seconds};

const CALLS: usize = 1_000;
const AT_ONCE: usize = 40;
/// Between the beginnings of two calls, so that they don't disturb each other's moments.
const STAGGER: Duration = ms(8);

/// How a call went, in its caller's eyes.
#[derive(Clone, Debug)]
struct Seen {
    caller: String,
    status: u16,
}

/// Eight clients, and a campaign for each.
struct Scene {
    clients: Vec<Phones>,
    campaigns: Vec<Campaign>,
    /// Its folder has the clients' traces.
    service: Service,
}

impl Scene {
    async fn set(answer_ms: [u32; 8], ring_seconds: u32) -> Self {
        let service = Service::start().await;
        let seller = service.seller().await;
        let (mut clients, mut campaigns) = (Vec::new(), Vec::new());
        for (place, answer_ms) in answer_ms.into_iter().enumerate() {
            let client = Phones::start(&service, Manner::answers_after(answer_ms)).await;
            let campaign =
                seller.campaign(&service, &number(place), "priority", ring_seconds).await;
            campaign.link(service.client(&client.contact()).await, json!({})).await;
            clients.push(client);
            campaigns.push(campaign);
        }
        Self { clients, campaigns, service }
    }

    /// Calls, forty at once, each in this way; its place and all others' results.
    async fn calls(&self, way: impl AsyncFn(usize, &mut Phone) -> u16) -> Vec<Seen> {
        let mut seen = Vec::new();
        for batch in (0..CALLS).collect::<Vec<_>>().chunks(AT_ONCE) {
            let calls = batch.iter().enumerate().map(|(turn, call)| {
                let way = &way;
                async move {
                    sleep(STAGGER * u32::try_from(turn).unwrap()).await;
                    let invite = Invite::to(&self.service, &number(call % self.clients.len()));
                    let caller = invite.number().to_owned();
                    let mut phone = Phone::invite(&self.service, invite).await;
                    let status = way(*call, &mut phone).await;
                    Seen { caller, status }
                }
            });
            seen.extend(join_all(calls).await);
        }
        seen
    }

    /// Caller, client, record and ledger agree on each call, and nothing is left.
    async fn assert_agreed(&self, seen: &[Seen], unanswered: (u16, &str)) {
        let service = &self.service;
        service.assert_clean().await;
        let logs = eventually("all records", seconds(20), async || {
            Some(service.logs_so_far().await).filter(|logs| logs.len() >= CALLS)
        })
        .await;
        assert_eq!(logs.len(), CALLS, "one record for each call");
        let records: BTreeMap<&str, &Value> =
            logs.iter().map(|log| (log["callerIdNum"].as_str().unwrap(), log)).collect();
        let mut at_clients = BTreeMap::new();
        for client in &self.clients {
            at_clients
                .extend(client.trace().calls().into_values().map(|call| (caller(&call), call)));
        }
        for Seen { caller, status } in seen {
            let log = records[caller.as_str()];
            let told = match *status {
                200 => "ANSWERED",
                other if other == unanswered.0 => unanswered.1,
                other => panic!("{caller} got {other}: {log:#}"),
            };
            assert_eq!(log["callStatus"], told, "{log:#}");
            let Some(call) = at_clients.get(caller) else {
                assert_ne!(*status, 200, "{caller} talks to nobody");
                continue;
            };
            assert!(*status != 200 || answered(call), "{caller} was answered by nobody: {call:#?}");
            assert!(is_over(call), "the client's phone of {caller} was left alone: {call:#?}");
        }
        let answered = seen.iter().filter(|seen| seen.status == 200).count();
        let mut used = 0;
        for campaign in &self.campaigns {
            used += campaign.links().await[0].total();
        }
        assert_eq!(used, answered as u64, "what was answered is what is used");
        eprintln!("{answered} of {CALLS} were answered");
        assert!((CALLS / 20..CALLS * 19 / 20).contains(&answered), "the moment was missed");
    }
}

fn number(place: usize) -> String {
    format!("+1555010240{place}")
}

/// The number from which the client was called.
fn caller(call: &Trace) -> String {
    let from = call.0[0].header("From").unwrap();
    from.split("sip:").nth(1).and_then(|rest| rest.split('@').next()).unwrap().to_owned()
}

fn answered(call: &Trace) -> bool {
    call.find(|message| message.is_answer(200, "INVITE")).is_some()
}

/// A call that was answered ends with a BYE, and another with a CANCEL.
fn is_over(call: &Trace) -> bool {
    let last_word = if answered(call) { "BYE" } else { "CANCEL" };
    call.find(|message| message.is_request(last_word)).is_some()
}

#[tokio::test]
async fn an_answer_around_the_end_of_the_ring_time_counts_whole_or_not_at_all() {
    // The client hears of the call a few milliseconds after its time began.
    let scene = Scene::set([975, 981, 986, 991, 996, 1_001, 1_007, 1_015], 1).await;
    let seen = scene
        .calls(async |_, phone| {
            let status = phone.answer().await;
            if status == 200 {
                phone.hang_up().await;
            }
            status
        })
        .await;
    scene.assert_agreed(&seen, (480, "NOANSWER")).await;
}

#[tokio::test]
async fn a_hang_up_around_the_answer_is_one_or_the_other() {
    const RING_MS: u64 = 200;
    let scene = Scene::set([200; 8], 20).await;
    let seen = scene
        .calls(async |call, phone| {
            phone.ringing().await;
            sleep(ms(RING_MS - 20 + (call as u64 * 7) % 41)).await;
            phone.cancel().await
        })
        .await;
    scene.assert_agreed(&seen, (487, "CANCELED")).await;
}
