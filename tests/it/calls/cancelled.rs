//! 4. Callers who hang up before anybody answers, or just as somebody does.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::service::Service;
use crate::support::wait::{eventually, ms, seconds};

const NUMBER: &str = "+15550100401";

async fn with_client(manner: Manner) -> (Service, Phones) {
    let service = Service::start().await;
    let client = Phones::start(&service, manner).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    (service, client)
}

/// A caller's number, and how the call ended in the caller's eyes.
type Seen = (String, u16);

/// Calls, and takes the call back some time after this provisional answer came.
async fn cancel(service: &Service, provisional: u16, after: Duration) -> Seen {
    let invite = Invite::to(service, NUMBER);
    let number = invite.number().to_owned();
    let mut phone = Phone::invite(service, invite).await;
    let what = format!("a {provisional}");
    phone.wait_for(&what, |message| message.is_answer(provisional, "INVITE")).await;
    tokio::time::sleep(after).await;
    (number, phone.cancel().await)
}

/// There is one log for each call, and it says what the caller saw. How many were answered.
async fn assert_logs_agree(service: &Service, seen: &[Seen]) -> usize {
    let logs = service.logs(seen.len()).await;
    for (number, status) in seen {
        let own: Vec<&Value> = logs.iter().filter(|log| log["callerIdNum"] == **number).collect();
        let [log] = own[..] else { panic!("one log for {number}: {own:#?}") };
        let (call_status, reason) = match status {
            200 => ("ANSWERED", "answered"),
            487 => ("CANCELED", "caller_abandoned"),
            other => panic!("{number} got {other}"),
        };
        assert_eq!((&log["callStatus"], &log["reason"]), (&json!(call_status), &json!(reason)));
        assert_eq!(log["timestampAnswered"].is_string(), *status == 200, "{log:#}");
    }
    seen.iter().filter(|(_, status)| *status == 200).count()
}

#[tokio::test]
async fn a_caller_who_hangs_up_while_it_rings_frees_the_client_at_once() {
    let (service, client) = with_client(Manner::rings_forever()).await;

    let seen = [cancel(&service, 180, ms(300)).await];

    eventually("the client is told", seconds(1), async || {
        client.trace().find(|message| message.is_answer(487, "INVITE")).map(drop)
    })
    .await;
    assert_eq!(assert_logs_agree(&service, &seen).await, 0);
    let log = service.only_log().await;
    assert_eq!(log["attempts"][0]["result"], "canceled");
    service.assert_clean().await;
}

/// A caller who is gone before Asterisk has run the dialplan is never heard of:
/// there is no log then. Nobody has two.
#[tokio::test]
async fn callers_who_hang_up_while_routing_leave_nothing_but_their_log() {
    let (service, _client) = with_client(Manner::rings_forever()).await;

    let mut seen = Vec::new();
    for after in 0..30 {
        seen.push(cancel(&service, 100, ms(after)).await);
    }

    service.assert_clean().await;
    // Records are written in order: with this one, all are there.
    let last = cancel(&service, 180, ms(1)).await;
    let has_log = |logs: &[Value], number: &str| logs.iter().any(|l| l["callerIdNum"] == *number);
    let logs = eventually("the last call's log", seconds(5), async || {
        Some(service.logs_so_far().await).filter(|logs| has_log(logs, &last.0))
    })
    .await;
    seen.push(last);
    assert!(seen.iter().all(|(_, status)| *status == 487), "{seen:?}");
    seen.retain(|(number, _)| has_log(&logs, number));
    eprintln!("{} of 31 callers came as far as the service", seen.len());
    assert!(seen.len() > 20, "{logs:#?}");
    assert_eq!(assert_logs_agree(&service, &seen).await, 0);
    service.assert_clean().await;
}

#[tokio::test]
async fn a_hang_up_in_the_moment_of_the_answer_is_one_or_the_other_and_never_both() {
    const RING_MS: u64 = 150;
    let (service, _client) = with_client(Manner::answers_after(150)).await;
    // Around the client's answer, each millisecond about twice, eight at once.
    let moments: Vec<u64> = (0..100).map(|call| RING_MS - 25 + (call * 13) % 51).collect();

    let mut seen = Vec::new();
    for moments in moments.chunks(8) {
        let calls = moments.iter().map(|after| cancel(&service, 180, ms(*after)));
        seen.extend(join_all(calls).await);
    }

    let answered = assert_logs_agree(&service, &seen).await;
    eprintln!("{answered} of {} were answered", seen.len());
    assert!((1..seen.len()).contains(&answered), "the moment of the answer was missed");
    service.assert_clean().await;
}
