//! How long nothing was heard, of the time in which we listened.

use std::time::Duration;

use tokio::time::Instant;

/// Grows while nothing is heard. Time in which we didn't run counts for little: a process
/// that stood still, or was starved, finds what came meanwhile waiting for it.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    lasted: Duration,
    /// When it was last looked at.
    seen: Instant,
}

/// How often to look.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What counts at most between two looks.
const MOST_AT_ONCE: Duration = Duration::from_millis(200);

// === impl Silence ===

impl Silence {
    /// One that has lasted for so long now.
    pub const fn of(lasted: Duration, now: Instant) -> Self {
        Self { lasted, seen: now }
    }

    /// How long it has lasted by now.
    pub fn look(&mut self, now: Instant) -> Duration {
        self.lasted += (now - self.seen).min(MOST_AT_ONCE);
        self.seen = now;
        self.lasted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at it as often as one does, until so much time has passed; what it has come to.
    fn looked_at(silence: &mut Silence, from: Instant, time: Duration) -> (Instant, Duration) {
        let mut lasted = Duration::ZERO;
        let mut now = from;
        while now < from + time {
            now += LOOK_INTERVAL;
            lasted = silence.look(now);
        }
        (now, lasted)
    }

    #[test]
    fn a_silence_lasts_as_long_as_we_listened() {
        let now = Instant::now();
        let mut silence = Silence::of(Duration::from_millis(700), now);
        let (_, lasted) = looked_at(&mut silence, now, Duration::from_secs(2));
        assert_eq!(lasted, Duration::from_millis(2_700));
    }

    #[test]
    fn a_pause_of_our_own_is_no_silence() {
        let now = Instant::now();
        let mut silence = Silence::of(Duration::ZERO, now);
        let (now, before) = looked_at(&mut silence, now, Duration::from_secs(1));
        let woken = now + Duration::from_secs(3_600);
        let after = silence.look(woken);
        assert!(after - before <= MOST_AT_ONCE, "{before:?}, then {after:?}");
        // And who doesn't hear anything then gives up in the end all the same.
        let (_, lasted) = looked_at(&mut silence, woken, Duration::from_secs(2));
        assert!(lasted >= Duration::from_secs(3), "{lasted:?}");
    }
}
