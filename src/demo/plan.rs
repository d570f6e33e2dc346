//! Who calls when: the same story each time.
//!
//! * `priority`: each call finds Delta busy, then Echo not answering, then Alpha.
//!   Two callers don't wait that long.
//! * `in turn`: single calls, so that each client gets a third.
//! * `weighted`: bursts of more calls than may be up at once, until the total
//!   caps are used up and everyone else is refused.

use std::time::Duration;

/// Calls placed together.
#[derive(Clone, Copy, Debug)]
pub struct Wave {
    after_ms: u64,
    /// Which of the sample's campaigns.
    pub campaign: usize,
    pub calls: u32,
    pub caller: Caller,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Waits for an answer, and talks this long.
    Talks { ms: u32 },
    /// Hangs up while a client rings.
    GivesUp,
}

const PRIORITY: usize = 0;
const IN_TURN: usize = 1;
const WEIGHTED: usize = 2;

/// All waves, in order of time.
pub const PLAN: [Wave; 22] = [
    talk(300, PRIORITY, 1, 1_100),
    talk(1_000, IN_TURN, 1, 2_100),
    talk(2_200, IN_TURN, 1, 3_100),
    talk(2_500, PRIORITY, 1, 2_100),
    talk(3_000, WEIGHTED, 6, 2_100),
    talk(3_800, IN_TURN, 1, 2_100),
    talk(4_700, PRIORITY, 1, 3_100),
    talk(5_400, IN_TURN, 1, 3_100),
    talk(6_800, IN_TURN, 1, 1_100),
    talk(7_200, PRIORITY, 2, 2_100),
    talk(8_000, WEIGHTED, 5, 2_100),
    talk(8_400, IN_TURN, 1, 2_100),
    give_up(9_600, PRIORITY),
    talk(10_000, IN_TURN, 1, 2_100),
    talk(11_600, IN_TURN, 1, 1_100),
    talk(11_800, PRIORITY, 1, 1_100),
    talk(12_500, WEIGHTED, 2, 2_100),
    talk(13_200, IN_TURN, 1, 2_100),
    talk(14_000, PRIORITY, 2, 2_100),
    talk(16_000, PRIORITY, 1, 1_100),
    talk(16_800, WEIGHTED, 3, 2_100),
    give_up(18_000, PRIORITY),
];

/// How many calls there are in all.
pub fn calls() -> u32 {
    PLAN.iter().map(|wave| wave.calls).sum()
}

/// When the last wave begins.
pub fn length() -> Duration {
    PLAN.iter().map(Wave::after).max().unwrap_or_default()
}

impl Wave {
    pub const fn after(&self) -> Duration {
        Duration::from_millis(self.after_ms)
    }
}

const fn talk(after_ms: u64, campaign: usize, calls: u32, ms: u32) -> Wave {
    Wave { after_ms, campaign, calls, caller: Caller::Talks { ms } }
}

const fn give_up(after_ms: u64, campaign: usize) -> Wave {
    Wave { after_ms, campaign, calls: 1, caller: Caller::GivesUp }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_dozen_calls_are_over_in_half_a_minute() {
        assert_eq!(calls(), 36);
        assert!(length() < Duration::from_secs(20));
        assert!(PLAN.is_sorted_by_key(Wave::after));
    }
}
