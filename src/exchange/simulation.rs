//! A simulated switch, and the real exchange on it.
//!
//! [`asterisk`] is a model of what Asterisk does with channels, bridges, commands and
//! events, checked against traces of a real one ([`traces`]). Callers and clients
//! ([`people`]) act on it at random, most of all at the wrong moment. The real exchange
//! (registry, machines, ledger, journal) runs on it in simulated time, while answers are
//! lost, events are lost, doubled and late, the socket breaks, Asterisk hangs and
//! crashes, the database is away, and the service itself is killed at any step and
//! started again. After every step [`checks`] looks whether a promise was broken.
//!
//! Everything random comes from one seed, so an episode that fails can be replayed:
//!
//! ```sh
//! CAPCONDUIT_SIMULATE=1234 cargo test --lib simulation -- --nocapture
//! ```

mod asterisk;
mod checks;
mod episode;
mod people;
mod town;
mod traces;
mod vault;

use std::sync::atomic::{AtomicU64, Ordering};

use episode::{Episode, Report};

/// Calls per `make test`, at least.
const CALLS: u64 = 100_000;
const THREADS: usize = 2;

/// The episodes' seeds begin here: elsewhere by CAPCONDUIT_SIMULATE_FROM.
fn first_seed() -> u64 {
    number("CAPCONDUIT_SIMULATE_FROM").unwrap_or(1)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_happens_every_call_ends_once_and_no_cap_is_exceeded() {
    if let Some(seed) = number("CAPCONDUIT_SIMULATE") {
        let report = Episode::new(seed).told().run();
        assert_eq!(report.broken, None, "seed {seed}");
        return;
    }
    let wanted = number("CAPCONDUIT_SIMULATE_CALLS").unwrap_or(CALLS);
    let (next, calls) = (AtomicU64::new(first_seed()), AtomicU64::new(0));
    let work = || {
        let mut sum = Report::default();
        while calls.load(Ordering::Relaxed) < wanted {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let report = Episode::new(seed).run();
            if let Some(broken) = &report.broken {
                panic!("{broken}\nsee it again with CAPCONDUIT_SIMULATE={seed}");
            }
            calls.fetch_add(report.calls, Ordering::Relaxed);
            sum.add(&report);
        }
        sum
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
    println!("{sum}");
    // A world in which nothing happens would prove nothing.
    sum.assert_eventful();
}

#[test]
fn an_episode_can_be_replayed() {
    let (first, second) = (Episode::new(7).run(), Episode::new(7).run());
    assert_eq!(first, second);
    assert_ne!(first.digest, Episode::new(8).run().digest);
}
