//! What the log tells of a call carries its id, so one search finds all of it: in lines
//! for people as in JSON.

use serde_json::{Value, json};

use crate::support::apart::Apart;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;

const NUMBER: &str = "+15550102701";

/// Two calls, each refused by one client and answered by the next; their logs.
async fn two_calls(service: &Service) -> Vec<Value> {
    let refuses = Phones::refusing(service, 486).await;
    let answers = Phones::start(service, Manner::answers_after(50)).await;
    let campaign = service.seller().await.campaign(service, NUMBER, "priority", 20).await;
    for (priority, phones) in [(1, &refuses), (2, &answers)] {
        let client = service.client(&phones.contact()).await;
        campaign.link(client, json!({"forwardingPriority": priority})).await;
    }
    for _ in 0..2 {
        let mut caller = Phone::call(service, NUMBER).await;
        assert_eq!(caller.answer().await, 200);
        caller.hang_up().await;
    }
    let logs = service.logs(2).await;
    service.assert_clean().await;
    logs
}

/// Asserts that lines which name the call or its caller are told as the call's.
fn assert_told(log: &Value, lines: &[String], is_in_span: impl Fn(&str, &str) -> bool) {
    let call = log["callId"].as_str().unwrap();
    let channel = log["asteriskUniqueid"].as_str().unwrap();
    let (told, others): (Vec<&String>, Vec<_>) =
        lines.iter().partition(|line| is_in_span(line, call));
    for line in others {
        let names = |word| line.split(['"', '/', '=', ' ', '?']).any(|part| part == word);
        assert!(!line.contains(call) && !names(channel), "a line without its call: {line}");
    }
    let asked = "channels/create";
    for what in ["a call arrived", "LegAnswered", asked, "call closed"] {
        assert!(told.iter().any(|line| line.contains(what)), "{what:?} isn't told: {told:#?}");
    }
}

#[tokio::test]
async fn every_line_about_a_call_says_which_in_a_terminal() {
    let mut service = Service::prepare();
    service.settings.push(("CAPCONDUIT__LOG__FILTER", "debug".to_owned()));
    service.start_first().await;
    let logs = two_calls(&service).await;
    let text = std::fs::read_to_string(service.data().join("log/capconduit.log")).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    for log in &logs {
        let is_in_span = |line: &str, call: &str| line.contains(&format!(" call{{id={call}}}: "));
        assert_told(log, &lines, is_in_span);
    }
}

#[tokio::test]
async fn every_line_about_a_call_says_which_in_json() {
    // The parts that are named here say no more of themselves, and calls keep their ids.
    let filter = "capconduit::call=debug,capconduit::ari=debug";
    let settings = [("CAPCONDUIT__LOG__FILTER", filter)];
    let apart = Apart::start(Service::prepare(), &settings).await;
    let logs = two_calls(&apart.service).await;
    let said = apart.service.said();
    let lines: Vec<_> = said.lines().map(str::to_owned).collect();
    for log in &logs {
        let is_in_span = |line: &str, call: &str| {
            let line: Value = serde_json::from_str(line).expect("a line is JSON");
            line["span"] == json!({"name": "call", "id": call})
        };
        assert_told(log, &lines, is_in_span);
    }
}
