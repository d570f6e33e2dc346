//! What operators see now: every live call and what it is doing.
//!
//! Calls put themselves here at every transition and never wait. Whoever wants
//! to follow gets a [`Reader`], which is no more than a place in one ring of
//! recent [`Change`]s that all readers share: a reader that is slow, or has
//! been away, costs no call anything and takes no memory. It goes on where it
//! stood, or learns that what it missed is forgotten and begins anew with a
//! snapshot.

mod reader;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::ids::{CallId, CampaignId, ClientId, DidId, LinkId, SellerId};

pub use reader::{Forgotten, Position, Reader};

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

impl LiveState {
    pub const ALL: [Self; 4] = [Self::Routing, Self::Ringing, Self::Talking, Self::Ending];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Ringing => "ringing",
            Self::Talking => "talking",
            Self::Ending => "ending",
        }
    }
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
    /// The client being rung or talked to; in the end, one whose leg is still there or who
    /// had the call.
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

/// A call came, changed or ended.
#[derive(Debug)]
pub struct Change {
    /// 1 for the first of this run; no number is left out.
    pub number: u64,
    pub call: CallId,
    /// How the call was; none = it wasn't live.
    pub before: Option<Arc<LiveCall>>,
    /// How the call is since; none = it isn't live any more.
    pub after: Option<Arc<LiveCall>>,
    /// `after` as readers are sent it, in each way in which callers are shown; written by
    /// the first who sends it.
    pub texts: [OnceLock<String>; 2],
}

/// All live calls of this instance.
#[derive(Debug)]
pub struct Live {
    /// Tells this run of the service from others.
    run: u64,
    state: RwLock<State>,
    /// The number of the newest change, for whoever waits for one.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<CallId, Arc<LiveCall>>,
    /// The newest changes, oldest first.
    recent: VecDeque<Arc<Change>>,
    /// The number of the newest change.
    newest: u64,
}

/// Changes that are remembered: some five per call, and a few megabytes in all.
pub const REMEMBERED: usize = 8_192;

impl Live {
    /// Nothing yet; `run` must differ from that of any other run of the service.
    pub fn new(run: u64) -> Self {
        Self { run, state: RwLock::default(), newest: watch::Sender::new(0) }
    }

    /// Shows a call as it is now.
    pub fn put(&self, call: LiveCall) {
        let mut state = self.state.write();
        let (id, after) = (call.call, Arc::new(call));
        let before = state.calls.insert(id, after.clone());
        let newest = state.note(id, before, Some(after));
        drop(state);
        self.ring(newest);
    }

    /// The call is over.
    pub fn remove(&self, call: CallId) {
        let mut state = self.state.write();
        let Some(before) = state.calls.remove(&call) else { return };
        let newest = state.note(call, Some(before), None);
        drop(state);
        self.ring(newest);
    }

    /// Every live call, oldest first.
    pub fn list(&self) -> Vec<Arc<LiveCall>> {
        let mut calls: Vec<_> = self.state.read().calls.values().cloned().collect();
        calls.sort_by_key(|call| call.call);
        calls
    }

    pub fn get(&self, call: CallId) -> Option<Arc<LiveCall>> {
        self.state.read().calls.get(&call).cloned()
    }

    pub fn len(&self) -> usize {
        self.state.read().calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes those who wait. Two calls may ring in the other order: the higher number stays.
    fn ring(&self, newest: u64) {
        self.newest.send_if_modified(|known| {
            let is_news = newest > *known;
            *known = newest.max(*known);
            is_news
        });
    }
}

impl State {
    fn note(
        &mut self,
        call: CallId,
        before: Option<Arc<LiveCall>>,
        after: Option<Arc<LiveCall>>,
    ) -> u64 {
        self.newest += 1;
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        let texts = <[OnceLock<String>; 2]>::default();
        self.recent.push_back(Arc::new(Change { number: self.newest, call, before, after, texts }));
        self.newest
    }
}
