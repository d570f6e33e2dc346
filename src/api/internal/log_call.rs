//! What became of a call that the dialplan led by itself.
//!
//! It becomes a call log like any other. If a link answered it, one unit of
//! volume of the link, its client, campaign and seller is used, in the windows
//! that the call's start lies in.

use capconduit_entity::{AttemptResult, CallReason, CallStatus, E164, campaign, client, did, link};
use chrono::TimeDelta;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use sea_orm::DatabaseTransaction;
use serde_json::{Value, json};
use tracing::error;

use super::Dialplan;
use crate::api::audit::Change;
use crate::api::input::{Body, Line, Moment, Name, Request, Word};
use crate::api::problem::{
    FieldErrors, Problem, Refusal, Report, bad_input, broken, conflict, not_found,
};
use crate::api::{AdminTag, Backend};
use crate::call::adopt;
use crate::call::outcome::{Outcome, cause};
use crate::call::record::{Attempt, CallRecord, End};
use crate::clock::{self, Timestamp};
use crate::ids::{CallId, CampaignId, ClientId, DidId, LinkId, SellerId};
use crate::routing::Trace;
use crate::store::{records, report};

pub struct LogCallApi;

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct CallReport {
    /// The number that was dialled.
    #[oai(validator(max_length = 64))]
    incoming_did_number: Name,
    /// When the call came in.
    timestamp_start: Moment,
    call_status: Word<CallStatus>,
    /// `UNIQUEID` of the caller's channel: a call is recorded once.
    #[oai(validator(max_length = 150))]
    asterisk_uniqueid: Name,
    /// The seller; by link, campaign or DID if left away.
    #[oai(validator(minimum(value = "1")), nullable)]
    user_id: Option<i64>,
    /// By the link if left away.
    #[oai(validator(minimum(value = "1")), nullable)]
    campaign_id: Option<i64>,
    /// By the number if left away.
    #[oai(validator(minimum(value = "1")), nullable)]
    did_id: Option<i64>,
    /// By the link if left away.
    #[oai(validator(minimum(value = "1")), nullable)]
    client_id: Option<i64>,
    /// The link over which a client was dialled last.
    #[oai(validator(minimum(value = "1")), nullable)]
    campaign_client_setting_id: Option<i64>,
    #[oai(validator(max_length = 64), nullable)]
    caller_id_num: Option<Line>,
    #[oai(validator(max_length = 128), nullable)]
    caller_id_name: Option<Line>,
    #[oai(nullable)]
    timestamp_answered: Option<Moment>,
    /// By the duration if left away.
    #[oai(nullable)]
    timestamp_end: Option<Moment>,
    /// From start to end.
    #[oai(validator(minimum(value = "0"), maximum(value = "31536000")), nullable)]
    duration_seconds: Option<i64>,
    /// From answer to end.
    #[oai(validator(minimum(value = "0"), maximum(value = "31536000")), nullable)]
    billsec_seconds: Option<i64>,
    /// Q.850: `HANGUPCAUSE`.
    #[oai(validator(minimum(value = "0"), maximum(value = "127")), nullable)]
    hangup_cause_code: Option<i32>,
    #[oai(validator(max_length = 80), nullable)]
    hangup_cause_text: Option<Line>,
    #[oai(validator(max_length = 150), nullable)]
    asterisk_linkedid: Option<Line>,
}

impl Request for CallReport {
    fn example() -> Value {
        json!({
            "incomingDidNumber": "+442071838750",
            "timestampStart": "2026-11-22T12:00:00Z",
            "callStatus": "ANSWERED",
            "asteriskUniqueid": "1795348800.42",
            "campaignClientSettingId": 1,
            "callerIdNum": "+441134960000",
            "durationSeconds": 75,
            "billsecSeconds": 60,
            "hangupCauseCode": 16,
        })
    }

