//! Caps as they are set and shown, the same for links, clients, campaigns and
//! sellers' accounts.
//!
//! What is used of them is the ledger's to say. It is asked once for all that
//! an answer shows, however many rows that are.

use std::collections::HashMap;

use poem_openapi::Object;
use sea_orm::Set;

use super::input::{Clearable, Given, Word, ZoneName, patch, patch_clearable};
use super::stamp::Stamp;
use crate::capacity::{Caps, Ledger, Scope, ScopeKind, Unavailable, Usage, Window, WindowKind};
use crate::clock::{self, Timestamp};
use crate::store::caps::{Capped, VolumeColumns};

/// The volume caps of something new.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct NewVolume {
    /// Answered calls ever; `null` = no cap, 0 = no calls. So for the windows below.
    #[oai(validator(minimum(value = "0")), nullable)]
    total_calls_allowed: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    hourly_cap: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    daily_cap: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    weekly_cap: Option<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    monthly_cap: Option<i32>,
    /// In which the windows start; `UTC` if left away.
    #[oai(validator(max_length = 64))]
    time_zone: Option<ZoneName>,
}

/// What is to change of volume caps.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct VolumeChange {
    /// Answered calls ever; `null` = no cap, 0 = no calls. So for the windows below.
    #[oai(validator(minimum(value = "0")), nullable)]
    total_calls_allowed: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    hourly_cap: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    daily_cap: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    weekly_cap: Clearable<i32>,
    #[oai(validator(minimum(value = "0")), nullable)]
    monthly_cap: Clearable<i32>,
    /// In which the windows start.
    #[oai(validator(max_length = 64))]
    time_zone: Given<ZoneName>,
}

/// Volume caps.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct Volume {
    /// Answered calls ever; `null` = no cap, 0 = no calls. So for the windows below.
    #[oai(nullable)]
    total_calls_allowed: Option<i32>,
    #[oai(nullable)]
    hourly_cap: Option<i32>,
    #[oai(nullable)]
    daily_cap: Option<i32>,
    #[oai(nullable)]
    weekly_cap: Option<i32>,
    #[oai(nullable)]
    monthly_cap: Option<i32>,
    /// In which the windows start.
    time_zone: String,
}

/// What is used of one cap; `used + held` never exceeds `limit`, unless it was
/// lowered below what was in use.
#[derive(Clone, Debug, PartialEq, Eq, Object)]
#[oai(rename_all = "camelCase")]
pub struct CapUse {
    /// Whose cap it is.
    scope: Word<ScopeKind>,
    /// `concurrency`, `total`, `hour`, `day`, `week` or `month`
    window: String,
    limit: u32,
    /// Answered calls in the window, or live calls.
    used: u32,
    /// Calls of which it isn't known yet whether they will be answered.
    held: u32,
    /// When the next window starts.
    #[oai(nullable)]
    resets_at: Option<Stamp>,
}

/// What is used of some scopes, all asked at once.
#[derive(Default)]
pub struct InUse(HashMap<Scope, (Usage, Vec<CapUse>)>);

impl InUse {
    /// Asks what is used of these rows' caps; of rows without caps, nothing is asked.
    ///
    /// # Errors
    /// When the ledger can't be asked.
    pub async fn ask<'a>(
        ledger: &dyn Ledger,
        rows: impl IntoIterator<Item = &'a dyn Capped>,
    ) -> Result<Self, Unavailable> {
        let now = clock::now();
        let mut capped: Vec<_> = rows.into_iter().map(|row| (row.scope(), row.caps())).collect();
        capped.retain(|(_, caps)| !caps.is_none());
        if capped.is_empty() {
            return Ok(Self::default());
        }
        let asked: Vec<_> =
            capped.iter().map(|(scope, caps)| (*scope, caps.windows(now))).collect();
        let usages = ledger.usages(&asked).await?;
        let entry = |((scope, caps), usage): ((Scope, Caps), Usage)| {
            let uses = uses(scope, &caps, &usage, now);
            (scope, (usage, uses))
        };
        Ok(Self(capped.into_iter().zip(usages).map(entry).collect()))
    }

    /// Every cap of these scopes that is set, in their order.
    pub fn of(&self, scopes: impl IntoIterator<Item = Scope>) -> Vec<CapUse> {
        let of_scope = |scope| self.0.get(&scope).map(|(_, uses)| uses.clone()).unwrap_or_default();
        scopes.into_iter().flat_map(of_scope).collect()
    }

    pub fn usage(&self, scope: Scope) -> Usage {
        self.0.get(&scope).map(|(usage, _)| usage.clone()).unwrap_or_default()
    }
}

