//! The ledger as anyone would write it down: lists, and counting them out each time.

use capconduit::capacity::{
    Candidate, Cap, HoldId, Refusal, Request, Scope, Stage, Standing, Turn, Usage, Verdict,
    WindowKind, Windows,
};
use capconduit::clock::Timestamp;
use capconduit::ids::{CampaignId, LinkId};

#[derive(Debug, Default)]
pub struct Naive {
    holds: Vec<Hold>,
    /// One entry per answered call and scope.
    used: Vec<(Scope, Timestamp)>,
    cursors: Vec<(CampaignId, LinkId)>,
    pub now: i64,
}

#[derive(Debug)]
struct Hold {
    id: HoldId,
    moment: Timestamp,
    scopes: Vec<Scope>,
    verdict: Option<Verdict>,
    settled: bool,
    live: bool,
    closed: bool,
    /// The owner said that the leg is gone.
    left: bool,
    until: i64,
}

const MINUTE: i64 = 60_000;
const HELD: i64 = 15 * MINUTE;
const USED: i64 = 240 * MINUTE;
const CLOSED: i64 = 10 * MINUTE;
const LAPSED: i64 = 7 * 24 * 60 * MINUTE;

impl Naive {
    pub fn new(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    pub fn reserve(&mut self, request: &Request) -> Verdict {
        self.let_go();
        let now = self.now;
        if let Some(hold) = self.holds.iter_mut().find(|hold| hold.id == request.hold) {
            if hold.closed {
                return nothing();
            }
            if !hold.settled {
                hold.until = now + HELD;
            }
            return hold.verdict.clone().unwrap_or_else(|| Verdict {
                granted: Some(LinkId(hold.scopes[0].id)),
                ..nothing()
            });
        }
        let verdict = self.decide(request);
        let granted = request.candidates.iter().find(|c| Some(c.link) == verdict.granted);
        if let Some(candidate) = granted {
            let standing = Standing::held(request.hold, candidate).unwrap();
            self.holds.push(Hold { verdict: Some(verdict.clone()), ..self.fresh(&standing) });
            if let Turn::Rotate(campaign) | Turn::Advance(campaign) = request.turn {
                self.cursors.retain(|(known, _)| *known != campaign);
                self.cursors.push((campaign, candidate.link));
            }
        }
        verdict
    }

    fn decide(&self, request: &Request) -> Verdict {
        let mut verdict = nothing();
        let mut candidates: Vec<&Candidate> = request.candidates.iter().collect();
        if let Turn::Rotate(campaign) = request.turn
            && let Some((_, cursor)) = self.cursors.iter().find(|(known, _)| *known == campaign)
        {
            verdict.cursor = Some(*cursor);
            let passed = candidates.iter().filter(|c| c.link <= *cursor).count();
            verdict.rotated_by = passed % candidates.len();
            candidates.rotate_left(verdict.rotated_by);
        }
        for candidate in candidates {
            match self.refusal(candidate) {
                Some(refusal) => verdict.refusals.push(refusal),
                None => {
                    verdict.granted = Some(candidate.link);
                    return verdict;
                }
            }
        }
        verdict
    }

    fn refusal(&self, candidate: &Candidate) -> Option<Refusal> {
        let refuse = |scope, cap, used, held, limit| Refusal {
            link: candidate.link,
            scope,
            cap,
            used,
            held,
            limit,
        };
        for claim in &candidate.claims {
            let usage = self.usage(claim.scope, &claim.windows);
            for kind in WindowKind::ALL {
                let (used, held) = (usage.used[kind.index()], usage.held[kind.index()]);
                if let Some(limit) = claim.volume[kind.index()]
                    && used + held >= limit
                {
                    return Some(refuse(claim.scope, Cap::Volume(kind), used, held, limit));
                }
            }
        }
        for claim in &candidate.claims {
            let live = self.usage(claim.scope, &claim.windows).live;
            if let Some(limit) = claim.concurrency
                && live >= limit
            {
                return Some(refuse(claim.scope, Cap::Concurrency, live, 0, limit));
            }
        }
        None
    }

    pub fn advance(&mut self, standing: &Standing) {
        self.let_go();
        if !self.holds.iter().any(|hold| hold.id == standing.hold) {
            let over = standing.stage >= Stage::Returned;
            let mut hold = self.fresh(standing);
            // It takes nothing before it is known how far it has come.
            hold.live = false;
            hold.closed = over;
            hold.until = self.now + CLOSED;
            self.holds.push(hold);
            if over {
                return;
            }
        }
        let now = self.now;
        let hold = self.holds.iter_mut().find(|hold| hold.id == standing.hold).unwrap();
        if hold.closed {
            return;
        }
        let settles = match standing.stage {
            Stage::Held | Stage::Returned => false,
            Stage::Used | Stage::Counted | Stage::Recorded => !hold.settled,
        };
        if settles {
            hold.settled = true;
            self.used.extend(hold.scopes.iter().map(|scope| (*scope, hold.moment)));
        }
        match standing.stage {
            Stage::Held if hold.settled => {}
            Stage::Held | Stage::Used => hold.live = !hold.left,
            Stage::Counted => (hold.live, hold.left) = (false, true),
            Stage::Returned | Stage::Recorded => (hold.live, hold.closed) = (false, true),
        }
        hold.until = now
            + match (hold.closed, hold.settled, hold.live || hold.left) {
                (true, _, _) => CLOSED,
                (false, false, _) => HELD,
                (false, true, true) => USED,
                (false, true, false) => LAPSED,
            };
    }

    /// Whether a hold of this name was taken, or said to be closed.
    pub fn knows(&mut self, id: HoldId) -> bool {
        self.let_go();
        self.holds.iter().any(|hold| hold.id == id)
    }

    pub fn usage(&self, scope: Scope, windows: &Windows) -> Usage {
        let of_scope = |hold: &&Hold| hold.scopes.contains(&scope);
        let held = |hold: &&Hold| !hold.settled && !hold.closed;
        let count = |n: usize| u32::try_from(n).unwrap();
        Usage {
            live: count(self.holds.iter().filter(of_scope).filter(|hold| hold.live).count()),
            used: WindowKind::ALL.map(|kind| {
                let inside =
                    |moment: Timestamp| kind == WindowKind::Total || moment >= windows.start(kind);
                count(self.used.iter().filter(|(s, at)| *s == scope && inside(*at)).count())
            }),
            held: WindowKind::ALL.map(|kind| {
                let inside = |hold: &&Hold| hold.moment >= windows.start(kind);
                count(self.holds.iter().filter(of_scope).filter(held).filter(inside).count())
            }),
        }
    }

    /// Forgets what nobody has spoken of for too long.
    pub fn let_go(&mut self) {
        let now = self.now;
        for hold in &mut self.holds {
            if hold.until <= now && hold.settled && !hold.closed && (hold.live || hold.left) {
                (hold.live, hold.left) = (false, false);
                hold.until = now + LAPSED;
            }
        }
        self.holds.retain(|hold| hold.until > now);
    }

    fn fresh(&self, standing: &Standing) -> Hold {
        Hold {
            id: standing.hold,
            moment: standing.moment,
            scopes: standing.scopes.clone(),
            verdict: None,
            settled: false,
            live: true,
            closed: false,
            left: false,
            until: self.now + HELD,
        }
    }
}

const fn nothing() -> Verdict {
    let refusals = Vec::new();
    Verdict { rotated_by: 0, cursor: None, refusals, granted: None, within_share: false }
}
