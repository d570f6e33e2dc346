//! A simulated switch, and the real exchange on it.
//!
//! [`asterisk`] is a model of what Asterisk does with channels, bridges, commands and
//! events, checked against traces of a real one ([`traces`]). Callers and clients
//! ([`people`]) act on it at random, most of all at the wrong moment. The real exchange
//! (registry, machines, ledger, journal) runs on it in simulated time, while answers are
//! lost, events are lost, doubled and late, the socket breaks, Asterisk hangs and
//! crashes, the database is away, and the service itself is killed at any step, or asked
//! to end, and started again. After every step [`checks`] looks whether a promise was
//! broken, and at the end whether every record says what became of its caller ([`story`])
//! and of the clients who were dialled ([`legs`]). Some episodes are calm: people do what
//! they do, and nothing else goes wrong. In these nothing is left for an audit to mend.
//!
//! Everything random comes from one seed, so an episode that fails can be replayed:
//!
//! ```sh
//! CAPCONDUIT_SIMULATE=1234 cargo test --lib simulation -- --nocapture
//! ```
//!
//! CAPCONDUIT_SIMULATE_FROM=100000 and CAPCONDUIT_SIMULATE_EPISODES=20000 play others
//! than `make test` does.

mod asterisk;
mod checks;
mod episode;
mod legs;
mod panics;
mod people;
mod report;
mod story;
mod town;
mod traces;
mod vault;

use std::ops::Range;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};

use episode::Episode;
use report::Report;

/// Episodes per `make test`, of some 39 calls each.
const EPISODES: u64 = 2_650;
const CALLS_LEAST: u64 = 100_000;
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Plays these episodes, a few at a time, until a promise is broken.
fn play(seeds: Range<u64>) -> Report {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut sum = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return sum;
            }
            sum.add(&play_one(seed));
        }
    };
    let mut sum = Report::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread.join() {
                Ok(report) => sum.add(&report),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    sum
}

/// Whatever goes wrong in it, its seed is told.
fn play_one(seed: u64) -> Report {
    let again = format!("see it again with CAPCONDUIT_SIMULATE={seed}");
    match panic::catch_unwind(|| Episode::new(seed).run()) {
        Ok(Report { broken: Some(broken), .. }) => panic!("{broken}\n{again}"),
        Ok(report) => report,
        Err(panicked) => {
            eprintln!("{again}");
            panic::resume_unwind(panicked)
        }
    }
}

#[test]
fn whatever_happens_every_call_ends_once_and_no_cap_is_exceeded() {
    if let Some(seed) = number("CAPCONDUIT_SIMULATE") {
        let report = Episode::new(seed).told().run();
        assert_eq!(report.broken, None, "seed {seed}");
        return;
    }
    let first = number("CAPCONDUIT_SIMULATE_FROM").unwrap_or(1);
    let wanted = number("CAPCONDUIT_SIMULATE_EPISODES");
    let sum = play(first..first + wanted.unwrap_or(EPISODES));
    println!("{sum}");
    if wanted.is_none() {
        assert!(sum.calls >= CALLS_LEAST, "{sum}");
        // A world in which nothing happens would prove nothing.
        sum.assert_eventful();
    }
}

#[test]
fn an_episode_can_be_replayed() {
    let (first, second) = (Episode::new(7).run(), Episode::new(7).run());
    assert_eq!(first, second);
    assert_ne!(first.digest, Episode::new(8).run().digest);
}
