//! Channels as Asterisk describes them: only the fields that we read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Asterisk's name for a channel (its "unique id").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(pub String);

impl ChannelId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Channel {
    pub id: ChannelId,
    #[serde(default)]
    pub state: ChannelState,
    #[serde(default)]
    pub caller: Party,
    #[serde(default)]
    pub dialplan: Dialplan,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ChannelState {
    Down,
    /// The caller waits for an answer.
    Ring,
    /// The called phone rings.
    Ringing,
    /// Answered.
    Up,
    /// One that we don't act on.
    #[default]
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Party {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub number: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Dialplan {
    /// The number that was dialled.
    #[serde(default)]
    pub exten: String,
    #[serde(default)]
    pub app_name: String,
    #[serde(default)]
    pub app_data: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Bridge {
    pub id: String,
    #[serde(default)]
    pub channels: Vec<ChannelId>,
}

/// What Asterisk says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Info {
    pub status: Status,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub startup_time: String,
}
