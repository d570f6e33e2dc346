//! Names of things: no bare integer or string travels inside the service.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

macro_rules! integer_id {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

integer_id! {
    /// A seller: a user of role `user`.
    SellerId,
    /// An inbound number.
    DidId,
    /// A seller's routing unit.
    CampaignId,
    /// A campaign x client with its own caps.
    LinkId,
    /// A call centre.
    ClientId,
}

/// One inbound call, for its whole life: a UUIDv7, so calls sort by their start;
/// a UUIDv8 where someone else led it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub Uuid);

impl CallId {
    /// The id of a call that someone else led, known by its channel: the same channel, the same id.
    pub fn of_channel(channel: &str) -> Self {
        let hash = Sha256::digest(channel.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Whether someone else led the call.
    pub fn is_of_channel(self) -> bool {
        self.0.get_version_num() == 8
    }

    /// Reads a call id back.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// Reads it from the name of a bridge on the switch. Asterisk names the bridges of
    /// other programs by UUIDs too, of version 4: they are no calls of ours.
    pub fn parse_name(name: &str) -> Option<Self> {
        Self::parse(name).filter(|call| call.0.get_version_num() == 7)
    }

    /// The same call, as one that this instance leads.
    pub fn led_by(self, Mark(mark): Mark) -> Self {
        let mut bytes = self.0.into_bytes();
        bytes[14..].copy_from_slice(&mark);
        Self(Uuid::from_bytes(bytes))
    }

    /// Of the instance that leads it.
    pub const fn mark(self) -> Mark {
        let [.., first, second] = self.0.into_bytes();
        Mark([first, second])
    }
}

/// Tells the calls of one instance from those of another on the same Asterisk: the
/// last four digits of their ids, and so of their bridges' and legs' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u8; 2]);

impl Mark {
    /// That of the instance with this name.
    pub fn of_instance(name: &str) -> Self {
        let hash = Sha256::digest(name.as_bytes());
        Self([hash[0], hash[1]])
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_call_of_ours_was_named_is_read_from_the_switch() {
        let ours = crate::clock::new_call_id().led_by(Mark::of_instance("one"));
        assert_eq!(CallId::parse_name(&ours.to_string()), Some(ours));
        let by_asterisk = "0b2f7e0c-6a0d-4c59-8f3e-3f0a7f1f6f11";
        let of_a_dialplan = CallId::of_channel("1795372952.7").to_string();
        for name in [by_asterisk, &of_a_dialplan, "lounge"] {
            assert_eq!(CallId::parse_name(name), None, "{name}");
        }
    }
}
