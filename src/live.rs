//! What operators see now: every live call and what it is doing.

use std::collections::HashMap;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, DidId, LinkId, SellerId};

/// What a live call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    /// Nobody is being rung yet.
    Routing,
    /// A client is being rung.
    Ringing,
    /// Caller and client talk.
    Talking,
    /// Legs are being hung up.
    Ending,
}

/// A live call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveCall {
    pub call: CallId,
    pub state: LiveState,
    /// When the call came to this state.
    pub since: Timestamp,
    pub started_at: Timestamp,
    /// The number that the caller dialled.
    pub dialled: String,
    pub caller_number: Option<String>,
    pub seller: Option<SellerId>,
    pub did: Option<DidId>,
    pub campaign: Option<(CampaignId, String)>,
    /// The client being rung or talked to.
    pub client: Option<LiveClient>,
    /// Clients dialled so far.
    pub attempts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveClient {
    pub link: LinkId,
    pub id: ClientId,
    pub name: String,
    pub identifier: String,
}

/// All live calls of this instance.
#[derive(Debug, Default)]
pub struct Live {
    calls: RwLock<HashMap<CallId, LiveCall>>,
}

impl Live {
    /// Shows a call as it is now.
    pub fn put(&self, call: LiveCall) {
        self.calls.write().insert(call.call, call);
    }

    /// The call is over.
    pub fn remove(&self, call: CallId) {
        self.calls.write().remove(&call);
    }

    /// Every live call, oldest first.
    pub fn list(&self) -> Vec<LiveCall> {
        let mut calls: Vec<LiveCall> = self.calls.read().values().cloned().collect();
        calls.sort_by_key(|call| call.call);
        calls
    }

    pub fn get(&self, call: CallId) -> Option<LiveCall> {
        self.calls.read().get(&call).cloned()
    }

    pub fn len(&self) -> usize {
        self.calls.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
