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
        /// What the dialplan says of it: `waited` for a caller whom it kept ringing before.
        #[serde(default)]
        args: Vec<String>,
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
    use proptest::prelude::*;
    use serde_json::{Value, json};

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

    #[test]
    fn a_caller_who_waited_in_the_dialplan_says_so() {
        let args = |more: &str| {
            let event = decode(&format!(
                r#"{{"type":"StasisStart","timestamp":"2026-11-22T18:42:37.984+0000",
                "channel":{{"id":"a"}}{more}}}"#
            ));
            let EventKind::StasisStart { args, .. } = event.unwrap().kind else { panic!("{more}") };
            args
        };
        assert_eq!(args(r#","args":["waited"]"#), ["waited"]);
        assert!(args(r#","args":[]"#).is_empty());
        assert!(args("").is_empty(), "nor does anything follow from their being left out");
    }

    /// One event of each type, with everything in it that a real one has.
    fn real_events() -> Vec<Value> {
        let channel = json!({
            "id": "1795372952.7", "name": "PJSIP/carrier-00000003", "state": "Ring",
            "protocol_id": "1-9@127.0.0.1", "accountcode": "", "language": "en",
            "caller": {"name": "Eve", "number": "+15550001"},
            "connected": {"name": "", "number": ""},
            "dialplan": {"context": "from-carrier", "exten": "+15559999", "priority": 3,
                "app_name": "Stasis", "app_data": "capconduit"},
            "creationtime": "2026-11-22T18:42:37.901+0000",
        });
        let with = |kind: &str, more: Value| {
            let mut event = json!({"type": kind, "timestamp": "2026-11-22T18:42:37.984+0000",
                "asterisk_id": "02:42", "application": "capconduit", "channel": channel});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        vec![
            with("StasisStart", json!({"args": []})),
            with("StasisEnd", json!({})),
            with("ChannelStateChange", json!({})),
            with("ChannelHangupRequest", json!({"cause": 16, "soft": true, "tech_cause": 487})),
            with(
                "ChannelDestroyed",
                json!({"cause": 17, "cause_txt": "User busy", "tech_cause": 486}),
            ),
            with("Dial", json!({"peer": channel, "dialstatus": "RINGING", "dialstring": "x"})),
            with("ChannelUserevent", json!({"eventname": "probe", "userevent": {"probe": 7}})),
            with("ApplicationReplaced", json!({})),
            with("ChannelVarset", json!({"variable": "A", "value": "b"})),
        ]
    }

    /// The places of everything in a value, as JSON pointers.
    fn places(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
            }
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(i, value)| places(value, &format!("{at}/{i}"), found));
            }
            _ => {}
        }
    }

    /// What a decoded event holds: characters, and nodes of what isn't decoded further.
    fn size(event: &Event) -> usize {
        fn nodes(value: &Value) -> usize {
            match value {
                Value::Object(fields) => {
                    fields.iter().map(|(name, value)| 1 + name.len() + nodes(value)).sum::<usize>()
                        + 1
                }
                Value::Array(items) => items.iter().map(nodes).sum::<usize>() + 1,
                Value::String(text) => 1 + text.len(),
                _ => 1,
            }
        }
        let of_channel = |channel: &Channel| {
            let Channel { id, state: _, caller, dialplan } = channel;
            let texts = [
                &id.0,
                &caller.name,
                &caller.number,
                &dialplan.exten,
                &dialplan.app_name,
                &dialplan.app_data,
            ];
            texts.map(String::len).iter().sum::<usize>()
        };
        match &event.kind {
            EventKind::StasisStart { channel, args } => {
                of_channel(channel) + args.iter().map(String::len).sum::<usize>()
            }
            EventKind::StasisEnd { channel }
            | EventKind::ChannelStateChange { channel }
            | EventKind::ChannelHangupRequest { channel, .. }
            | EventKind::ChannelDestroyed { channel, .. } => of_channel(channel),
            EventKind::Dial { peer, dialstatus } => of_channel(peer) + dialstatus.len(),
            EventKind::ChannelUserevent { eventname, userevent } => {
                eventname.len() + nodes(userevent)
            }
            EventKind::ApplicationReplaced {} | EventKind::Other => 0,
        }
    }

    /// Decodes whatever it is; what comes out is no larger than what went in.
    fn survives(frame: &str) -> bool {
        match decode(frame) {
            Ok(event) => {
                assert!(size(&event) <= frame.len(), "{} of {}", size(&event), frame.len());
                true
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.len() < 200, "{said}");
                false
            }
        }
    }

    #[test]
    fn every_real_event_is_decoded() {
        assert!(real_events().iter().all(|event| survives(&event.to_string())));
    }

    #[test]
    fn depth_and_length_are_borne() {
        let event = |userevent: &str| {
            format!(
                r#"{{"type":"ChannelUserevent","timestamp":"2026-11-22T18:42:37.984+0000","eventname":"x","userevent":{userevent}}}"#
            )
        };
        for depth in [100, 1_000, 1_000_000] {
            let nested = event(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
            assert_eq!(survives(&nested), depth == 100, "as deep as it may be, and no deeper");
            survives(&event(&"{\"a\":".repeat(depth)));
        }
        assert!(survives(&event(&format!("\"{}\"", "x".repeat(5_000_000)))));
        assert!(survives(&event(&format!("[{}1]", "1,".repeat(1_000_000)))));
    }

    fn odd_value() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[0-9T:.+-]{0,30}".prop_map(Value::from),
            Just(Value::from("x".repeat(70_000))),
        ];
        plain.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z_]{0,9}", inner, 0..4)
                    .prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            survives(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_damage_to_a_real_event_makes_the_decoder_panic(
            which in any::<prop::sample::Index>(),
            damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
        ) {
            let mut bytes = which.get(&real_events()).to_string().into_bytes();
            for (place, byte, how) in damages {
                let place = place.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                match how {
                    0 if !bytes.is_empty() => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    _ => bytes.truncate(place),
                }
            }
            survives(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_field_of_another_type_makes_the_decoder_panic(
            which in any::<prop::sample::Index>(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), odd_value()), 1..4),
        ) {
            let mut event = which.get(&real_events()).clone();
            for (place, value) in changes {
                let mut found = Vec::new();
                places(&event, "", &mut found);
                if let Some(there) = event.pointer_mut(place.get::<String>(&found)) {
                    *there = value;
                }
            }
            survives(&event.to_string());
        }
    }
}
