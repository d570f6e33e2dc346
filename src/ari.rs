//! The protocol between us and Asterisk, in a page.
//!
//! *Events* come over one WebSocket ([`socket`]): what happened to channels in
//! our Stasis application. *Commands* go over HTTP ([`client`]): create a
//! channel, dial it, bridge it, hang it up. Nothing orders one against the
//! other: an event can overtake the answer to the command that caused it, and
//! events of two channels can arrive in either order. Events that are sent
//! while the socket is down are gone for good.
//!
//! Three rules follow, and everything here serves them:
//!
//! * We choose the ids of channels and bridges before we ask for them, so an
//!   event that comes early finds its call. A client's leg is
//!   `<call id>-b<attempt>`, a bridge is `<call id>`.
//! * A command whose answer was lost may have been carried out. Such an error
//!   is [`AriError::OutcomeUnknown`], and the remedy is to ask, not to repeat.
//! * The socket counts as up only after it has echoed a probe of ours: a
//!   connection that is half open, or one that Asterisk doesn't send to, looks
//!   healthy otherwise.
//!
//! Facts on what Asterisk sends were taken from traces of Asterisk 22.10.

pub mod cache;
pub mod client;
pub mod events;
pub mod model;
pub mod socket;
pub mod switch;

use std::fmt;

use crate::ids::CallId;

pub use cache::ClientCache;
pub use client::{AriClient, AriError, AriSettings};
pub use events::{Event, EventKind};
pub use model::{Bridge, Channel, ChannelId, ChannelState};
pub use socket::{Signal, Socket};
pub use switch::{Done, Switch};

/// The name of a client's leg: which attempt of which call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LegId {
    pub call: CallId,
    /// 1 for the first client dialled.
    pub attempt: u32,
}

impl LegId {
    /// Reads a leg's name back from a channel id; none for channels that aren't ours.
    pub fn parse(channel: &str) -> Option<Self> {
        let (call, attempt) = channel.rsplit_once("-b")?;
        Some(Self { call: CallId::parse_name(call)?, attempt: attempt.parse().ok()? })
    }
}

impl fmt::Display for LegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-b{}", self.call, self.attempt)
    }
}
