//! What Asterisk tells us: the event types that we act on, with the fields that we read.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::model::Channel;
use crate::clock::Timestamp;

/// One event, as decoded.
#[derive(Clone, Debug)]
pub struct Event {
    /// When it happened, by Asterisk's clock: what calls are billed by.
    pub at: Timestamp,
    pub kind: EventKind,
}

/// What happened. Types and fields that a newer Asterisk adds are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type")]
pub enum EventKind {
    /// A channel entered our application.
    StasisStart {
        channel: Channel,
    },
    /// A channel left our application; it may still exist.
    StasisEnd {
        channel: Channel,
    },
    ChannelStateChange {
        channel: Channel,
    },
    /// Somebody wants this channel to end. With `soft`, `cause` is no Q.850
    /// cause but Asterisk's flag for who asked.
    ChannelHangupRequest {
        channel: Channel,
        cause: Option<i32>,
        #[serde(default)]
        soft: bool,
        tech_cause: Option<i32>,
    },
    /// The channel is no more.
    ChannelDestroyed {
        channel: Channel,
        /// Q.850.
        cause: i32,
        /// The final SIP status, where the leg ended on one.
        tech_cause: Option<i32>,
    },
    /// Progress of a dialled leg. Asterisk 22 sends no final status for a
    /// failed leg: [`EventKind::ChannelDestroyed`] has the cause.
    Dial {
        peer: Channel,
        dialstatus: String,
    },
    /// An event that we sent ourselves, as a probe.
    ChannelUserevent {
        eventname: String,
        userevent: serde_json::Value,
    },
    /// Another connection has taken over our application's name.
    ApplicationReplaced {},
    #[serde(other)]
    Other,
}

#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not the JSON of an event")]
    Json(#[source] serde_json::Error),
    #[error("no timestamp like 2026-08-06T15:45:49.123+0000")]
    Timestamp,
}

#[derive(Deserialize)]
struct Stamped<'a> {
    #[serde(borrow)]
    timestamp: Option<&'a str>,
}

/// Decodes one text frame.
///
/// # Errors
/// When the frame isn't the JSON of an event; the caller counts and skips it.
pub fn decode(frame: &str) -> Result<Event, DecodeError> {
    let kind: EventKind = serde_json::from_str(frame).map_err(DecodeError::Json)?;
    let stamped: Stamped<'_> = serde_json::from_str(frame).map_err(DecodeError::Json)?;
    let at = stamped.timestamp.and_then(parse_timestamp).ok_or(DecodeError::Timestamp)?;
    Ok(Event { at, kind })
}

/// Asterisk writes the zone without a colon, which RFC 3339 doesn't allow.
fn parse_timestamp(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z").ok().map(|at| at.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use super::super::model::ChannelState;
    use super::*;

    #[test]
    fn a_destroyed_leg_says_its_cause_and_sip_status() {
        let event = decode(
            r#"{"type":"ChannelDestroyed","timestamp":"2026-11-22T18:42:37.984+0000","cause":17,
                "cause_txt":"User busy","tech_cause":486,"channel":{"id":"x-b1","state":"Down",
                "caller":{"name":"","number":""},"dialplan":{"exten":"s"}},"asterisk_id":"02"}"#,
        )
        .unwrap();
        assert_eq!(event.at.to_rfc3339(), "2026-11-22T18:42:37.984+00:00");
        let EventKind::ChannelDestroyed { channel, cause, tech_cause } = event.kind else {
            panic!("{event:?}")
        };
        assert_eq!((channel.state, cause, tech_cause), (ChannelState::Down, 17, Some(486)));
    }

    #[test]
    fn unknown_types_and_states_are_no_error() {
        let unknown = r#"{"type":"Invented","timestamp":"2026-11-22T18:42:37.984+0000"}"#;
        assert!(matches!(decode(unknown).unwrap().kind, EventKind::Other));
        let state = r#"{"type":"StasisEnd","timestamp":"2026-11-22T18:42:37.984+0000",
            "channel":{"id":"a","state":"Dialing Offhook"}}"#;
        assert!(matches!(decode(state).unwrap().kind, EventKind::StasisEnd { .. }));
    }

    proptest::proptest! {
        #[test]
        fn no_frame_makes_the_decoder_panic(frame in ".{0,300}") {
            let _ = decode(&frame);
        }
    }
}
