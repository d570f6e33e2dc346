//! Past calls, decided anew.
//!
//! A call's record holds all that its decision was made of: the number, the random
//! seed or the place of the rotation, and the counts that were compared. So the
//! decision can be made again ([`again`]) by the very code that leads live calls:
//! [`crate::routing::plan`], the call's machine, and the ledger, filled with what
//! was in use at that moment ([`in_use`]). What comes out differently is explained
//! by [`differences`] between the configuration of today and that of the record.
//!
//! Many calls can be led once more ([`world`]), by the configuration as it is and by a
//! changed one, with clients who behave as they did ([`people`]): what if?
//!
//! Everything here is pure: records and a snapshot go in. The store reads them.

pub mod again;
pub mod differences;
pub mod in_use;
pub mod people;
pub mod tally;
pub mod world;

pub use again::{Again, Choice, Parting, decide_again};
pub use differences::{Difference, differences};
pub use in_use::InUse;
pub use people::People;
pub use tally::{Counts, Fate, Tally};
pub use world::Played;

use std::sync::Arc;

use capconduit_entity::E164;

use crate::call::CallRecord;
use crate::ids::CallId;
use crate::routing::{Campaign, Snapshot};

/// The campaign that a configuration would give the call to.
pub fn campaign_of(record: &CallRecord, snapshot: &Snapshot) -> Option<Arc<Campaign>> {
    let number = E164::from_dialled(&record.dialled)?;
    snapshot.did(&number)?.campaign.clone()
}

/// What a random order is drawn from, for a call whose order wasn't: the same each time.
pub fn seed_of(call: CallId) -> u32 {
    let (high, low) = call.0.as_u64_pair();
    let mixed = high ^ low.rotate_left(17);
    u32::try_from((mixed ^ (mixed >> 32)) & u64::from(u32::MAX)).unwrap_or_default()
}

/// The same calls three times: as they were, and by two configurations.
#[derive(Clone, Debug)]
pub struct WhatIf {
    pub calls: usize,
    /// Those of which the replay by the configuration as it is gave what the record says.
    pub as_recorded: usize,
    /// Those of which the changed configuration makes something else than the one as it is.
    pub changed: usize,
    pub recorded: Tally,
    pub current: Tally,
    pub patched: Tally,
    /// How much of the changed one is known.
    pub played: Played,
}

/// Leads past calls, in order of their start, by the configuration as it is and by a changed one.
pub fn what_if(
    records: &[CallRecord],
    current: &Snapshot,
    patched: &Snapshot,
    in_use: &InUse,
) -> WhatIf {
    let people = People::met_in(records);
    let led_by = |snapshot| {
        let (mut tally, mut fates) = (Tally::default(), vec![None; records.len()]);
        let mut over = |place: usize, record: &CallRecord| {
            tally.add(record);
            fates[place] = Fate::of(record);
        };
        let played = world::play(records, snapshot, in_use, &people, &mut over);
        (tally, fates, played)
    };
    let (current, as_it_is, _) = led_by(current);
    let (patched, as_changed, played) = led_by(patched);
    let mut recorded = Tally::default();
    for record in records {
        recorded.add(record);
    }
    let then = records.iter().map(Fate::of);
    let as_recorded = then.zip(&as_it_is).filter(|(then, now)| then == *now).count();
    let changed = as_it_is.iter().zip(&as_changed).filter(|(a, b)| a != b).count();
    let calls = records.len();
    WhatIf { calls, as_recorded, changed, recorded, current, patched, played }
}