fn uses(scope: Scope, caps: &Caps, usage: &Usage, now: Timestamp) -> Vec<CapUse> {
    let scope = Word(scope.kind);
    let concurrency = caps.concurrency.map(|limit| CapUse {
        scope,
        window: "concurrency".to_owned(),
        limit,
        used: usage.live,
        held: 0,
        resets_at: None,
    });
    let volume = WindowKind::ALL.into_iter().filter_map(|kind| {
        Some(CapUse {
            scope,
            window: kind.as_str().to_owned(),
            limit: caps.volume[kind.index()]?,
            used: usage.used[kind.index()],
            held: usage.held[kind.index()],
            resets_at: Window::at(kind, now, caps.zone).end.map(Stamp),
        })
    });
    concurrency.into_iter().chain(volume).collect()
}

impl NewVolume {
    pub fn fill(self, row: &mut impl VolumeColumns) {
        *row.volume_mut(WindowKind::Total) = Set(self.total_calls_allowed);
        *row.volume_mut(WindowKind::Hour) = Set(self.hourly_cap);
        *row.volume_mut(WindowKind::Day) = Set(self.daily_cap);
        *row.volume_mut(WindowKind::Week) = Set(self.weekly_cap);
        *row.volume_mut(WindowKind::Month) = Set(self.monthly_cap);
        *row.zone_mut() = Set(self.time_zone.map_or_else(|| "UTC".to_owned(), Into::into));
    }
}

impl VolumeChange {
    /// The fields that are to be set.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        let [_, volume @ ..] = FIELDS;
        let given = [
            self.total_calls_allowed.is_value(),
            self.hourly_cap.is_value(),
            self.daily_cap.is_value(),
            self.weekly_cap.is_value(),
            self.monthly_cap.is_value(),
            self.time_zone.is_some(),
        ];
        volume.into_iter().zip(given).filter_map(|(field, given)| given.then_some(field))
    }

    pub fn apply(self, row: &mut impl VolumeColumns) {
        patch_clearable(self.total_calls_allowed, row.volume_mut(WindowKind::Total));
        patch_clearable(self.hourly_cap, row.volume_mut(WindowKind::Hour));
        patch_clearable(self.daily_cap, row.volume_mut(WindowKind::Day));
        patch_clearable(self.weekly_cap, row.volume_mut(WindowKind::Week));
        patch_clearable(self.monthly_cap, row.volume_mut(WindowKind::Month));
        patch(self.time_zone, row.zone_mut());
    }
}

/// The fields of caps in a request.
pub const FIELDS: [&str; 7] = [
    "maxConcurrency",
    "totalCallsAllowed",
    "hourlyCap",
    "dailyCap",
    "weeklyCap",
    "monthlyCap",
    "timeZone",
];

/// No volume caps, for what can't have any.
pub fn clear(row: &mut impl VolumeColumns) {
    for kind in WindowKind::ALL {
        *row.volume_mut(kind) = Set(None);
    }
    *row.zone_mut() = Set("UTC".to_owned());
}

impl<R: Capped> From<&R> for Volume {
    fn from(row: &R) -> Self {
        Self {
            total_calls_allowed: row.volume(WindowKind::Total),
            hourly_cap: row.volume(WindowKind::Hour),
            daily_cap: row.volume(WindowKind::Day),
            weekly_cap: row.volume(WindowKind::Week),
            monthly_cap: row.volume(WindowKind::Month),
            time_zone: row.zone().to_owned(),
        }
    }
}
