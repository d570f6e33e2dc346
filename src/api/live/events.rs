//! What a stream tells, and how the documents describe it.

use std::sync::Arc;

use futures_util::Stream;
use poem::web::sse::{Event, SSE};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::{Example, ToJSON, Type};
use poem_openapi::{ApiResponse, Object, Union};
use uuid::Uuid;

use super::{LiveCall, LiveCampaign, LiveClient, LiveState};
use crate::api::callers::Callers;
use crate::api::stamp::Stamp;
use crate::clock::Timestamp;
use crate::ids::CallId;
use crate::live;

/// The data of one event; `type` is the event's name.
#[derive(Union)]
#[oai(discriminator_name = "type", one_of)]
pub enum LiveEvent {
    #[oai(mapping = "snapshot")]
    Snapshot(LiveSnapshot),
    #[oai(mapping = "call")]
    Call(LiveChange),
    #[oai(mapping = "gone")]
    Gone(LiveGone),
    #[oai(mapping = "resync")]
    Resync(LiveResync),
    #[oai(mapping = "heartbeat")]
    Heartbeat(LiveHeartbeat),
}

/// Every live call that was asked for: forget all others.
#[derive(Object)]
#[oai(example)]
pub struct LiveSnapshot {
    /// Oldest first.
    calls: Vec<LiveCall>,
}

/// A call came, or changed: this is how it is now.
#[derive(Object)]
#[oai(example)]
pub struct LiveChange {
    call: LiveCall,
}

/// A call ended, or isn't one of those asked for any more.
#[derive(Object)]
#[oai(example, rename_all = "camelCase")]
pub struct LiveGone {
    call_id: Uuid,
}

/// Changes were missed: a snapshot follows.
#[derive(Object)]
#[oai(example)]
pub struct LiveResync {
    at: Stamp,
}

/// The stream is well, though nothing has happened.
#[derive(Object)]
#[oai(example)]
pub struct LiveHeartbeat {
    at: Stamp,
}

/// An endless answer.
pub struct LiveEvents(SSE);

impl LiveEvent {
    pub fn snapshot(calls: &[Arc<live::LiveCall>], callers: Callers) -> Self {
        let calls = calls.iter().map(|call| LiveCall::shown(call, callers)).collect();
        Self::Snapshot(LiveSnapshot { calls })
    }

    pub fn call(call: &live::LiveCall, callers: Callers) -> Self {
        Self::Call(LiveChange { call: LiveCall::shown(call, callers) })
    }

    pub fn gone(call: CallId) -> Self {
        Self::Gone(LiveGone { call_id: call.0 })
    }

    pub fn resync(now: Timestamp) -> Self {
        Self::Resync(LiveResync { at: now.into() })
    }

    pub fn heartbeat(now: Timestamp) -> Self {
        Self::Heartbeat(LiveHeartbeat { at: now.into() })
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Snapshot(_) => "snapshot",
            Self::Call(_) => CALL,
            Self::Gone(_) => "gone",
            Self::Resync(_) => "resync",
            Self::Heartbeat(_) => "heartbeat",
        }
    }

    /// As it is sent.
    pub fn event(&self) -> Event {
        Event::message(self.to_json_string()).event_type(self.name())
    }
}

const CALL: &str = "call";

/// How a call is since a change. All readers who are shown callers alike are sent the
/// same text, written once.
pub fn changed(change: &live::Change, call: &live::LiveCall, callers: Callers) -> Event {
    let text = &change.texts[callers as usize];
    let text = text.get_or_init(|| LiveEvent::call(call, callers).to_json_string());
    Event::message(text.as_str()).event_type(CALL)
}

impl LiveEvents {
    pub fn new(events: impl Stream<Item = Event> + Send + 'static) -> Self {
        Self(SSE::new(events))
    }
}

impl IntoResponse for LiveEvents {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl ApiResponse for LiveEvents {
    fn meta() -> MetaResponses {
        let events = MetaSchema {
            items: Some(Box::new(LiveEvent::schema_ref())),
            description: Some("Events, one after the other, without end."),
            ..MetaSchema::new_with_format("array", "event-stream")
        };
        let content = MetaMediaType {
            content_type: "text/event-stream",
            schema: MetaSchemaRef::Inline(Box::new(events)),
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "A stream of events that goes on until one side ends it.",
                status: Some(200),
                status_range: None,
                content: vec![content],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        LiveEvent::register(registry);
    }
}

// === examples ===

const CALL_ID: Uuid = Uuid::from_u128(0x019a_b3f2_7c40_7d1e_9b1a_5f0e_6c2d_8a47);

fn example_call() -> LiveCall {
    let started_at: Timestamp = Timestamp::UNIX_EPOCH + chrono::TimeDelta::days(20_779);
    LiveCall {
        call_id: CALL_ID,
        state: LiveState::Ringing,
        since: (started_at + chrono::TimeDelta::milliseconds(41)).into(),
        started_at: started_at.into(),
        incoming_did_number: "+442071838750".to_owned(),
        caller_id_num: Some("+441134960000".to_owned()),
        user_id: Some(7),
        did_id: Some(3),
        campaign: Some(LiveCampaign { id: 5, name: "Solar".to_owned() }),
        client: Some(LiveClient {
            id: 2,
            name: "Northern Calls".to_owned(),
            client_identifier: "northern".to_owned(),
            campaign_client_setting_id: 11,
        }),
        attempts: 1,
    }
}

impl Example for LiveSnapshot {
    fn example() -> Self {
        Self { calls: vec![example_call()] }
    }
}

impl Example for LiveChange {
    fn example() -> Self {
        Self { call: example_call() }
    }
}

impl Example for LiveGone {
    fn example() -> Self {
        Self { call_id: CALL_ID }
    }
}

impl Example for LiveResync {
    fn example() -> Self {
        Self { at: example_call().since }
    }
}

impl Example for LiveHeartbeat {
    fn example() -> Self {
        Self { at: example_call().since }
    }
}
