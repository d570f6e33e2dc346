//! Clients who answer just as the ring time ends.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::service::Service;

/// Milliseconds around the ring time of one second at which clients answer.
const ANSWERS_MS: [u32; 6] = [985, 991, 997, 1_003, 1_009, 1_020];
const CALLS_EACH: usize = 10;

/// The caller's number, and the answer it got.
async fn call(service: &Service, number: &str) -> (String, u16) {
    let invite = Invite::to(service, number);
    let caller = invite.number().to_owned();
    let mut phone = Phone::invite(service, invite).await;
    let status = phone.answer().await;
    if status == 200 {
        phone.hang_up().await;
    }
    (caller, status)
}

#[tokio::test]
async fn an_answer_as_the_ring_time_ends_counts_whole_or_not_at_all() {
    let service = Service::start().await;
    let seller = service.seller().await;
    let mut campaigns = Vec::new();
    let mut clients = Vec::new();
    for (place, answers_ms) in ANSWERS_MS.into_iter().enumerate() {
        let client = Phones::start(&service, Manner::answers_after(answers_ms)).await;
        let number = format!("+1555010130{place}");
        let campaign = seller.campaign(&service, &number, "priority", 1).await;
        campaign.link(service.client(&client.contact()).await, json!({})).await;
        campaigns.push((number, campaign));
        clients.push(client);
    }

    let calls = campaigns.iter().flat_map(|(number, _)| [number.as_str(); CALLS_EACH]);
    let seen = join_all(calls.map(|number| call(&service, number))).await;

    let logs = service.logs(seen.len()).await;
    for (caller, status) in &seen {
        let own: Vec<&Value> = logs.iter().filter(|log| log["callerIdNum"] == **caller).collect();
        let [log] = own[..] else { panic!("one log for {caller}: {own:#?}") };
        let told = match status {
            200 => "ANSWERED",
            480 => "NOANSWER",
            other => panic!("{caller} got {other}"),
        };
        assert_eq!(log["callStatus"], told, "{log:#}");
    }
    let answered = seen.iter().filter(|(_, status)| *status == 200).count();
    let mut used = 0;
    for (_, campaign) in &campaigns {
        used += campaign.links().await[0].total();
    }
    assert_eq!(used, answered as u64, "what was answered is what is used");
    service.assert_clean().await;
}
