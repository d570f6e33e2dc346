//! What one scope allows.

use chrono_tz::Tz;

use super::{Claim, Scope, ScopeKind, WindowKind, Windows};
use crate::clock::Timestamp;

/// The caps of a link, a client, a campaign or a seller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Live calls at once; none = no cap.
    pub concurrency: Option<u32>,
    /// Calls per window; none = no cap, 0 = no calls. Indexed by [`WindowKind`].
    pub volume: [Option<u32>; WindowKind::COUNT],
    /// The zone in which the windows start: a cap over several links needs one calendar.
    pub zone: Tz,
}

impl Caps {
    /// Allows everything.
    pub const NONE: Self =
        Self { concurrency: None, volume: [None; WindowKind::COUNT], zone: Tz::UTC };

    pub fn is_none(&self) -> bool {
        self.concurrency.is_none() && self.volume.iter().all(Option::is_none)
    }

    /// The windows in which a call counts that is held at `moment`.
    pub fn windows(&self, moment: Timestamp) -> Windows {
        Windows::at(moment, self.zone)
    }

    /// What a call counts in; `windows` are those of this zone.
    pub const fn claim(&self, scope: Scope, windows: Windows) -> Claim {
        Claim { scope, concurrency: self.concurrency, volume: self.volume, windows }
    }
}

impl ScopeKind {
    pub const ALL: &'static [Self] = &[Self::Link, Self::Client, Self::Campaign, Self::Seller];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Client => "client",
            Self::Campaign => "campaign",
            Self::Seller => "seller",
        }
    }
}
