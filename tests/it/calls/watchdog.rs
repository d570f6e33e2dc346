//! What can't be is found on a real switch, counted and mended.

use std::fs;

use capconduit::ari::LegId;
use capconduit::clock;
use capconduit::ids::{CallId, Mark};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::{Service, items};
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550101701";
/// How often it has listed what there is.
const AUDITS: &str = "capconduit_ari_command_seconds_count{command=\"list bridges\"}";
/// All that tells of a channel's end.
const ENDS: [&str; 3] = ["StasisEnd", "ChannelHangupRequest", "ChannelDestroyed"];
/// Another application on the same Asterisk.
const OTHER: &str = "lounge";

/// One whose audits come every second.
async fn watchful() -> Service {
    let mut service = Service::prepare();
    service.settings.push(("CAPCONDUIT__CALLS__AUDIT_SECONDS", "1".to_owned()));
    service.start_first().await;
    service
}

/// Its only number, a client who answers, and a caller who talks to it.
async fn conversation(service: &Service) -> (Phones, Phone) {
    let client = Phones::start(service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut caller = Phone::call(service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    eventually("they talk", seconds(10), async || {
        (service.live_in("talking").await == 1).then_some(())
    })
    .await;
    (client, caller)
}

async fn drift(service: &Service, kind: &str) -> f64 {
    service.metrics().await.known(&format!("capconduit_drift_total{{kind=\"{kind}\"}}"))
}

/// Drift of all kinds.
async fn all_drift(service: &Service) -> f64 {
    service.metrics().await.sum("capconduit_drift_total")
}

/// How often it said this in its log.
fn times_said(service: &Service, what: &str) -> usize {
    let log = fs::read_to_string(service.data().join("log/capconduit.log")).unwrap();
    log.lines().filter(|line| line.contains(what)).count()
}

/// By which its calls are known.
fn mark(service: &Service) -> Mark {
    let instance = fs::read_to_string(service.data().join("journal/instance")).unwrap();
    Mark::of_instance(instance.trim())
}

fn call_of_another_instance() -> CallId {
    clock::new_call_id().led_by(Mark::of_instance("another"))
}

/// What Asterisk answers to a request over ARI.
async fn ask(service: &Service, method: Method, path: &str, body: Option<Value>) -> StatusCode {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{}/ari/{path}", service.ari_port);
    let password = service.secret("ari-password");
    let mut request = http.request(method, url).basic_auth("capconduit", Some(password));
    if let Some(body) = body {
        request = request.json(&body);
    }
    request.send().await.unwrap().status()
}

/// From here on it is told of no event of these types.
async fn lose(service: &Service, events: &[&str]) {
    let events: Vec<Value> = events.iter().map(|name| json!({"type": name})).collect();
    let filter = Some(json!({"disallowed": events}));
    let answer = ask(service, Method::PUT, "applications/capconduit/eventFilter", filter).await;
    assert_eq!(answer, 200);
}

/// Waits until it has looked at what is on the switch for this often again.
async fn audits(service: &Service, times: f64) {
    let made = async || service.metrics().await.sum(AUDITS);
    let before = made().await;
    eventually("it looks around", seconds(20), async || {
        (made().await >= before + times).then_some(())
    })
    .await;
}

/// The call's bridge, and both channels in it.
async fn bridged(service: &Service) -> (String, Vec<String>) {
    let bridge = service.ari("bridges").await[0].clone();
    let inside = bridge["channels"].as_array().unwrap();
    let inside = inside.iter().map(|channel| channel.as_str().unwrap().to_owned()).collect();
    (bridge["id"].as_str().unwrap().to_owned(), inside)
}

#[tokio::test]
async fn caller_and_client_who_were_torn_apart_are_put_together_again() {
    let service = watchful().await;
    let (_client, mut caller) = conversation(&service).await;
    let (bridge, channels) = bridged(&service).await;
    assert_eq!(channels.len(), 2);
    assert_eq!(drift(&service, "call_apart").await, 0.0);

    for (times, channel) in (1_u8..).zip(&channels) {
        service.tell_ari(&format!("bridges/{bridge}/removeChannel?channel={channel}")).await;
        eventually("they talk again", seconds(10), async || {
            let (_, inside) = bridged(&service).await;
            let is_counted = drift(&service, "call_apart").await == f64::from(times);
            (inside.len() == 2 && is_counted).then_some(())
        })
        .await;
        let said = times_said(&service, "caller and client are put into their bridge again");
        assert_eq!(said, usize::from(times));
    }
    caller.hang_up().await;
    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
    service.assert_clean().await;
    assert_eq!(all_drift(&service).await, 2.0);
}

#[tokio::test]
async fn a_call_whose_caller_left_and_no_event_told_so_is_ended() {
    let service = watchful().await;
    let (_client, mut caller) = conversation(&service).await;
    lose(&service, &ENDS).await;
    caller.hang_up().await;

    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
    service.assert_clean().await;
    assert_eq!(drift(&service, "call_without_channel").await, 1.0);
    assert_eq!(all_drift(&service).await, 1.0, "it is counted once");
    assert_eq!(times_said(&service, "the caller was found gone, and no event had told so"), 1);
}

#[tokio::test]
async fn a_call_whose_clients_leg_vanished_and_no_event_told_so_is_ended() {
    let service = watchful().await;
    let (_client, mut caller) = conversation(&service).await;
    let (bridge, _) = bridged(&service).await;
    lose(&service, &ENDS).await;
    let answer = ask(&service, Method::DELETE, &format!("channels/{bridge}-b1"), None).await;
    assert_eq!(answer, 204);

    assert!(caller.hung_up(seconds(10)).await, "nobody talks to nobody");
    assert_eq!(service.only_log().await["callStatus"], "ANSWERED");
    service.assert_clean().await;
    assert_eq!(drift(&service, "call_without_leg").await, 1.0);
    assert_eq!(all_drift(&service).await, 1.0, "it is counted once");
    let said = times_said(&service, "the client's leg was found gone, and no event had told so");
    assert_eq!(said, 1);
}

#[tokio::test]
async fn a_leg_that_belongs_to_no_call_is_taken_down_whether_its_entry_is_told_or_not() {
    let service = watchful().await;
    let (_, endpoint) = service.qualified_client("sip:client@127.0.0.1:9", 0).await;
    for (lost, times) in [(&[][..], 1_u8), (&["StasisStart"], 2)] {
        lose(&service, lost).await;
        let call = clock::new_call_id().led_by(mark(&service));
        let leg = LegId { call, attempt: 1 };
        let path = format!("channels/create?endpoint=PJSIP/{endpoint}&app=capconduit");
        service.tell_ari(&format!("{path}&channelId={leg}")).await;

        eventually("it is gone", seconds(10), async || {
            let is_counted = drift(&service, "channel_without_call").await == f64::from(times);
            let left = service.ari("channels").await;
            (is_counted && items(&left).is_empty()).then_some(())
        })
        .await;
        let said = times_said(&service, "a channel without a call is taken down");
        assert_eq!(said, usize::from(times));
    }
    assert_eq!(all_drift(&service).await, 2.0);
}

#[tokio::test]
async fn a_bridge_that_belongs_to_no_call_is_taken_down() {
    let service = watchful().await;
    let nobodys = clock::new_call_id().led_by(mark(&service)).to_string();
    let anothers = call_of_another_instance().to_string();
    for bridge in [&nobodys, &anothers, "somebody-elses"] {
        service.tell_ari(&format!("bridges/{bridge}?type=mixing")).await;
    }

    let left = eventually("it is gone", seconds(10), async || {
        let bridges = service.ari("bridges").await;
        (items(&bridges).len() == 2 && drift(&service, "bridge_without_call").await == 1.0)
            .then_some(bridges)
    })
    .await;
    let left = left.as_array().unwrap();
    assert!(left.iter().all(|bridge| bridge["id"] != *nobodys), "{left:?}");
    assert_eq!(times_said(&service, "a bridge without a call is taken down"), 1);
}

/// Another program on the same Asterisk, whose application is there as long as this.
async fn another_program(service: &Service) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let (port, password) = (service.ari_port, service.secret("ari-password"));
    let url = format!("ws://127.0.0.1:{port}/ari/events?app={OTHER}&api_key=capconduit:{password}");
    connect_async(url).await.unwrap().0
}

/// Somebody whom the other program has called, and who is alone in a bridge of this name.
async fn alone_elsewhere(service: &Service, endpoint: &str, channel: &str, bridge: &str) {
    let path = format!("channels/create?endpoint=PJSIP/{endpoint}&app={OTHER}");
    service.tell_ari(&format!("{path}&channelId={channel}")).await;
    eventually("it has entered, and is dialled", seconds(10), async || {
        let dial = format!("channels/{channel}/dial");
        ask(service, Method::POST, &dial, None).await.is_success().then_some(())
    })
    .await;
    eventually("it is answered", seconds(10), async || {
        (service.ari(&format!("channels/{channel}")).await["state"] == "Up").then_some(())
    })
    .await;
    service.tell_ari(&format!("bridges/{bridge}?type=mixing")).await;
    service.tell_ari(&format!("bridges/{bridge}/addChannel?channel={channel}")).await;
}

#[tokio::test]
async fn who_is_alone_in_a_bridge_of_another_program_is_let_alone() {
    let service = watchful().await;
    let phones = Phones::start(&service, Manner::answers_after(50)).await;
    let (_, endpoint) = service.qualified_client(&phones.contact(), 0).await;
    let _program = another_program(&service).await;
    // As Asterisk names bridges by itself, and as we do.
    let by_asterisk = "0b2f7e0c-6a0d-4c59-8f3e-3f0a7f1f6f11".to_owned();
    let bridges = [by_asterisk, call_of_another_instance().to_string()];
    for (channel, bridge) in ["guest-1", "guest-2"].into_iter().zip(&bridges) {
        alone_elsewhere(&service, &endpoint, channel, bridge).await;
    }

    audits(&service, 6.0).await;

    for bridge in &bridges {
        let bridge = service.ari(&format!("bridges/{bridge}")).await;
        assert_eq!(items(&bridge["channels"]).len(), 1, "{bridge}");
    }
    assert_eq!(items(&service.ari("channels").await).len(), 2);
    assert_eq!(all_drift(&service).await, 0.0);
}
