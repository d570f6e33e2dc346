//! A real Asterisk still tells what `tests/traces` says that it told: on that the
//! simulated switch stands (`src/exchange/simulation`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550101901";
/// Carries nothing that we act on, or isn't about a channel.
const LEFT_OUT: [&str; 6] = [
    "ChannelEnteredBridge",
    "ChannelLeftBridge",
    "ChannelUserevent",
    "BridgeCreated",
    "BridgeDestroyed",
    "ChannelHold",
];

/// What was told of caller and client, each in order.
type Told = BTreeMap<String, Vec<String>>;

fn recorded(name: &str) -> Told {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces").join(name);
    let mut told = Told::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let Some((_, event)) = line.split_once(" < ") else { continue };
        let (channel, event) = event.split_once(' ').unwrap();
        told.entry(channel.to_owned()).or_default().push(event.to_owned());
    }
    comparable(told)
}

/// What this service was told so far, by its log.
fn told_to(service: &Service) -> Told {
    let log = fs::read_to_string(service.data().join("log/capconduit.log")).unwrap();
    let mut told = Told::new();
    for line in log.lines() {
        let Some((_, quoted)) = line.split_once("an event frame=") else { continue };
        let mut quoted = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
        let frame = quoted.next().unwrap().unwrap();
        let event: Value = serde_json::from_str(&frame).unwrap();
        let kind = event["type"].as_str().unwrap();
        let channel = if kind == "Dial" { &event["peer"] } else { &event["channel"] };
        let Some(id) = channel["id"].as_str().filter(|_| !LEFT_OUT.contains(&kind)) else {
            continue;
        };
        let role = match id.rsplit_once("-b") {
            Some((_, attempt)) => format!("leg{attempt}"),
            None => "caller".to_owned(),
        };
        let mut text = format!("{kind} {}", channel["state"].as_str().unwrap());
        for name in ["cause", "soft", "tech_cause", "dialstatus"] {
            match &event[name] {
                Value::Null => {}
                Value::String(value) if value.is_empty() => {}
                Value::String(value) => text.push_str(&format!(" {name}={value}")),
                value => text.push_str(&format!(" {name}={value}")),
            }
        }
        told.entry(role).or_default().push(text);
    }
    comparable(told)
}

/// Without what may be one way or the other: which of the events comes first that say that
/// a client is dialled and rings, and whether a caller's last events are told at all.
fn comparable(mut told: Told) -> Told {
    for events in told.values_mut() {
        events.retain(|event| !event.starts_with("Dial ") || event.contains("dialstatus=ANSWER"));
    }
    if let Some(caller) = told.get_mut("caller")
        && let Some(end) = caller.iter().position(|event| event.starts_with("StasisEnd"))
    {
        caller.truncate(end + 1);
    }
    told
}

/// A service that writes every event to its log, and a client of this manner.
async fn with(manner: Result<Manner, u16>) -> (Service, Phones) {
    let mut service = Service::prepare();
    let events = "info,capconduit::ari::socket=trace".to_owned();
    service.settings.push(("CAPCONDUIT__LOG__FILTER", events));
    service.start_first().await;
    let client = match manner {
        Ok(manner) => Phones::start(&service, manner).await,
        Err(status) => Phones::refusing(&service, status).await,
    };
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 1).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    (service, client)
}

async fn assert_told(service: &Service, name: &str) {
    let recorded = recorded(name);
    let mut told = Told::new();
    eventually(&format!("what {name} says"), seconds(10), async || {
        told = told_to(service);
        let is_whole = |(channel, events): (&String, &Vec<String>)| {
            told.get(channel).is_some_and(|told| told.len() >= events.len())
        };
        recorded.iter().all(is_whole).then_some(())
    })
    .await;
    assert_eq!(told, recorded, "{name}");
    service.assert_clean().await;
}

#[tokio::test]
async fn a_client_answers_and_the_caller_hangs_up() {
    let (service, _client) = with(Ok(Manner::answers_after(300))).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    caller.hang_up().await;
    assert_told(&service, "answered_caller_bye.txt").await;
}

#[tokio::test]
async fn a_client_answers_and_hangs_up() {
    let (service, _client) = with(Ok(Manner::answers_after(300).hangs_up_after(600))).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    assert_told(&service, "answered_callee_bye.txt").await;
}

#[tokio::test]
async fn a_caller_hangs_up_while_the_client_rings() {
    let (service, _client) = with(Ok(Manner::rings_forever())).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    caller.ringing().await;
    caller.cancel().await;
    assert_told(&service, "caller_cancel_ringing.txt").await;
}

#[tokio::test]
async fn clients_who_refuse_or_do_not_answer() {
    for (manner, name, status) in [
        (Err(486), "busy.txt", 486),
        (Err(480), "unavailable_480.txt", 480),
        (Ok(Manner::rings_forever()), "cancel_by_delete.txt", 480),
    ] {
        let (service, _client) = with(manner).await;
        let mut caller = Phone::call(&service, NUMBER).await;
        assert_eq!(caller.answer().await, status, "{name}");
        assert_told(&service, name).await;
    }
}
