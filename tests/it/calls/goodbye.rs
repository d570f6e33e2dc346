//! Everything on this machine is asked to end while a call is up, Asterisk too.

use rustix::process::Signal;
use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550101551";

#[tokio::test]
async fn asked_to_wait_it_ends_with_its_asterisk_after_its_last_call() {
    let mut service = Service::prepare();
    service.settings.push(("CAPCONDUIT__SHUTDOWN__CALLS", "wait".to_owned()));
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(30)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;
    let mut caller = Phone::call(&service, NUMBER).await;
    assert_eq!(caller.answer().await, 200);
    eventually("it talks", seconds(5), async || {
        (service.live_in("talking").await == 1).then_some(())
    })
    .await;

    service.signal(Signal::TERM);
    eventually("it waits", seconds(5), async || {
        service.said().contains("Waiting for calls to end").then_some(())
    })
    .await;
    // Longer than the goodbye of one that doesn't wait.
    assert!(!caller.hung_up(seconds(5)).await);
    assert_eq!(service.live_in("talking").await, 1);
    assert!(service.process().exited().is_none(), "a call is still up");

    caller.hang_up().await;
    let status = service.process().finished("it ends", seconds(15)).await;
    assert!(status.success(), "{status}");
    service.start_again().await;
    let log = service.only_log().await;
    assert_eq!((&log["callStatus"], &log["reason"]), (&json!("ANSWERED"), &json!("answered")));
    service.assert_clean().await;
}
