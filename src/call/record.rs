//! The one record of a call.

use capconduit_entity::AttemptResult;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use crate::capacity::{HoldId, Scope};
use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, DidId, LinkId, SellerId};
use crate::routing::Trace;

/// Everything that is known of a call. It is written to the journal whenever
/// something is decided that must not be lost, and to the database once it is final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    pub call: CallId,
    /// The caller's channel.
    pub channel: String,
    pub linked_channel: Option<String>,
    pub dialled: String,
    pub caller_number: Option<String>,
    pub caller_name: Option<String>,
    pub seller: Option<SellerId>,
    pub did: Option<DidId>,
    pub campaign: Option<(CampaignId, String)>,
    pub started_at: Timestamp,
    pub answered_at: Option<Timestamp>,
    pub attempts: Vec<Attempt>,
    pub trace: Trace,
    /// Since when nothing was heard of it, while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_since: Option<Timestamp>,
    /// How the call is about to end, as long as its legs are being taken down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<End>,
    /// What is told of it if an operator hung up.
    #[serde(default)]
    pub hung_up: Option<String>,
    /// Set once, when the call is over.
    pub end: Option<End>,
}

/// How and when a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub at: Timestamp,
    pub outcome: Outcome,
    /// Q.850.
    pub cause: i32,
}

/// One client dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub position: u32,
    pub link: LinkId,
    pub client: ClientId,
    pub client_name: String,
    pub client_identifier: String,
    /// For when capacity was asked for: the windows that it counts in. The attempt began then.
    pub held_at: Timestamp,
    /// When its client was known to have been sent the call, as long as the attempt lasts:
    /// whoever goes on with the call must not send it once more. Nothing says it if the
    /// record was written by a version that didn't note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled_at: Option<Timestamp>,
    pub ringing_at: Option<Timestamp>,
    pub answered_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Set when the attempt is over.
    pub result: Option<AttemptResult>,
    /// Q.850.
    pub cause: Option<i32>,
    /// The client's final SIP status.
    pub sip: Option<i32>,
}

impl Attempt {
    pub const fn hold(&self, call: CallId) -> HoldId {
        HoldId { call, attempt: self.position }
    }

    /// Whether its client is known to have been sent the call.
    pub const fn is_dialled(&self) -> bool {
        self.dialled_at.is_some() || self.ringing_at.is_some() || self.answered_at.is_some()
    }

    /// The newest moment at which its leg is known to have been there.
    fn last_seen(&self) -> Timestamp {
        let seen = self.answered_at.or(self.ringing_at).or(self.dialled_at);
        seen.unwrap_or(self.held_at)
    }
}

impl CallRecord {
    /// The attempt that was answered, if one was.
    pub fn answered_attempt(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.result == Some(AttemptResult::Answered))
    }

    /// Whether caller and client talk.
    pub const fn is_talk(&self) -> bool {
        self.answered_at.is_some() && self.ending.is_none() && self.end.is_none()
    }

    /// Whether the dialplan led it without asking, and only reported it.
    pub fn is_led_elsewhere(&self) -> bool {
        self.call.is_of_channel()
    }

    /// Everything that an attempt counts in: its link, client, campaign and seller.
    pub fn scopes(&self, attempt: &Attempt) -> Vec<Scope> {
        let campaign = self.campaign.as_ref().map(|(id, _)| Scope::campaign(*id));
        let seller = self.seller.map(Scope::seller);
        let own = [Scope::link(attempt.link), Scope::client(attempt.client)];
        own.into_iter().chain(campaign).chain(seller).collect()
    }

    /// The newest moment that the record speaks of.
    pub fn last_seen(&self) -> Timestamp {
        let seen = self.attempts.iter().map(Attempt::last_seen);
        seen.chain(self.answered_at).fold(self.started_at, Timestamp::max)
    }

    /// Whole seconds from the answer to the end, as telephone bills count them.
    pub fn billed_seconds(&self, end: &End) -> i64 {
        self.answered_at.map_or(0, |answered| (end.at - answered).num_seconds().max(0))
    }

    pub fn duration_seconds(&self, end: &End) -> i64 {
        (end.at - self.started_at).num_seconds().max(0)
    }
}

/// What callers may put into a record: no control characters, and no more than fits.
pub fn clean(text: &str, most_chars: usize) -> Option<String> {
    let cleaned: String = text.chars().filter(|c| !c.is_control()).take(most_chars).collect();
    let cleaned = cleaned.trim();
    (!cleaned.is_empty()).then(|| cleaned.to_owned())
}

/// Lengths of the columns that callers can fill.
pub mod limits {
    pub const DIALLED: usize = 64;
    pub const CALLER_NUMBER: usize = 64;
    pub const CALLER_NAME: usize = 128;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The record of a call that has just arrived.
    pub(crate) fn record() -> CallRecord {
        CallRecord {
            call: crate::clock::new_call_id(),
            channel: "1795372952.0".to_owned(),
            linked_channel: None,
            dialled: "+15559999".to_owned(),
            caller_number: Some("+15550001".to_owned()),
            caller_name: None,
            seller: None,
            did: None,
            campaign: None,
            started_at: "2026-11-22T18:42:32.246Z".parse().unwrap(),
            answered_at: None,
            attempts: Vec::new(),
            trace: Trace::default(),
            unseen_since: None,
            ending: None,
            hung_up: None,
            end: None,
        }
    }

    #[test]
    fn an_attempt_that_an_older_version_noted_is_not_known_as_dialled() {
        let noted = r#"{"position": 1, "link": 1, "client": 1, "client_name": "Acme",
            "client_identifier": "acme", "held_at": "2026-11-22T18:42:32.250Z",
            "ringing_at": null, "answered_at": null, "ended_at": null, "result": null,
            "cause": null, "sip": null}"#;
        let mut attempt: Attempt = serde_json::from_str(noted).unwrap();
        assert!(!attempt.is_dialled());
        // And nothing more is written of one that wasn't.
        let expected: serde_json::Value = serde_json::from_str(noted).unwrap();
        assert_eq!(serde_json::to_value(&attempt).unwrap(), expected);
        attempt.dialled_at = Some(attempt.held_at);
        let written = serde_json::to_string(&attempt).unwrap();
        assert!(serde_json::from_str::<Attempt>(&written).unwrap().is_dialled());
    }

    #[test]
    fn hostile_text_is_cleaned() {
        assert_eq!(clean("Eve\r\nVia: evil\0", 128).unwrap(), "EveVia: evil");
        assert_eq!(clean("\u{1}\t", 10), None);
        assert_eq!(clean(&"é".repeat(300), 128).unwrap().chars().count(), 128);
    }
}
