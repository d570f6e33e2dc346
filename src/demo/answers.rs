//! What the API answers, as far as the demo reads it.

use capconduit_entity::{AttemptResult, CallStatus};
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, DidId, LinkId};
use crate::live::LiveState;
use crate::routing::Trace;

#[derive(Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub pages: u64,
}

#[derive(Deserialize)]
pub struct User {
    pub id: i64,
    pub username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    pub id: ClientId,
    pub client_identifier: String,
}

#[derive(Deserialize)]
pub struct Did {
    pub id: DidId,
    pub number: String,
}

#[derive(Deserialize)]
pub struct Campaign {
    pub id: CampaignId,
    pub name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CampaignDetail {
    pub client_settings: Vec<Link>,
}

/// A link with its caps and what is used of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    pub id: LinkId,
    pub client: Named,
    pub max_concurrency: u32,
    pub total_calls_allowed: Option<u32>,
    pub current_total_calls: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Named {
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveCall {
    pub call_id: CallId,
    pub state: LiveState,
    pub since: Timestamp,
    pub incoming_did_number: String,
    pub caller_id_num: Option<String>,
    pub client: Option<LiveClient>,
    pub attempts: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveClient {
    pub name: String,
    pub campaign_client_setting_id: LinkId,
}

/// An entry of the list of call logs.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ListedLog {
    pub id: i64,
}

/// A call log with its attempts and its decision trace.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallLog {
    pub incoming_did_number: String,
    pub caller_id_num: Option<String>,
    pub timestamp_end: Timestamp,
    pub billsec_seconds: i64,
    pub call_status: CallStatus,
    pub attempts: Vec<Attempt>,
    pub trace: Trace,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    pub campaign_client_setting_id: LinkId,
    pub client: Named,
    pub result: AttemptResult,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}
