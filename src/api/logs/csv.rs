//! Call logs as CSV, read and sent in batches, so that any number of them can be.

use std::io;

use capconduit_entity::call_log;
use futures_util::{Stream, stream};
use poem::Body;
use sea_orm::DatabaseConnection;
use tracing::error;

use crate::api::callers::Callers;
use crate::api::stamp::Stamp;
use crate::store::call_logs::{self, Filter};

/// Logs read at once.
const BATCH: u64 = 500;

const HEADINGS: &str = "id,callId,campaignId,campaignName,didId,incomingDidNumber,clientId,\
    clientIdentifier,clientName,callerIdNum,callerIdName,timestampStart,timestampAnswered,\
    timestampEnd,durationSeconds,billsecSeconds,callStatus,reason,hangupCauseCode,\
    hangupCauseText,asteriskUniqueid,asteriskLinkedid\r\n";

/// All logs that match, as a body that is read from the database while it is sent.
pub fn stream(db: DatabaseConnection, filter: Filter, callers: Callers) -> Body {
    Body::from_bytes_stream(batches(db, filter, callers))
}

fn batches(
    db: DatabaseConnection,
    filter: Filter,
    callers: Callers,
) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    let headings = HEADINGS.as_bytes().to_vec();
    stream::unfold(Some((filter, headings)), move |state| {
        let db = db.clone();
        async move {
            let (mut filter, mut text) = state?;
            let logs = match call_logs::next(&db, &filter, BATCH).await {
                Ok(logs) => logs,
                Err(err) => {
                    error!(error = %err, "an export of call logs broke off");
                    return Some((Err(io::Error::other("call logs can't be read")), None));
                }
            };
            filter.before_id = logs.last().map(|log| log.id);
            text.extend(logs.into_iter().flat_map(|log| line(&callers.of(log)).into_bytes()));
            let next = filter.before_id.is_some().then_some((filter, Vec::new()));
            Some((Ok(text), next))
        }
    })
}

fn line(log: &call_log::Model) -> String {
    let number = |id: Option<i64>| id.map(|id| id.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| quote(text.as_deref().unwrap_or_default());
    let answered = log.timestamp_answered.map(|at| Stamp(at).text()).unwrap_or_default();
    let fields = [
        log.id.to_string(),
        log.call_id.to_string(),
        number(log.campaign_id),
        text(&log.campaign_name),
        number(log.did_id),
        quote(&log.incoming_did_number),
        number(log.client_id),
        text(&log.client_identifier),
        text(&log.client_name),
        text(&log.caller_id_num),
        text(&log.caller_id_name),
        Stamp(log.timestamp_start).text(),
        answered,
        Stamp(log.timestamp_end).text(),
        log.duration_seconds.to_string(),
        log.billsec_seconds.to_string(),
        log.call_status.to_string(),
        log.reason.to_string(),
        log.hangup_cause_code.to_string(),
        quote(&log.hangup_cause_text),
        quote(&log.asterisk_uniqueid),
        text(&log.asterisk_linkedid),
    ];
    fields.join(",") + "\r\n"
}

/// Quotes a text, and keeps spreadsheets from taking what a caller chose for a formula.
fn quote(text: &str) -> String {
    let is_number = text
        .strip_prefix('+')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    let is_formula = !is_number && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guard = if is_formula { "'" } else { "" };
    if text.contains([',', '"', '\r', '\n']) || is_formula {
        return format!("\"{guard}{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_chose_is_never_a_formula() {
        assert_eq!(quote("=1+1"), "\"'=1+1\"");
        assert_eq!(quote("+442071838750"), "+442071838750");
        assert_eq!(quote("Smith, \"Joe\""), "\"Smith, \"\"Joe\"\"\"");
    }
}