    fn judge(body: &Value, errors: &mut FieldErrors) {
        let moment = |field: &str| Moment(body[field].as_str()?.to_owned()).instant();
        let start = moment("timestampStart");
        if start.is_some_and(|start| start > clock::now() + CLOCKS_APART) {
            errors.add("timestampStart", "must not be in the future");
        }
        let answered = moment("timestampAnswered");
        for (field, earlier, name) in [
            ("timestampAnswered", start, "timestampStart"),
            ("timestampEnd", start, "timestampStart"),
            ("timestampEnd", answered, "timestampAnswered"),
        ] {
            if moment(field).zip(earlier).is_some_and(|(moment, earlier)| moment < earlier) {
                errors.add(field, format!("must not be before {name}"));
            }
        }
    }
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Logged {
    /// `success`
    status: String,
    message: String,
    /// The id of the call log.
    cdr_id: i64,
}

#[derive(ApiResponse)]
enum CallLogged {
    /// The call is recorded.
    #[oai(status = 201)]
    Logged(Json<Logged>),
}

/// How far the dialplan's clock may be ahead of ours.
const CLOCKS_APART: TimeDelta = TimeDelta::minutes(1);

#[OpenApi(prefix_path = "/api/internal", tag = "AdminTag::Internal")]
impl LogCallApi {
    /// Record a call
    ///
    /// One that a dialplan led without the Stasis application. `ANSWERED` with
    /// a link counts one used unit of its volume. The same `asteriskUniqueid`
    /// again is refused, and nothing is counted twice.
    #[oai(path = "/log_call", method = "post", operation_id = "logCall")]
    async fn log_call(
        &self,
        dialplan: Dialplan,
        Body(report): Body<CallReport>,
    ) -> Result<CallLogged, Refusal<Report>> {
        let write = dialplan.begin_write().await?;
        let again = || conflict("asteriskUniqueid", "this call is recorded already");
        if records::is_recorded(&write.txn, &report.asterisk_uniqueid).await? {
            return Err(again().into());
        }
        let known = Known::find(&write.txn, &report).await?;
        let (record, told) = report.into_record(&known)?;
        let log = records::insert_told(&write.txn, &record, told).await?.ok_or_else(again)?;
        let cdr_id = log.id;
        write.commit(Change::created(&log)).await?;
        if let Some(link) = &known.link {
            count(&dialplan.backend, link, &record).await;
        }
        let (status, message) = ("success".to_owned(), "The call is recorded.".to_owned());
        Ok(CallLogged::Logged(Json(Logged { status, message, cdr_id })))
    }
}

/// Tells the ledger what the record says: of the call, until it knows.
async fn count(backend: &Backend, link: &link::Model, record: &CallRecord) {
    let Some(attempt) = record.attempts.first() else { return };
    backend.keeper.adopt(adopt::standing(record));
    backend.keeper.tell_untold().await;
    backend.keeper.recorded(&[record.call].into());
    let campaign = CampaignId(link.campaign_id);
    if let Err(err) = backend.ledger.set_cursor(campaign, attempt.link).await {
        error!(error = %err, link.id = link.id, "a rotation doesn't know of a call led elsewhere");
    }
}

/// What the report names, as far as it is there.
#[derive(Default)]
struct Known {
    link: Option<link::Model>,
    client: Option<client::Model>,
    campaign: Option<campaign::Model>,
    did: Option<did::Model>,
}

impl Known {
    /// Looks up what the report names, and refuses what contradicts itself.
    async fn find(txn: &DatabaseTransaction, report: &CallReport) -> Result<Self, Problem> {
        let link = match report.campaign_client_setting_id {
            Some(id) => Some(report::link(txn, id).await?.ok_or_else(|| not_found("link", id))?),
            None => None,
        };
        let of_link = |id: fn(&link::Model) -> i64| link.as_ref().map(id);
        let client = match of_link(|link| link.client_id).or(report.client_id) {
            Some(id) => report::client(txn, id).await?,
            None => None,
        };
        let campaign = match of_link(|link| link.campaign_id).or(report.campaign_id) {
            Some(id) => report::campaign(txn, id).await?,
            None => None,
        };
        let did = match (report.did_id, E164::from_dialled(&report.incoming_did_number)) {
            (Some(id), _) => report::did(txn, id).await?,
            (None, Some(number)) => report::did_of_number(txn, number).await?,
            (None, None) => None,
        };
        let known = Self { link, client, campaign, did };
        known.judge(report)?;
        Ok(known)
    }

