//! The service is away, and Asterisk is alone.

use std::time::Instant;

use crate::support::phone::Phone;
use crate::support::service::{PATIENCE, Service};
use crate::support::wait::{eventually, seconds};

#[tokio::test]
async fn a_caller_hears_ringing_while_the_service_is_away_and_then_gets_503() {
    let mut service = Service::start().await;
    service.kill();
    // A call that comes in the very moment is in the hands of the one who died.
    eventually("Asterisk knows that it is alone", seconds(5), async || {
        let applications = service.ari("applications").await;
        applications.as_array()?.is_empty().then_some(())
    })
    .await;

    let called = Instant::now();
    let mut caller = Phone::call(&service, "+15550101001").await;
    caller.ringing().await;
    assert!(called.elapsed() < seconds(1), "it rings at once");
    assert_eq!(caller.answer().await, 503);
    let waited = called.elapsed();
    assert!((PATIENCE..PATIENCE + seconds(2)).contains(&waited), "{waited:?}");

    // It finds its data again, and takes up the Asterisk that was left alone.
    service.start_again().await;
    service.assert_clean().await;
}
