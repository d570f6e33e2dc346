//! 3. Clients who aren't there.

use std::net::UdpSocket;

use sea_orm::{ConnectionTrait, DbBackend};
use serde_json::json;

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::seller::Campaign;
use crate::support::service::{Service, instant};
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550100301";
const AT_ONCE_MS: i64 = 100;

/// Where a client would be, and nobody says anything.
struct Silence(UdpSocket);

impl Silence {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    fn contact(&self) -> String {
        format!("sip:nobody@{}", self.0.local_addr().unwrap())
    }

    /// What Asterisk has sent there so far.
    fn heard(&self) -> Vec<String> {
        let mut packet = [0; 4_096];
        let next = || self.0.recv(&mut packet).ok().map(|read| first_line(&packet[..read]));
        std::iter::from_fn(next).collect()
    }
}

fn first_line(packet: &[u8]) -> String {
    String::from_utf8_lossy(packet).lines().next().unwrap_or_default().to_owned()
}

/// Nobody is invited who is known not to be there.
fn assert_not_invited(silence: &Silence) {
    let heard = silence.heard();
    assert!(!heard.iter().any(|line| line.starts_with("INVITE")), "{heard:#?}");
}

/// A campaign whose second choice answers at once.
async fn with_second_choice(service: &Service) -> (Campaign, Phones) {
    let seller = service.seller().await;
    let campaign = seller.campaign(service, NUMBER, "priority", 20).await;
    let second = Phones::start(service, Manner::answers_after(1)).await;
    let client = service.client(&second.contact()).await;
    campaign.link(client, json!({"forwardingPriority": 2})).await;
    (campaign, second)
}

/// Calls, and tells after how many milliseconds the second choice was tried.
async fn ms_until_second_choice(service: &Service, second: &Phones) -> i64 {
    let caller = call(NUMBER, 100).start(service).finish(seconds(30)).await;
    assert_eq!(caller.answered_with(200), 1);
    let log = service.only_log().await;
    assert_eq!(log["attempts"][0]["result"], "unreachable");
    assert_eq!(log["attempts"][1]["result"], "answered");
    let started = |attempt: usize| instant(&log["attempts"][attempt]["startedAt"]);
    let in_log = started(1) - started(0);
    let called = caller.when("an INVITE", |message| message.is_request("INVITE"));
    let tried = second.trace().when("an INVITE", |message| message.is_request("INVITE"));
    let on_wire = tried - called;
    eprintln!("the second choice was tried after {on_wire} on the wire, {in_log} in the log");
    on_wire.max(in_log).num_milliseconds()
}

/// Behind the back of the API, and of the database's own rules.
async fn remove_endpoint(service: &Service, endpoint: &str) {
    let db = capconduit::db::connect(&service.database_url()).await.unwrap();
    let without_rules = match db.get_database_backend() {
        DbBackend::Postgres => "SET session_replication_role = replica",
        _ => "PRAGMA foreign_keys = OFF",
    };
    let removal = format!("{without_rules}; DELETE FROM pjsip_endpoints WHERE id = '{endpoint}'");
    db.execute_unprepared(&removal).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_call_whose_only_client_is_unreachable_is_refused_at_once() {
    let service = Service::start().await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let (client, endpoint) = service.qualified_client(&Silence::start().contact(), 0).await;
    campaign.link(client, json!({})).await;
    remove_endpoint(&service, &endpoint).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 480);
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("FAILED"), &json!("all_failed")));
    assert_eq!(log["attempts"][0]["result"], "unreachable");
    service.assert_clean().await;
}

#[tokio::test]
async fn a_client_whose_endpoint_is_unknown_is_passed_over_at_once() {
    let service = Service::start().await;
    let (campaign, second) = with_second_choice(&service).await;
    let first = Silence::start();
    let (client, endpoint) = service.qualified_client(&first.contact(), 0).await;
    campaign.link(client, json!({"forwardingPriority": 1})).await;
    remove_endpoint(&service, &endpoint).await;

    let after = ms_until_second_choice(&service, &second).await;
    assert!(after < AT_ONCE_MS, "{after} ms");
    assert_not_invited(&first);
    service.assert_clean().await;
}

#[tokio::test]
async fn a_client_known_to_be_unreachable_is_passed_over_at_once() {
    let service = Service::start().await;
    let (campaign, second) = with_second_choice(&service).await;
    let first = Silence::start();
    let (client, endpoint) = service.qualified_client(&first.contact(), 5).await;
    campaign.link(client, json!({"forwardingPriority": 1})).await;
    eventually("Asterisk finds out that nobody is there", seconds(15), async || {
        let contacts = service.asterisk("pjsip show contacts");
        let own = contacts.lines().find(|line| line.contains(&format!(" {endpoint}/")))?;
        own.contains("Unavail").then_some(())
    })
    .await;
    assert!(first.heard().iter().any(|line| line.starts_with("OPTIONS")), "it was asked");

    let after = ms_until_second_choice(&service, &second).await;
    assert!(after < AT_ONCE_MS, "{after} ms");
    assert_not_invited(&first);
    service.assert_clean().await;
}

#[tokio::test]
async fn a_client_who_answers_probes_is_called() {
    let service = Service::start().await;
    let phones = Phones::start(&service, Manner::answers_after(1)).await;
    let (client, endpoint) = service.qualified_client(&phones.contact(), 1).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(client, json!({})).await;
    let answered = || phones.trace().count(|message| message.is_answer(200, "OPTIONS"));
    eventually("it has been asked some times", seconds(15), async || {
        (answered() >= 3).then_some(())
    })
    .await;
    let contacts = service.asterisk("pjsip show contacts");
    let own = contacts.lines().find(|line| line.contains(&format!(" {endpoint}/"))).unwrap();
    assert!(own.contains("Avail"), "{own}");
    let caller = call(NUMBER, 100).start(&service).finish(seconds(30)).await;
    assert_eq!(caller.answered_with(200), 1);
    service.assert_clean().await;
}

#[tokio::test]
async fn a_client_who_is_silent_delays_a_call_no_longer_than_sip_must() {
    let service = Service::start().await;
    let (campaign, second) = with_second_choice(&service).await;
    let first = Silence::start();
    campaign.link(service.client(&first.contact()).await, json!({"forwardingPriority": 1})).await;

    // 64 times T1, which is 100 ms in pjsip.conf (RFC 3261, 17.1.1.2).
    let after = ms_until_second_choice(&service, &second).await;
    assert!((6_300..7_000).contains(&after), "{after} ms");
    let heard = first.heard();
    assert!(heard.iter().any(|line| line.starts_with("INVITE")), "it was invited: {heard:#?}");
    service.assert_clean().await;
}
