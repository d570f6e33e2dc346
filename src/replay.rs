//! Past calls, decided anew.
//!
//! A call's record holds all that its decision was made of: the number, the random
//! seed or the place of the rotation, and the counts that were compared. So the
//! decision can be made again ([`again`]) by the very code that leads live calls:
//! [`crate::routing::plan`], the call's machine, and the ledger, filled with what
//! was in use at that moment ([`in_use`]). What comes out differently is explained
//! by [`differences`] between the configuration of today and that of the record.
//!
//! Everything here is pure: records and a snapshot go in. The store reads them.

pub mod again;
pub mod differences;
pub mod in_use;

pub use again::{Again, Choice, Parting, decide_again};
pub use differences::{Difference, differences};
pub use in_use::InUse;

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
