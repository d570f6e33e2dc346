//! A second instance comes to an Asterisk on which a first one leads calls: by mistake
//! under the same application's name, or under one of its own. No call is dropped.

use serde_json::json;

use crate::support::clients::{Manner, Phones};
use crate::support::newcomer::Newcomer;
use crate::support::phone::Phone;
use crate::support::service::Service;
use crate::support::wait::{eventually, seconds};

const TALKS: &str = "+15550102601";
/// Answered only after some audits of the newcomer's.
const RINGS: &str = "+15550102602";

struct Scene {
    service: Service,
    newcomer: Newcomer,
    talking: Phone,
    ringing: Phone,
    _clients: [Phones; 2],
}

impl Scene {
    /// A call that talks and one that rings, and then comes another.
    async fn set(application: &str) -> Self {
        let service = Service::start().await;
        let clients = [
            Phones::start(&service, Manner::answers_after(50)).await,
            Phones::start(&service, Manner::answers_after(9_000)).await,
        ];
        let seller = service.seller().await;
        for (number, client) in [(TALKS, &clients[0]), (RINGS, &clients[1])] {
            let campaign = seller.campaign(&service, number, "priority", 30).await;
            campaign.link(service.client(&client.contact()).await, json!({})).await;
        }
        let mut talking = Phone::call(&service, TALKS).await;
        assert_eq!(talking.answer().await, 200);
        let mut ringing = Phone::call(&service, RINGS).await;
        ringing.ringing().await;
        let newcomer = Newcomer::beside(&service, application).await;
        Self { service, newcomer, talking, ringing, _clients: clients }
    }

    async fn no_call_is_touched(&mut self) {
        self.newcomer.audits(4.0).await;
        assert_eq!(self.service.live_in("talking").await, 1);
        assert_eq!(self.ringing.answer().await, 200, "its client could answer");
        eventually("both talk", seconds(10), async || {
            (self.service.live_in("talking").await == 2).then_some(())
        })
        .await;
        self.newcomer.audits(3.0).await;
        assert_eq!(self.service.ari("channels").await.as_array().unwrap().len(), 4);
        let metrics = self.newcomer.metrics().await;
        assert_eq!(metrics.sum("capconduit_drift_total"), 0.0);
        assert_eq!(metrics.sum("capconduit_live_calls"), 0.0);
    }

    async fn end(mut self, calls: usize) {
        self.talking.hang_up().await;
        self.ringing.hang_up().await;
        for log in self.service.logs(calls).await {
            assert_eq!(log["callStatus"], "ANSWERED", "{log:#}");
        }
        self.service.assert_no_calls().await;
    }
}

#[tokio::test]
async fn calls_survive_a_newcomer_that_takes_the_applications_name() {
    let mut scene = Scene::set("capconduit").await;
    scene.no_call_is_touched().await;
    assert_eq!(scene.service.metrics().await.known("capconduit_ari_replaced"), 1.0);

    let mut next = Phone::call(&scene.service, TALKS).await;
    assert_eq!(next.answer().await, 200);
    let metrics = scene.newcomer.metrics().await;
    assert_eq!(metrics.sum("capconduit_live_calls"), 1.0, "new calls are the newcomer's");
    next.hang_up().await;
    scene.end(3).await;
}

#[tokio::test]
async fn calls_survive_a_newcomer_with_an_application_of_its_own() {
    let mut scene = Scene::set("another").await;
    scene.no_call_is_touched().await;
    assert_eq!(scene.service.metrics().await.known("capconduit_ari_replaced"), 0.0);
    scene.end(2).await;
}