    fn judge(&self, report: &CallReport) -> Result<(), Problem> {
        let of_link = |id: fn(&link::Model) -> i64| self.link.as_ref().map(id);
        let mut errors = FieldErrors::default();
        for (field, given, expected, whose) in [
            ("clientId", report.client_id, of_link(|link| link.client_id), "link"),
            ("campaignId", report.campaign_id, of_link(|link| link.campaign_id), "link"),
            ("userId", report.user_id, self.campaign.as_ref().map(|row| row.user_id), "campaign"),
            ("userId", report.user_id, self.did.as_ref().map(|row| row.user_id), "DID"),
        ] {
            if let (Some(given), Some(expected)) = (given, expected)
                && given != expected
            {
                errors.add(field, format!("must be that of the {whose}, {expected}"));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(bad_input(errors)) }
    }

    /// Whose call it was.
    fn seller(&self, report: &CallReport) -> Option<i64> {
        let of_campaign = self.campaign.as_ref().map(|campaign| campaign.user_id);
        of_campaign.or(report.user_id).or(self.did.as_ref().map(|did| did.user_id))
    }
}

impl CallReport {
    fn into_record(self, known: &Known) -> Result<(CallRecord, records::Told), Problem> {
        let moment = |moment: &Option<Moment>| moment.as_ref().and_then(Moment::instant);
        let started_at = self.timestamp_start.instant().ok_or_else(broken)?;
        let length = TimeDelta::seconds(self.duration_seconds.unwrap_or(0));
        let status = self.call_status.0;
        let answered_at = (status == CallStatus::Answered).then(|| {
            let spoken = self.billsec_seconds.or(self.duration_seconds).unwrap_or(0);
            let end = moment(&self.timestamp_end).unwrap_or(started_at + length);
            let answered = moment(&self.timestamp_answered);
            answered.unwrap_or((end - TimeDelta::seconds(spoken)).max(started_at))
        });
        let spoken = TimeDelta::seconds(self.billsec_seconds.unwrap_or(0));
        let end = End {
            at: moment(&self.timestamp_end).unwrap_or_else(|| {
                (started_at + length).max(answered_at.map_or(started_at, |at| at + spoken))
            }),
            outcome: Outcome::new(status, reason(status)),
            cause: self.hangup_cause_code.unwrap_or(cause::NORMAL),
        };
        let attempts = attempt(known, status, started_at, answered_at, &end);
        let number = E164::from_dialled(&self.incoming_did_number);
        let told = records::Told {
            link: known.link.as_ref().map(|link| link.id),
            client: known.client.as_ref().map(|client| client.id).or(self.client_id),
            client_name: known.client.as_ref().map(|client| client.name.clone()),
            client_identifier: known.client.as_ref().map(|c| c.client_identifier.clone()),
            campaign: self.campaign_id,
            duration_seconds: self.duration_seconds,
            billsec_seconds: self.billsec_seconds,
            cause_text: filled(self.hangup_cause_text.clone()),
        };
        let record = CallRecord {
            call: CallId::of_channel(&self.asterisk_uniqueid),
            dialled: number.map_or(self.incoming_did_number.clone().into(), String::from),
            seller: known.seller(&self).map(SellerId),
            did: known.did.as_ref().map(|did| did.id).or(self.did_id).map(DidId),
            campaign: known.campaign.as_ref().map(|row| (CampaignId(row.id), row.name.clone())),
            channel: self.asterisk_uniqueid.into(),
            linked_channel: filled(self.asterisk_linkedid),
            caller_number: filled(self.caller_id_num),
            caller_name: filled(self.caller_id_name),
            started_at,
            answered_at,
            attempts,
            trace: Trace::default(),
            unseen_since: None,
            ending: None,
            hung_up: None,
            end: Some(end),
        };
        Ok((record, told))
    }
}

/// A dialplan sends an empty text for what isn't there.
fn filled(text: Option<Line>) -> Option<String> {
    text.map(String::from).filter(|text| !text.is_empty())
}

/// The one client that the report says was dialled.
fn attempt(
    known: &Known,
    status: CallStatus,
    started_at: Timestamp,
    answered_at: Option<Timestamp>,
    end: &End,
) -> Vec<Attempt> {
    let (Some(link), Some(client)) = (&known.link, &known.client) else {
        return Vec::new();
    };
    let Some(result) = result(status) else { return Vec::new() };
    vec![Attempt {
        position: 1,
        link: LinkId(link.id),
        client: ClientId(client.id),
        client_name: client.name.clone(),
        client_identifier: client.client_identifier.clone(),
        held_at: started_at,
        dialled_at: None,
        ringing_at: None,
        answered_at,
        ended_at: Some(end.at),
        result: Some(result),
        cause: Some(end.cause),
        sip: None,
    }]
}

/// What became of the client that was dialled last; none where none was dialled.
const fn result(status: CallStatus) -> Option<AttemptResult> {
    match status {
        CallStatus::Answered => Some(AttemptResult::Answered),
        CallStatus::NoAnswer => Some(AttemptResult::NoAnswer),
        CallStatus::Busy => Some(AttemptResult::Busy),
        CallStatus::Failed => Some(AttemptResult::Unreachable),
        CallStatus::Canceled => Some(AttemptResult::Canceled),
        CallStatus::RejectedCc
        | CallStatus::RejectedTotal
        | CallStatus::RejectedDid
        | CallStatus::Rejected => None,
    }
}

/// The fine reason that goes with a coarse status where nothing more is known.
const fn reason(status: CallStatus) -> CallReason {
    match status {
        CallStatus::Answered => CallReason::Answered,
        CallStatus::NoAnswer => CallReason::AllNoAnswer,
        CallStatus::Busy => CallReason::AllBusy,
        CallStatus::Failed => CallReason::AllFailed,
        CallStatus::Canceled => CallReason::CallerAbandoned,
        CallStatus::RejectedDid => CallReason::DidNotFound,
        CallStatus::RejectedCc | CallStatus::RejectedTotal | CallStatus::Rejected => {
            CallReason::NoEligibleClientsAvailable
        }
    }
}
