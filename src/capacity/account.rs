//! What is in use of one scope, counted by quarters of an hour.
//!
//! Every window of every time zone is made of whole quarters. So the counts
//! don't depend on a zone, and a scope may change its zone at any time. What a
//! window holds is summed up once, when it is first asked for, and kept by the
//! instant at which it starts: another start is another window.
//!
//! The Lua scripts of the other store do the same, step by step.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::{Book, Correction, Scope, Slot, Stage, WindowKind, Windows};

/// Slots that are so much older than the newest are in no window of a call: a month, and as
/// far back as a clock or a time zone may be set.
const SLOTS_KEPT: i32 = 76 * Slot::PER_DAY;

/// What is in use of one scope.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Calls whose client's leg is up.
    pub(super) live: u32,
    /// Answered calls of all time.
    total: u32,
    used: BTreeMap<Slot, u32>,
    newest: Option<Slot>,
    /// Calls of which it isn't known yet whether they will be answered: seldom more than two slots.
    open: Vec<(Slot, u32)>,
    /// What is used since a window's start; the windows asked for last. Total has none.
    since: [Cell<Option<(Slot, u32)>>; WindowKind::COUNT],
}

/// What is in use of one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) used: u32,
    pub(super) held: u32,
}

/// What one step of a hold changes in each of its accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) live: i32,
    pub(super) open: i32,
    pub(super) used: u32,
}

/// A hold as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Held,
    Used,
    /// It was used, but nobody spoke for it for too long: its concurrency is free.
    Lapsed,
    Counted,
    /// Nothing is left. Remembered for a while, so that what comes late finds it.
    Closed,
}

/// How a hold goes on when its call says that it is at `stage`.
pub(super) const fn step(kept: Option<Kept>, stage: Stage) -> (Kept, Step) {
    use Kept::{Closed, Counted, Held, Lapsed, Used};
    const fn change(kept: Kept, live: i32, open: i32, used: u32) -> (Kept, Step) {
        (kept, Step { live, open, used })
    }
    match (kept, stage) {
        (None, Stage::Held) => change(Held, 1, 1, 0),
        (None, Stage::Used) => change(Used, 1, 0, 1),
        (None, Stage::Counted) => change(Counted, 0, 0, 1),
        // Counted before, or known from the records.
        (None, Stage::Returned | Stage::Recorded) => change(Closed, 0, 0, 0),
        (Some(Held), Stage::Held) => change(Held, 0, 0, 0),
        (Some(Held), Stage::Used) => change(Used, 0, -1, 1),
        (Some(Held), Stage::Counted) => change(Counted, -1, -1, 1),
        (Some(Held), Stage::Returned) => change(Closed, -1, -1, 0),
        (Some(Held), Stage::Recorded) => change(Closed, -1, -1, 1),
        (Some(Used), Stage::Held | Stage::Used) => change(Used, 0, 0, 0),
        (Some(Used), Stage::Counted) => change(Counted, -1, 0, 0),
        (Some(Used), Stage::Returned | Stage::Recorded) => change(Closed, -1, 0, 0),
        (Some(Lapsed), Stage::Held) => change(Lapsed, 0, 0, 0),
        (Some(Lapsed), Stage::Used) => change(Used, 1, 0, 0),
        (Some(Lapsed), Stage::Counted) => change(Counted, 0, 0, 0),
        (Some(Counted), Stage::Held | Stage::Used | Stage::Counted) => change(Counted, 0, 0, 0),
        (Some(Lapsed | Counted), Stage::Returned | Stage::Recorded) | (Some(Closed), _) => {
            change(Closed, 0, 0, 0)
        }
    }
}

/// How a hold goes on when nobody has spoken for it for the time of its lease;
/// nothing is left of one that is forgotten.
pub(super) const fn lapse(kept: Kept) -> (Option<Kept>, Step) {
    match kept {
        Kept::Held => (None, Step { live: -1, open: -1, used: 0 }),
        Kept::Used => (Some(Kept::Lapsed), Step { live: -1, open: 0, used: 0 }),
        Kept::Counted => (Some(Kept::Lapsed), Step { live: 0, open: 0, used: 0 }),
        Kept::Lapsed | Kept::Closed => (None, Step { live: 0, open: 0, used: 0 }),
    }
}

// === impl Account ===

impl Account {
    /// Takes one step of a hold that was taken in `slot`.
    pub(super) fn take(&mut self, slot: Slot, step: Step) {
        self.live = self.live.saturating_add_signed(step.live);
        match step.open {
            0 => {}
            more if more > 0 => self.add_open(slot),
            _ => self.remove_open(slot),
        }
        if step.used > 0 {
            self.forget_before(slot);
            self.add_used(slot, i64::from(step.used));
            self.total = self.total.saturating_add(step.used);
        }
    }

    /// What is in use of a window; of one that is over, what was used since its start.
    pub(super) fn count(&self, kind: WindowKind, windows: &Windows) -> Count {
        let start = Slot::of(windows.start(kind));
        let held = self.open.iter().filter(|(slot, _)| *slot >= start).map(|(_, n)| n).sum();
        let place = &self.since[kind.index()];
        let used = match place.get() {
            _ if kind == WindowKind::Total => self.total,
            Some((known, used)) if known == start => used,
            _ => {
                let used = self.used.range(start..).map(|(_, calls)| calls).sum();
                place.set(Some((start, used)));
                used
            }
        };
        Count { used, held }
    }

    pub(super) fn book(&self, scope: Scope) -> Book {
        let slots = self.used.iter().map(|(slot, calls)| (*slot, *calls)).collect();
        Book { scope, total: self.total, slots }
    }

    pub(super) fn correct(&mut self, correction: &Correction) {
        let total = i64::from(self.total) + correction.total;
        self.total = u32::try_from(total.max(0)).unwrap_or(u32::MAX);
        for (slot, calls) in &correction.slots {
            self.add_used(*slot, *calls);
        }
    }

    fn add_used(&mut self, slot: Slot, calls: i64) {
        let before = self.used.get(&slot).copied().unwrap_or_default();
        let after = u32::try_from((i64::from(before) + calls).max(0)).unwrap_or(u32::MAX);
        if after == 0 {
            self.used.remove(&slot);
        } else {
            self.used.insert(slot, after);
        }
        self.newest = self.newest.max(Some(slot));
        for (start, used) in self.since.iter_mut().filter_map(|place| place.get_mut().as_mut()) {
            if slot >= *start {
                *used = used.saturating_sub(before).saturating_add(after);
            }
        }
    }

    /// Once a day, with the first call that is used in it.
    fn forget_before(&mut self, slot: Slot) {
        let day = |slot: Slot| slot.0.div_euclid(Slot::PER_DAY);
        if self.newest.is_some_and(|newest| day(newest) < day(slot)) {
            self.used = self.used.split_off(&Slot(slot.0.saturating_sub(SLOTS_KEPT)));
        }
    }

    fn add_open(&mut self, slot: Slot) {
        match self.open.iter_mut().find(|(known, _)| *known == slot) {
            Some((_, calls)) => *calls += 1,
            None => self.open.push((slot, 1)),
        }
    }

    fn remove_open(&mut self, slot: Slot) {
        if let Some(place) = self.open.iter().position(|(known, _)| *known == slot) {
            self.open[place].1 -= 1;
            if self.open[place].1 == 0 {
                self.open.swap_remove(place);
            }
        }
    }
}
