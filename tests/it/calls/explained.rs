//! What `capconduit explain` says of real calls, beside the running service.

use std::process::Command;

use serde_json::json;

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::service::Service;
use crate::support::wait::seconds;

const NUMBER: &str = "+15550102001";

fn explain(service: &Service, call: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_capconduit"))
        .args(["explain", call])
        .env("CAPCONDUIT__DATABASE__URL", service.database_url())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_call_is_explained_as_it_was_and_what_has_been_changed_since_is_named() {
    let service = Service::start().await;
    let busy = Phones::refusing(&service, 486).await;
    let other = Phones::start(&service, Manner::answers_after(100)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let mut links = Vec::new();
    for (priority, contact) in [busy.contact(), other.contact()].iter().enumerate() {
        let client = service.client(contact).await;
        links.push(campaign.link(client, json!({"forwardingPriority": priority})).await);
    }
    call(NUMBER, 300).start(&service).finish(seconds(20)).await;

    let log = service.only_log().await;
    let id = log["callId"].as_str().unwrap();
    let said = explain(&service, id);
    let attempts = log["attempts"].as_array().unwrap();
    let mut expected = vec![
        format!("called {NUMBER} on "),
        "Recorded as ANSWERED, answered.".to_owned(),
        "It would be decided the same.".to_owned(),
        "Nothing of the configuration has been changed since.".to_owned(),
    ];
    for (attempt, link) in attempts.iter().zip(&links) {
        let (name, number) = (&attempt["client"]["name"], &attempt["position"]);
        let name = name.as_str().unwrap();
        expected.push(format!("attempt {number}: {name} (link {link}) is dialled"));
        expected.push(format!("     dialled, attempt {number}."));
    }
    expected.push("is busy (SIP 486)".to_owned());
    expected.push("took it, and they talked for 0.".to_owned());
    for line in &expected {
        assert!(said.contains(line), "{line:?} isn't in\n{said}");
    }

    campaign.change_link(links[0], json!({"forwardingPriority": 9})).await;
    let said = explain(&service, id);
    assert!(said.contains("It would be decided otherwise."), "{said}");
    assert!(said.contains("forwardingPriority was 0, is 9."), "{said}");
    campaign.change_link(links[0], json!({"forwardingPriority": 0, "weight": 3})).await;
    let said = explain(&service, id);
    assert!(said.contains("It would be decided the same."), "{said}");
    assert!(said.contains("weight was 1, is 3."), "{said}");
    campaign.change_link(links[1], json!({"hourlyCap": 0})).await;
    let said = explain(&service, id);
    assert!(said.contains("After one attempt as before: then"), "{said}");
    assert!(said.contains("hourlyCap of 0 had no room, 0 calls were used and 0 held."), "{said}");
    service.assert_clean().await;
}
