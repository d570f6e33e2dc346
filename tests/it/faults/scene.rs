//! One caller, two clients in order of preference, and a scripted switch.

use serde_json::{Value, json};

use crate::support::scripted::ScriptedSwitch;
use crate::support::seller::Campaign;
use crate::support::service::{Service, items};
use crate::support::wait::{eventually, seconds};

pub const NUMBER: &str = "+15550109101";
/// What the caller is told when nobody takes the call.
pub const UNANSWERED: i32 = 19;
pub const NORMAL: i32 = 16;

pub struct Scene {
    pub switch: ScriptedSwitch,
    pub service: Service,
    pub campaign: Campaign,
}

// === impl Scene ===

impl Scene {
    /// With so many clients, who ring for so long each.
    pub async fn set(clients: u32, ring_seconds: u32) -> Self {
        let switch = ScriptedSwitch::start().await;
        let service = Service::start_on(&switch).await;
        let seller = service.seller().await;
        let campaign = seller.campaign(&service, NUMBER, "priority", ring_seconds).await;
        for priority in 1..=clients {
            let client = service.client("sip:client@127.0.0.1:9").await;
            campaign.link(client, json!({"forwardingPriority": priority})).await;
        }
        let scene = Self { switch, service, campaign };
        scene.until_up().await;
        scene
    }

    /// Waits until the service says that events flow.
    pub async fn until_up(&self) {
        eventually("events flow", seconds(15), async || {
            (self.service.metrics().await.known("capconduit_ari_connected") == 1.0).then_some(())
        })
        .await;
    }

    pub async fn until_down(&self) {
        eventually("events don't flow", seconds(5), async || {
            (self.service.metrics().await.known("capconduit_ari_connected") == 0.0).then_some(())
        })
        .await;
    }

    /// A caller whose first client rings; both channels.
    pub async fn ringing(&self) -> (String, String) {
        let dialled = self.switch.dialled_so_far();
        let caller = self.switch.call(NUMBER);
        (caller, self.switch.dialled(dialled + 1).await)
    }

    /// A caller who talks to the first client.
    pub async fn talking(&self) -> (String, String) {
        let (caller, leg) = self.ringing().await;
        self.switch.answer(&leg);
        self.until_state("talking").await;
        (caller, leg)
    }

    /// Waits until the newest live call is in this state.
    pub async fn until_state(&self, state: &str) {
        eventually(&format!("the call is {state}"), seconds(10), async || {
            let live = self.service.admin().get("/api/admin/live").await;
            items(&live).iter().any(|call| call["state"] == state).then_some(())
        })
        .await;
    }

    /// The caller hangs up, and everything is over: one record, nothing left.
    pub async fn end_with(&self, caller: &str) -> Value {
        self.switch.hang_up(caller, NORMAL, None);
        self.over().await
    }

    /// The only call is over: its record, and nothing is left.
    pub async fn over(&self) -> Value {
        self.service.assert_clean().await;
        self.service.only_log().await
    }
}

/// `(callStatus, reason)`
pub fn outcome(log: &Value) -> (&str, &str) {
    (log["callStatus"].as_str().unwrap(), log["reason"].as_str().unwrap())
}

/// What became of each attempt.
pub fn results(log: &Value) -> Vec<&str> {
    let attempts = log["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["result"].as_str().unwrap()).collect()
}
