//! What one instance may hold by itself while the shared ledger is away.
//!
//! Nobody can be asked then, so the room is divided once and for all: what the
//! records say was used is taken off each limit, and the rest is divided by the
//! number of instances, rounded down. Whatever this instance holds, or has used
//! without the records telling of it, counts first within its own share. Other
//! instances do the same with what is theirs; nobody counts for anybody else.
//!
//! When the ledger is back, it is told of these holds as of any other. Until
//! every instance had the time to do so, nothing new is asked of it
//! ([`SETTLING`]): its counts would be too low.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::account::Account;
use super::memory::State;
use super::recount::{GRACE, Known, Truth};
use super::{
    Book, Candidate, Claim, Correction, Leases, Request, Scope, Slot, Stage, Standing, Unavailable,
    Verdict, WindowKind,
};
use crate::ids::{CampaignId, LinkId};

/// This instance's share, and whether it is what counts now.
pub struct Share {
    instances: u32,
    truth: Arc<dyn Truth>,
    phase: Mutex<Phase>,
}

/// How long the ledger is left alone after it is back: others need as long, at
/// most, to find it again and to say what they hold.
pub const SETTLING: Duration = GRACE;
/// How long the records are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is asked for room.
enum Phase {
    /// The shared ledger, from this instant on.
    Shared(Instant),
    /// Nobody, until the records have said what is used.
    Away,
    /// This instance alone.
    Alone(Box<Room>),
}

/// What the records say at the beginning of an outage.
pub(super) struct Said {
    known: Known,
    cursors: Vec<(CampaignId, LinkId)>,
}

/// What is used, and what this instance holds.
struct Room {
    /// Calls that others led, and older ones of this instance.
    used: HashMap<Scope, Account>,
    own: State,
    since: Instant,
}

// === impl Share ===

impl Share {
    /// The share of one of so many `instances`; `truth` says what is used.
    pub fn new(instances: u32, truth: Arc<dyn Truth>) -> Self {
        // Until the ledger is seen for the first time, it is away.
        Self { instances: instances.max(1), truth, phase: Mutex::new(Phase::Away) }
    }

    /// When the shared ledger may be asked; none while it is away.
    pub(super) fn shared_from(&self) -> Option<Instant> {
        match *self.phase.lock() {
            Phase::Shared(from) => Some(from),
            Phase::Away | Phase::Alone(_) => None,
        }
    }

    /// The ledger is away.
    pub(super) fn begin(&self) {
        let mut phase = self.phase.lock();
        if let Phase::Shared(_) = *phase {
            *phase = Phase::Away;
        }
    }

    /// The ledger is back. What instances held meanwhile isn't known to it yet.
    pub(super) fn end(&self) {
        let mut phase = self.phase.lock();
        if !matches!(*phase, Phase::Shared(_)) {
            info!("the shared ledger is asked for room again");
            *phase = Phase::Shared(Instant::now() + SETTLING);
        }
    }

    /// Whether the ledger is away and it isn't known yet what is used.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Away)
    }

    /// Reads what is used; `own` is what this instance holds.
    pub(super) async fn read(&self, own: &[Standing]) -> anyhow::Result<Said> {
        let settled = own.iter().filter(|standing| is_settled(standing.stage));
        let calls: Vec<_> = settled.map(|standing| standing.hold.call).collect();
        let read = async {
            let known = self.truth.known(&calls).await?;
            Ok(Said { known, cursors: self.truth.cursors().await? })
        };
        tokio::time::timeout(PATIENCE, read).await?
    }

    /// Lets calls be held. `own` is what this instance holds now; what changes of
    /// that from now on has to be noted.
    pub(super) fn open(&self, said: &Said, own: &[Standing]) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Away) {
            warn!(instances = self.instances, "new calls are held against this instance's share");
            *phase = Phase::Alone(Box::new(Room::new(said, own)));
        }
    }

    /// As [`super::Ledger::reserve`], within this instance's share. What is refused
    /// is refused with the limits that were compared: this instance's parts.
    ///
    /// # Errors
    /// When it isn't known what is used, or the ledger is back.
    pub(super) fn reserve(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.ask(|room| room.reserve(request, self.instances))
    }

    /// What [`Share::reserve`] would answer now.
    ///
    /// # Errors
    /// As for [`Share::reserve`].
    pub(super) fn preview(&self, request: &Request) -> Result<Verdict, Unavailable> {
        self.ask(|room| room.preview(request, self.instances))
    }

    fn ask(&self, answer: impl FnOnce(&mut Room) -> Verdict) -> Result<Verdict, Unavailable> {
        let unavailable = |reason: &str| Err(Unavailable { reason: reason.to_owned() });
        match &mut *self.phase.lock() {
            Phase::Alone(room) => Ok(Verdict { within_share: true, ..answer(room) }),
            Phase::Away => unavailable("it is away, and the records aren't read yet"),
            Phase::Shared(_) => unavailable("it was away a moment ago"),
        }
    }

    /// Takes note of how far a hold of this instance has come.
    pub(super) fn note(&self, standing: &Standing) {
        if let Phase::Alone(room) = &mut *self.phase.lock() {
            room.note(standing);
        }
    }
}

