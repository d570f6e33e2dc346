//! When to connect again, and whether to.

use std::mem;
use std::time::Duration;

use rand::RngExt;

/// What earlier connections teach for the next one.
#[derive(Debug)]
pub struct Retry {
    /// What the next attempt waits for, more or less.
    pause: Duration,
    /// A connection that we gave up may yet arrive at Asterisk, and take our name.
    gave_up: bool,
}

/// How a connection ended, as far as the next one depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By the other side, or on the way.
    Broken,
    /// By us: Asterisk may not know of it.
    GivenUp,
    /// Another connection has taken our application's name.
    Replaced,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Connect,
    /// The name is another instance's.
    StepDown,
}

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MOST: Duration = Duration::from_secs(1);
/// A connection that broke sooner than this is no reason to hurry with the next; and what
/// we gave up before it has come by then, or never comes.
const STABLE: Duration = Duration::from_secs(5);

// === impl Retry ===

impl Default for Retry {
    fn default() -> Self {
        Self { pause: PAUSE_FIRST, gave_up: false }
    }
}

impl Retry {
    /// After a connection on which events flowed for so long.
    pub fn after(&mut self, ending: Ending, flowed_for: Duration) -> Next {
        if flowed_for >= STABLE {
            *self = Self::default();
        }
        match ending {
            Ending::Replaced if !mem::take(&mut self.gave_up) => return Next::StepDown,
            Ending::Broken | Ending::Replaced => {}
            Ending::GivenUp => self.gave_up = true,
        }
        Next::Connect
    }

    /// How long to wait now: twice as long as before, up to a limit. Instances that lost
    /// their connections in one moment don't come back in one.
    pub fn pause(&mut self, luck: &mut impl RngExt) -> Duration {
        let pause = self.pause.mul_f64(luck.random_range(0.5..1.5));
        self.pause = (self.pause * 2).min(PAUSE_MOST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const NEVER: Duration = Duration::ZERO;
    const BRIEFLY: Duration = Duration::from_secs(1);

    #[test]
    fn who_is_replaced_steps_down() {
        assert_eq!(Retry::default().after(Ending::Replaced, BRIEFLY), Next::StepDown);
        let mut retry = Retry::default();
        assert_eq!(retry.after(Ending::Broken, BRIEFLY), Next::Connect);
        assert_eq!(retry.after(Ending::Replaced, STABLE), Next::StepDown);
    }

    #[test]
    fn what_was_given_up_may_come_late_once() {
        let mut retry = Retry::default();
        assert_eq!(retry.after(Ending::GivenUp, NEVER), Next::Connect);
        assert_eq!(retry.after(Ending::Replaced, BRIEFLY), Next::Connect);
        assert_eq!(retry.after(Ending::Replaced, BRIEFLY), Next::StepDown);
    }

    #[test]
    fn a_connection_that_has_lasted_makes_up_for_what_was_given_up_before_it() {
        let mut retry = Retry::default();
        assert_eq!(retry.after(Ending::GivenUp, STABLE * 100), Next::Connect);
        assert_eq!(retry.after(Ending::Replaced, STABLE), Next::StepDown);
    }

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew_after_a_connection_that_has_lasted() {
        let mut luck = SmallRng::seed_from_u64(1);
        let mut retry = Retry::default();
        for usual_ms in [50, 100, 200, 400, 800, 1_000, 1_000] {
            retry.after(Ending::Broken, BRIEFLY);
            let pause = retry.pause(&mut luck).as_millis();
            assert!((usual_ms / 2..=usual_ms * 3 / 2).contains(&pause), "{pause} of {usual_ms}");
        }
        retry.after(Ending::Broken, STABLE);
        assert!(retry.pause(&mut luck) <= PAUSE_FIRST * 3 / 2);
    }

    #[test]
    fn instances_that_lost_their_connections_in_one_moment_wait_for_different_times() {
        let pauses: BTreeSet<Duration> = (0..100)
            .map(|seed| Retry::default().pause(&mut SmallRng::seed_from_u64(seed)))
            .collect();
        assert!(pauses.len() > 90, "{} different of 100", pauses.len());
        let (soonest, latest) = (pauses.first().unwrap(), pauses.last().unwrap());
        assert!(*soonest >= PAUSE_FIRST / 2 && *latest <= PAUSE_FIRST * 3 / 2);
        assert!(*latest - *soonest > PAUSE_FIRST / 2, "spread over most of that time");
    }
}
