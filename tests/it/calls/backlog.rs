//! Many callers waited for the service, and come all at once when it is back.

use serde_json::json;

use super::away::leave_asterisk_alone;
use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const NUMBER: &str = "+15550101561";
const CALLERS: u32 = 60;
/// So few may be on their way to a client at once.
const MOST_IN_SETUP: &str = "4";

#[tokio::test]
async fn callers_who_waited_for_the_service_are_all_served_however_few_may_be_in_setup() {
    let mut service = Service::prepare();
    service.patience = seconds(20);
    service.settings.push(("CAPCONDUIT__CALLS__MOST_IN_SETUP", MOST_IN_SETUP.to_owned()));
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(30)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    let wide = json!({"maxConcurrency": 2 * CALLERS});
    campaign.link(service.client(&client.contact()).await, wide).await;
    leave_asterisk_alone(&mut service).await;

    let plan = Plan { number: NUMBER, calls: CALLERS, rate: CALLERS, talk_ms: 500 };
    let callers = plan.start(&service);
    eventually("all of them wait", seconds(10), async || {
        let channels = service.ari("channels").await;
        (channels.as_array()?.len() == CALLERS as usize).then_some(())
    })
    .await;
    service.start_again().await;
    let trace = callers.finish(seconds(30)).await;
    assert_eq!(trace.answered_with(200), CALLERS as usize);
    let logs = service.logs(CALLERS as usize).await;
    assert!(logs.iter().all(|log| log["callStatus"] == "ANSWERED"), "{logs:?}");
    service.assert_clean().await;
}
