//! The network between the service and Asterisk breaks while calls are in every state.

use std::time::{Duration, Instant};

use capconduit::clock;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::apart::{Apart, silent};
use crate::support::clients::{Manner, Phones};
use crate::support::phone::{Invite, Phone};
use crate::support::proxy::Flow;
use crate::support::service::{Service, instant};
use crate::support::wait::{eventually, seconds};

const ANSWERS: &str = "+15550102201";
/// Rings for three seconds, and answers.
const ANSWERS_LATE: &str = "+15550102202";
/// Its first client rings for two seconds in vain; the second answers.
const GOES_ON: &str = "+15550102203";

struct Scene {
    apart: Apart,
    _clients: [Phones; 3],
}

impl Scene {
    async fn set() -> Self {
        Self::set_with(seconds(15)).await
    }

    /// Where callers wait for so long.
    async fn set_with(patience: Duration) -> Self {
        let mut service = Service::prepare();
        service.patience = patience;
        let apart = Apart::start(service, &[]).await;
        let service = &apart.service;
        let clients = [
            Phones::start(service, Manner::answers_after(30)).await,
            Phones::start(service, Manner::answers_after(3_000)).await,
            Phones::start(service, Manner::rings_forever()).await,
        ];
        let mut ids = Vec::new();
        for client in &clients {
            ids.push(service.client(&client.contact()).await);
        }
        let seller = service.seller().await;
        for (number, ring_seconds, links) in
            [(ANSWERS, 20, &[0][..]), (ANSWERS_LATE, 20, &[1]), (GOES_ON, 2, &[2, 0])]
        {
            let campaign = seller.campaign(service, number, "priority", ring_seconds).await;
            for (place, client) in links.iter().enumerate() {
                campaign.link(ids[*client], json!({"forwardingPriority": place + 1})).await;
            }
        }
        Self { apart, _clients: clients }
    }

    async fn call(&self, number: &str) -> (String, Phone) {
        let invite = Invite::to(&self.apart.service, number);
        (invite.number().to_owned(), Phone::invite(&self.apart.service, invite).await)
    }

    async fn log_of(&self, caller: &str) -> Value {
        let service = &self.apart.service;
        let found = eventually("the call's log", seconds(10), async || {
            let logs = service.logs_so_far().await;
            logs.into_iter().find(|log| log["callerIdNum"] == *caller)
        })
        .await;
        service.log_in_full(&found).await
    }

    async fn connected(&self, connected: f64) {
        eventually("the service sees the network", seconds(8), async || {
            let metrics = self.apart.service.metrics().await;
            (metrics.known("capconduit_ari_connected") == connected).then_some(())
        })
        .await;
    }

    /// Nothing passes any more, not even the news that connections were given up; and then
    /// there is a caller, who hears ringing.
    async fn caller_of_a_silent_network(&self) -> (String, Phone) {
        self.apart.network.set(Flow::Stalled);
        silent(&self.apart.service).await;
        let called = Instant::now();
        let (number, mut caller) = self.call(ANSWERS).await;
        caller.ringing().await;
        assert!(called.elapsed() < seconds(1), "it rings at once");
        (number, caller)
    }

    /// Breaks the network for a while, with calls in every state.
    async fn break_for(&self, flow: Flow, outage: Duration) {
        let (stays, mut staying) = self.call(ANSWERS).await;
        let (ends, mut ending) = self.call(ANSWERS).await;
        for phone in [&mut staying, &mut ending] {
            assert_eq!(phone.answer().await, 200);
        }
        let (late, mut answered_late) = self.call(ANSWERS_LATE).await;
        let (onward, mut going_on) = self.call(GOES_ON).await;
        for phone in [&mut answered_late, &mut going_on] {
            phone.ringing().await;
        }

        self.apart.network.set(flow);
        let broken_at = clock::now();
        ending.hang_up().await;
        // One more who comes when Asterisk is alone.
        let (new, mut newcomer) = self.call(ANSWERS).await;
        // Its end is what is waited for: an outage of this length.
        sleep(outage).await;
        if flow == Flow::Stalled {
            self.connected(0.0).await;
        }
        self.apart.network.set(Flow::Open);
        self.connected(1.0).await;

        for phone in [&mut answered_late, &mut going_on, &mut newcomer] {
            assert_eq!(phone.answer().await, 200);
        }
        let service = &self.apart.service;
        eventually("four talk", seconds(5), async || {
            (service.live_in("talking").await == 4).then_some(())
        })
        .await;
        for phone in [&mut staying, &mut answered_late, &mut going_on, &mut newcomer] {
            assert!(!phone.was_hung_up);
            phone.hang_up().await;
        }
        for caller in [&stays, &late, &onward, &new] {
            let log = self.log_of(caller).await;
            let told = (&log["callStatus"], &log["reason"]);
            assert_eq!(told, (&json!("ANSWERED"), &json!("answered")), "{log:#}");
        }
        let attempts = self.log_of(&onward).await["attempts"].clone();
        let results: Vec<_> = attempts.as_array().unwrap().iter().map(|a| &a["result"]).collect();
        assert_eq!(results, ["no_answer", "answered"]);

        let log = self.log_of(&ends).await;
        let told = (&log["callStatus"], &log["reason"]);
        assert_eq!(told, (&json!("ANSWERED"), &json!("interrupted")), "{log:#}");
        let estimated = instant(&log["timestampEnd"]) - broken_at;
        let known = TimeDelta::milliseconds(-1_500)..TimeDelta::milliseconds(500);
        assert!(known.contains(&estimated), "{estimated} after the network broke: {log:#}");
        service.assert_clean().await;
    }
}

#[tokio::test]
async fn calls_outlive_a_network_that_is_cut_for_a_second() {
    Scene::set().await.break_for(Flow::Cut, seconds(1)).await;
}

#[tokio::test]
async fn calls_outlive_a_network_that_is_cut_for_ten_seconds() {
    Scene::set().await.break_for(Flow::Cut, seconds(10)).await;
}

#[tokio::test]
async fn calls_outlive_a_network_that_passes_nothing_on_for_a_while() {
    Scene::set().await.break_for(Flow::Stalled, seconds(5)).await;
}

#[tokio::test]
async fn a_caller_of_a_network_that_fell_silent_is_served_when_it_is_back() {
    let scene = Scene::set().await;
    let (number, mut caller) = scene.caller_of_a_silent_network().await;
    scene.apart.network.set(Flow::Open);
    scene.connected(1.0).await;
    let back = Instant::now();
    assert_eq!(caller.answer().await, 200);
    assert!(back.elapsed() < seconds(2), "{:?}", back.elapsed());
    caller.hang_up().await;
    assert_eq!(scene.log_of(&number).await["callStatus"], "ANSWERED");
    scene.apart.service.assert_clean().await;
}

#[tokio::test]
async fn a_caller_of_a_network_that_stays_silent_gets_503() {
    let scene = Scene::set_with(seconds(2)).await;
    let (_, mut caller) = scene.caller_of_a_silent_network().await;
    let rings = Instant::now();
    assert_eq!(caller.answer().await, 503);
    assert!((seconds(1)..seconds(4)).contains(&rings.elapsed()), "{:?}", rings.elapsed());
    scene.apart.network.set(Flow::Open);
    scene.connected(1.0).await;
    scene.apart.service.assert_clean().await;
    assert!(scene.apart.service.logs_so_far().await.is_empty(), "it never came to the service");
}