const fn is_settled(stage: Stage) -> bool {
    matches!(stage, Stage::Used | Stage::Counted | Stage::Recorded)
}

// === impl Room ===

/// Its holder lives: nothing lapses.
const LEASES: Leases =
    Leases { held: Duration::MAX, used: Duration::MAX, closed: Duration::from_secs(600) };

impl Room {
    fn new(said: &Said, own: &[Standing]) -> Self {
        let mut used: HashMap<Scope, Account> = HashMap::new();
        for answered in &said.known.answered {
            used.entry(answered.scope).or_default().correct(&all_of(answered));
        }
        let mut room = Self { used, own: State::new(LEASES), since: Instant::now() };
        for (campaign, link) in &said.cursors {
            room.own.set_cursor(*campaign, *link);
        }
        for standing in own {
            // A call that the records tell of and that is known here counts here alone:
            // another instance may have read them before it was there.
            let recorded = said.known.recorded.get(&standing.hold.call).copied().flatten();
            let is_recorded =
                recorded.is_some_and(|link| standing.scopes.contains(&Scope::link(link)));
            if is_settled(standing.stage) && is_recorded {
                for scope in &standing.scopes {
                    let less = Correction {
                        scope: *scope,
                        total: -1,
                        slots: vec![(Slot::of(standing.moment), -1)],
                    };
                    room.used.entry(*scope).or_default().correct(&less);
                }
            }
            let stage = standing.stage;
            let counted = if stage == Stage::Recorded { Stage::Counted } else { stage };
            room.note(&standing.clone().with(counted));
        }
        room
    }

    fn reserve(&mut self, request: &Request, instances: u32) -> Verdict {
        let request = self.parts(request, instances);
        let now = self.now();
        self.own.reserve(&request, now)
    }

    fn preview(&mut self, request: &Request, instances: u32) -> Verdict {
        let request = self.parts(request, instances);
        let now = self.now();
        self.own.preview(&request, now)
    }

    fn note(&mut self, standing: &Standing) {
        let now = self.now();
        self.own.advance(standing, now);
    }

    fn now(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The same request, each candidate within this instance's parts.
    fn parts(&mut self, request: &Request, instances: u32) -> Request {
        let candidates = request.candidates.iter();
        let candidates = candidates.map(|candidate| self.part(candidate, instances)).collect();
        Request { hold: request.hold, candidates, turn: request.turn }
    }

    /// The same candidate under the limits that are this instance's parts.
    fn part(&mut self, candidate: &Candidate, instances: u32) -> Candidate {
        let claims = candidate.claims.iter().map(|claim| {
            let mut account = self.used.get_mut(&claim.scope);
            let mut volume = claim.volume;
            for kind in WindowKind::ALL {
                let account = account.as_deref_mut();
                let used = account.map_or(0, |account| account.count(kind, &claim.windows).used);
                let limit = &mut volume[kind.index()];
                *limit = limit.map(|limit| limit.saturating_sub(used) / instances);
            }
            let concurrency = claim.concurrency.map(|limit| limit / instances);
            Claim { scope: claim.scope, concurrency, volume, windows: claim.windows }
        });
        Candidate { link: candidate.link, claims: claims.collect() }
    }
}

fn all_of(answered: &Book) -> Correction {
    let slots = answered.slots.iter().map(|&(slot, calls)| (slot, i64::from(calls))).collect();
    Correction { scope: answered.scope, total: i64::from(answered.total), slots }
}
