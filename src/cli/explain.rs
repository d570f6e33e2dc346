//! `capconduit explain`: what became of a call and why, and whether it would be decided
//! the same today.

mod prose;

use clap::Args;
use sea_orm::{ConnectionTrait, DbErr, StreamTrait};
use serde_json::{Value, json};

use super::place::{NoPlace, Place};
use crate::call::CallRecord;
use crate::call::record::Attempt;
use crate::clock::Timestamp;
use crate::db::begin_long_read;
use crate::ids::CallId;
use crate::replay::{self, Again, Difference, InUse};
use crate::routing::Snapshot;
use crate::store;

#[derive(Args, Debug)]
pub struct Explain {
    /// The call's id, as call logs, live calls and log lines have it (`callId`; `call{id=...}` in the log).
    call_id: String,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Place,
}

/// Why it can't be explained: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error("the database can't be read: {0}")]
    Database(#[from] DbErr),
    #[error("{0:?} is no call id: it must be a UUID, such as 0199a5c4-7b1e-7c3d-9f20-3a5b1c2d4e6f")]
    Malformed(String),
    #[error("there is no log of call {0}: a call has one as soon as it is over")]
    Unknown(CallId),
}

/// What is to be told.
struct Explained {
    record: CallRecord,
    /// None for a call that the dialplan led without asking for a decision.
    today: Option<Today>,
}

/// What would become of the call today.
struct Today {
    revision: i64,
    again: Again,
    differences: Vec<Difference>,
}

impl Explain {
    /// Prints it.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub async fn run(self) -> Result<(), Unexplained> {
        let call =
            CallId::parse(self.call_id.trim()).ok_or(Unexplained::Malformed(self.call_id))?;
        let db = self.database.open_to_read().await?;
        let explained = explain(&begin_long_read(&db).await?, call).await?;
        if self.json {
            println!("{:#}", explained.as_json());
        } else {
            print!("{}", prose::tell(&explained));
        }
        Ok(())
    }
}

async fn explain(
    db: &(impl ConnectionTrait + StreamTrait),
    call: CallId,
) -> Result<Explained, Unexplained> {
    let record = store::past::find(db, call).await?.ok_or(Unexplained::Unknown(call))?;
    if record.is_led_elsewhere() {
        return Ok(Explained { record, today: None });
    }
    let snapshot = store::routing::load_snapshot(db).await?;
    let mut in_use = Vec::new();
    for at in replay::again::moments(&record) {
        in_use.push(in_use_at(db, &record, &snapshot, at).await?);
    }
    let again = replay::decide_again(&record, &snapshot, &in_use);
    let differences = replay::differences(&record, &snapshot);
    let today = Today { revision: snapshot.revision(), again, differences };
    Ok(Explained { record, today: Some(today) })
}

/// What today's campaign of the call would find in use at this moment.
async fn in_use_at(
    db: &(impl ConnectionTrait + StreamTrait),
    record: &CallRecord,
    today: &Snapshot,
    at: Timestamp,
) -> Result<InUse, DbErr> {
    let Some(campaign) = replay::campaign_of(record, today) else {
        return Ok(InUse::default());
    };
    let scopes = store::past::counted_in(&campaign, at);
    let mut in_use = store::past::in_use(db, at, &scopes, Some(record.call)).await?;
    let cursor = if record.trace.strategy == Some(capconduit_entity::Strategy::RoundRobin)
        && record.trace.campaign_id == Some(campaign.id)
    {
        record.trace.cursor
    } else {
        let links = campaign.links.iter().map(|link| link.id);
        store::past::last_offered(db, links, at).await?
    };
    in_use.cursors.extend(cursor.map(|link| (campaign.id, link)));
    Ok(in_use)
}

// === impl Explained ===

impl Explained {
    fn as_json(&self) -> Value {
        let record = &self.record;
        let today = self.today.as_ref().map(|today| {
            json!({
                "revision": today.revision,
                "decidesTheSame": today.again.parting.is_none(),
                "parting": today.again.parting,
                "differences": today.differences,
                "trace": today.again.trace,
            })
        });
        json!({
            "callId": record.call,
            "incomingDidNumber": record.dialled,
            "callerIdNum": record.caller_number,
            "callerIdName": record.caller_name,
            "timestampStart": record.started_at,
            "timestampAnswered": record.answered_at,
            "timestampEnd": record.end.map(|end| end.at),
            "callStatus": record.end.map(|end| end.outcome.status),
            "reason": record.end.map(|end| end.outcome.reason),
            "hangupCauseCode": record.end.map(|end| end.cause),
            "attempts": record.attempts.iter().map(attempt_as_json).collect::<Vec<_>>(),
            "decidedBy": if record.is_led_elsewhere() { "dialplan" } else { "service" },
            "trace": (!record.is_led_elsewhere()).then_some(&record.trace),
            "today": today,
        })
    }
}

fn attempt_as_json(attempt: &Attempt) -> Value {
    json!({
        "position": attempt.position,
        "campaignClientSettingId": attempt.link,
        "clientId": attempt.client,
        "clientName": attempt.client_name,
        "clientIdentifier": attempt.client_identifier,
        "startedAt": attempt.held_at,
        "ringingAt": attempt.ringing_at,
        "answeredAt": attempt.answered_at,
        "endedAt": attempt.ended_at,
        "result": attempt.result,
        "causeCode": attempt.cause,
        "sipCode": attempt.sip,
    })
}
