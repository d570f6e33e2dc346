//! Who asks for what: candidates with four scopes each, all of them with caps.

use std::fmt::{self, Display};

use capconduit::capacity::{
    Candidate, Claim, Ledger, Scope, ScopeKind, Stage, Standing, WindowKind, Windows,
};
use capconduit::clock;
use capconduit::ids::LinkId;

use crate::measure::next_hold;

pub struct Scene {
    pub candidates: Vec<Candidate>,
    /// All but the last link are full; else the first has room.
    is_full: bool,
}

/// Calls of others that are up all the time.
pub const OTHERS: usize = 100_000;
const OTHER_LINKS: i64 = 1_000;
/// Never reached here.
const PLENTY: u32 = 1_000_000_000;
const CAPPED: [WindowKind; 3] = [WindowKind::Hour, WindowKind::Day, WindowKind::Month];

impl Scene {
    /// 1, 8 and 32 candidates, with room at the first and at the last.
    pub fn all() -> impl Iterator<Item = Self> {
        [1, 8, 32].into_iter().flat_map(|count| {
            let of_last = (count > 1).then(|| Self::new(count, true));
            [Some(Self::new(count, false)), of_last].into_iter().flatten()
        })
    }

    fn new(count: i64, is_full: bool) -> Self {
        let first = if is_full { 2_000 } else { 1_000 } + 100 * count;
        let candidate = |place| candidate(first + place, is_full && place + 1 < count);
        Self { candidates: (0..count).map(candidate).collect(), is_full }
    }

    /// Fills what is to be full.
    pub async fn prepare(&self, ledger: &dyn Ledger) {
        let (_, full) = self.candidates.split_last().expect("candidates");
        if self.is_full {
            let calls = full.iter().map(talking).collect::<Vec<_>>();
            ledger.advance(&calls).await.unwrap();
        }
    }
}

impl Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let room = if self.is_full { "last" } else { "first" };
        write!(f, "{:>10} {room:>5}", self.candidates.len())
    }
}

/// Puts the other calls up.
pub async fn crowd(ledger: &dyn Ledger) {
    let others: Vec<_> = (0..OTHERS)
        .map(|place| {
            let link = i64::try_from(place).unwrap() % OTHER_LINKS;
            talking(&candidate(10_000 + link, false))
        })
        .collect();
    for some in others.chunks(100) {
        ledger.advance(some).await.unwrap();
    }
}

fn talking(candidate: &Candidate) -> Standing {
    Standing::held(next_hold(), candidate).unwrap().with(Stage::Used)
}

/// A link of one of many clients, in one campaign of one seller.
fn candidate(link: i64, is_full: bool) -> Candidate {
    // Looked at last, when everything else had room.
    let of_link = if is_full { 1 } else { PLENTY };
    let scopes = [
        (ScopeKind::Link, link, of_link),
        (ScopeKind::Client, link / 2, PLENTY),
        (ScopeKind::Campaign, 1, PLENTY),
        (ScopeKind::Seller, 1, PLENTY),
    ];
    let windows = Windows::at(clock::now(), chrono_tz::America::New_York);
    let claims = scopes.map(|(kind, id, concurrency)| {
        let mut volume = [None; WindowKind::COUNT];
        for window in CAPPED {
            volume[window.index()] = Some(PLENTY);
        }
        Claim { scope: Scope { kind, id }, concurrency: Some(concurrency), volume, windows }
    });
    Candidate { link: LinkId(link), claims: claims.into() }
}
