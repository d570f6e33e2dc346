//! More callers at once than the switch is to be asked for.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{ms, seconds};

const NUMBER: &str = "+15550101801";
const CALLERS: usize = 60;

#[tokio::test]
async fn callers_over_the_limit_of_calls_in_setup_get_503_at_once_and_the_others_their_client() {
    let mut service = Service::prepare();
    service.settings.push(("CAPCONDUIT__CALLS__MOST_IN_SETUP", "4".to_owned()));
    service.start_first().await;
    let client = Phones::start(&service, Manner::answers_after(1_500)).await;
    let campaign = service.seller().await.campaign(&service, NUMBER, "priority", 20).await;
    campaign.link(service.client(&client.contact()).await, json!({})).await;

    let began = Instant::now();
    let callers = (0..CALLERS).map(|_| async {
        let mut caller = Phone::call(&service, NUMBER).await;
        let status = caller.answer().await;
        let waited = began.elapsed();
        if status == 200 {
            caller.hang_up().await;
        }
        (status, waited)
    });
    let seen = join_all(callers).await;

    let refused: Vec<_> = seen.iter().filter(|(status, _)| *status == 503).collect();
    let served = seen.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(refused.len() + served, CALLERS, "{seen:?}");
    assert!(!refused.is_empty(), "sixty at once are more than four in setup");
    assert!(served >= 4, "those in setup are served");
    // Long before any client answers: nobody waited for a place.
    assert!(refused.iter().all(|(_, waited)| *waited < ms(1_500)), "{refused:?}");
    let logs = service.logs(CALLERS).await;
    let told = logs.iter().filter(|log| log["reason"] == "capacity_unavailable").count();
    assert_eq!(told, refused.len());
    let counted = service.metrics().await.known("capconduit_calls_over_limit_total");
    assert!((counted - refused.len() as f64).abs() < 0.5, "{counted}");
    // Places are given back: a later caller is served as ever.
    let mut late = Phone::call(&service, NUMBER).await;
    assert_eq!(late.answer().await, 200);
    late.hang_up().await;
    let ended = Instant::now();
    service.assert_clean().await;
    assert!(ended.elapsed() < seconds(20));
}
