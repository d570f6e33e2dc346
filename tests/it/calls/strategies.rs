//! 7. Who gets how many calls.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::support::callers::Plan;
use crate::support::clients::{Manner, Phones};
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::seconds;

const NUMBER: &str = "+15550100701";

/// A campaign with a link for each of these settings, to clients who answer at
/// once. The clients, in the same order.
async fn with_links(service: &Service, strategy: &str, links: &[Value]) -> (Vec<i64>, Phones) {
    let phones = Phones::start(service, Manner::answers_after(1)).await;
    let seller = service.seller().await;
    let campaign = seller.campaign(service, NUMBER, strategy, 20).await;
    let mut clients = Vec::new();
    for link in links {
        let client = service.client(&phones.contact()).await;
        campaign.link(client, link.clone()).await;
        clients.push(client);
    }
    (clients, phones)
}

/// Who took each of the calls so far, in their order.
async fn takers(service: &Service, calls: usize) -> Vec<i64> {
    let logs = service.logs(calls).await;
    let taker = |log: &Value| {
        assert_eq!(log["callStatus"], "ANSWERED", "{log:#}");
        log["client"]["id"].as_i64().unwrap()
    };
    logs.iter().map(taker).collect()
}

/// How many of `calls` calls, as SIPp makes them, each client took.
async fn shares(service: &Service, clients: &[i64], calls: u32) -> Vec<f64> {
    let plan = Plan { number: NUMBER, calls, rate: 40, talk_ms: 1 };
    let callers = plan.start_at_most(30, service).finish(seconds(60)).await;
    assert_eq!(callers.answered_with(200), calls as usize);
    let mut shares = HashMap::new();
    for taker in takers(service, calls as usize).await {
        *shares.entry(taker).or_insert(0.0) += 1.0;
    }
    clients.iter().map(|client| shares.get(client).copied().unwrap_or_default()).collect()
}

async fn call_once(service: &Service) {
    let mut phone = Phone::call(service, NUMBER).await;
    assert_eq!(phone.answer().await, 200);
    phone.hang_up().await;
}

#[tokio::test]
async fn round_robin_gives_equal_shares_and_goes_on_where_it_was_after_a_restart() {
    let mut service = Service::start().await;
    let links = [json!({}), json!({}), json!({})];
    let (clients, _phones) = with_links(&service, "round_robin", &links).await;

    for _ in 0..10 {
        call_once(&service).await;
    }
    service.stop();
    service.start_again().await;
    for _ in 0..8 {
        call_once(&service).await;
    }

    let takers = takers(&service, 18).await;
    let turns: Vec<i64> = clients.iter().copied().cycle().take(18).collect();
    assert_eq!(takers, turns);
    service.assert_clean().await;
}

/// Pearson's chi-square against the weights. With two degrees of freedom it
/// exceeds `-2 ln p` with probability p; here one in a million.
#[tokio::test]
async fn weighted_shares_300_calls_as_the_weights_say() {
    let service = Service::start().await;
    let links = [70, 20, 10].map(|weight| json!({"weight": weight}));
    let (clients, _phones) = with_links(&service, "weighted", &links).await;

    let shares = shares(&service, &clients, 300).await;

    let expected = [210.0, 60.0, 30.0];
    let terms = shares.iter().zip(expected).map(|(share, expected)| {
        let off: f64 = share - expected;
        off * off / expected
    });
    let chi_square: f64 = terms.sum();
    assert!(chi_square < -2.0 * 1e-6_f64.ln(), "{shares:?}: chi-square {chi_square}");
    service.assert_clean().await;
}

/// Five standard deviations of a binomial: one in 1.7 million is further off.
#[tokio::test]
async fn priority_prefers_the_lower_number_and_shares_by_weight_among_equals() {
    let service = Service::start().await;
    let links = [
        json!({"forwardingPriority": 2, "weight": 1_000}),
        json!({"forwardingPriority": 1, "weight": 80}),
        json!({"forwardingPriority": 1, "weight": 20}),
    ];
    let (clients, _phones) = with_links(&service, "priority", &links).await;

    let shares = shares(&service, &clients, 150).await;

    assert!(shares[0] < 0.5, "nobody needed the second choice: {shares:?}");
    let deviation = (150.0_f64 * 0.8 * 0.2).sqrt();
    assert!((shares[2] - 150.0 * 0.2).abs() < 5.0 * deviation, "{shares:?}");
    service.assert_clean().await;
}
