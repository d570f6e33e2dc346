//! Call logs as they are sent.

use capconduit_entity::{AttemptResult, CallReason, CallStatus, call_attempt, call_log};
use poem::{Body, IntoResponse, Response};
use poem_openapi::payload::Json;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::{ApiResponse, Enum, Object};
use serde_json::Value;
use uuid::Uuid;

use crate::api::audit::{Audited, shown};
use crate::api::input::Word;
use crate::api::page::Page;
use crate::api::stamp::Stamp;
use crate::api::trace::DecisionTrace;
use crate::ids::CallId;

/// The record of one call. Names are those at the time of the call.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct CallLog {
    id: i64,
    call_id: Uuid,
    #[oai(nullable)]
    campaign: Option<NamedCampaign>,
    #[oai(nullable)]
    did: Option<NamedDid>,
    /// The client that answered.
    #[oai(nullable)]
    client: Option<NamedClient>,
    incoming_did_number: String,
    /// Without its last digits where staff ask.
    #[oai(nullable)]
    caller_id_num: Option<String>,
    /// `null` where staff ask.
    #[oai(nullable)]
    caller_id_name: Option<String>,
    timestamp_start: Stamp,
    #[oai(nullable)]
    timestamp_answered: Option<Stamp>,
    timestamp_end: Stamp,
    /// From start to end.
    duration_seconds: i64,
    /// From answer to end.
    billsec_seconds: i64,
    call_status: Word<CallStatus>,
    reason: Word<CallReason>,
    /// Q.850.
    hangup_cause_code: i32,
    hangup_cause_text: String,
    asterisk_uniqueid: String,
    #[oai(nullable)]
    asterisk_linkedid: Option<String>,
    created_at: Stamp,
}

#[derive(Debug, Object)]
struct NamedCampaign {
    id: i64,
    #[oai(nullable)]
    name: Option<String>,
}

#[derive(Debug, Object)]
struct NamedDid {
    id: i64,
    number: String,
}

#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct NamedClient {
    pub id: i64,
    #[oai(nullable)]
    pub name: Option<String>,
    #[oai(nullable)]
    pub client_identifier: Option<String>,
}

/// Who decided where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum DecidedBy {
    /// Why is in the trace.
    Service,
    /// It led the call by itself and reported how it ended: nobody else knows why. The
    /// `reason` is no more than what goes with the `callStatus`.
    Dialplan,
}

/// A call with the clients that were tried, and the decision behind it.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct CallLogDetail {
    #[oai(flatten)]
    log: CallLog,
    /// Clients dialled, in order.
    attempts: Vec<Attempt>,
    decided_by: DecidedBy,
    /// Why the call went where it went; `null` if the dialplan decided it, or an older version
    /// wrote it in words of its own.
    #[oai(nullable)]
    trace: Option<DecisionTrace>,
}

/// One client dialled for one call.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Attempt {
    /// 1 for the first.
    position: i32,
    campaign_client_setting_id: i64,
    client: NamedClient,
    result: Word<AttemptResult>,
    started_at: Stamp,
    #[oai(nullable)]
    ringing_at: Option<Stamp>,
    #[oai(nullable)]
    answered_at: Option<Stamp>,
    ended_at: Stamp,
    /// Q.850.
    #[oai(nullable)]
    cause_code: Option<i32>,
    #[oai(nullable)]
    sip_code: Option<i32>,
}

/// A page of call logs.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct LogsPage {
    #[oai(flatten)]
    pub page: Page<CallLog>,
    /// Send it as `cursor` for the logs that follow; `null` at the end.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}

/// A list of logs, in the format that was asked for.
pub enum Logs {
    Page(Json<LogsPage>),
    Csv(Body),
}

impl IntoResponse for Logs {
    fn into_response(self) -> Response {
        match self {
            Self::Page(page) => page.into_response(),
            Self::Csv(body) => Response::builder()
                .content_type("text/csv; charset=utf-8")
                .header("Content-Disposition", "attachment; filename=\"calls.csv\"")
                .body(body),
        }
    }
}

impl ApiResponse for Logs {
    fn meta() -> MetaResponses {
        let mut meta = Json::<LogsPage>::meta();
        let csv = MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
        for MetaResponse { content, .. } in &mut meta.responses {
            content.push(MetaMediaType { content_type: "text/csv", schema: csv.clone() });
        }
        meta
    }

    fn register(registry: &mut Registry) {
        <Json<LogsPage> as ApiResponse>::register(registry);
    }
}

impl From<call_log::Model> for CallLog {
    fn from(row: call_log::Model) -> Self {
        let (campaign_name, number) = (row.campaign_name, row.incoming_did_number.clone());
        let (name, client_identifier) = (row.client_name, row.client_identifier);
        Self {
            id: row.id,
            call_id: row.call_id,
            campaign: row.campaign_id.map(|id| NamedCampaign { id, name: campaign_name }),
            did: row.did_id.map(|id| NamedDid { id, number }),
            client: row.client_id.map(|id| NamedClient { id, name, client_identifier }),
            incoming_did_number: row.incoming_did_number,
            caller_id_num: row.caller_id_num,
            caller_id_name: row.caller_id_name,
            timestamp_start: row.timestamp_start.into(),
            timestamp_answered: row.timestamp_answered.map(Stamp),
            timestamp_end: row.timestamp_end.into(),
            duration_seconds: row.duration_seconds,
            billsec_seconds: row.billsec_seconds,
            call_status: Word(row.call_status),
            reason: Word(row.reason),
            hangup_cause_code: row.hangup_cause_code,
            hangup_cause_text: row.hangup_cause_text,
            asterisk_uniqueid: row.asterisk_uniqueid,
            asterisk_linkedid: row.asterisk_linkedid,
            created_at: row.created_at.into(),
        }
    }
}

impl Audited for call_log::Model {
    const RESOURCE: &'static str = "callLog";

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn facts(&self) -> Option<Value> {
        shown(&CallLog::from(self.clone()))
    }
}

impl CallLogDetail {
    pub fn new(log: call_log::Model, attempts: Vec<call_attempt::Model>) -> Self {
        let (decided_by, trace) = if CallId(log.call_id).is_of_channel() {
            (DecidedBy::Dialplan, None)
        } else {
            (DecidedBy::Service, DecisionTrace::stored(&log.trace))
        };
        let attempts = attempts.into_iter().map(Attempt::from).collect();
        Self { log: log.into(), attempts, decided_by, trace }
    }
}

impl From<call_attempt::Model> for Attempt {
    fn from(row: call_attempt::Model) -> Self {
        Self {
            position: row.position,
            campaign_client_setting_id: row.campaign_client_setting_id,
            client: NamedClient {
                id: row.client_id,
                name: Some(row.client_name),
                client_identifier: Some(row.client_identifier),
            },
            result: Word(row.result),
            started_at: row.started_at.into(),
            ringing_at: row.ringing_at.map(Stamp),
            answered_at: row.answered_at.map(Stamp),
            ended_at: row.ended_at.into(),
            cause_code: row.cause_code,
            sip_code: row.sip_code,
        }
    }
}
