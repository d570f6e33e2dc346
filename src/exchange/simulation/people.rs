//! Callers and clients: what they will do, decided when they begin.

use rand::RngExt;
use rand::rngs::SmallRng;

use super::town::{NUMBERS, RING_SECONDS};

/// Milliseconds since the episode began.
pub type Moment = u64;

/// A caller's plans.
#[derive(Clone, Debug)]
pub struct Caller {
    pub arrives: Moment,
    pub number: &'static str,
    /// Gives up after so long without an answer.
    pub patience_ms: u64,
    /// Hangs up after so long a talk.
    pub talk_ms: u64,
}

impl Caller {
    pub fn invent(luck: &mut SmallRng, within_ms: u64) -> Self {
        Self {
            arrives: luck.random_range(0..within_ms),
            // Now and then a wrong one.
            number: NUMBERS[luck.random_range(0..NUMBERS.len() * 4)
                % (NUMBERS.len() - 1 + usize::from(luck.random_ratio(1, 5)))],
            patience_ms: match luck.random_range(0..4) {
                0 => luck.random_range(0..300) * luck.random_range(0..8),
                1 => luck.random_range(300..8_000),
                _ => luck.random_range(8_000..40_000),
            },
            talk_ms: talk(luck),
        }
    }
}

/// What a client does when its phone rings.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// Rings, then answers, and would hang up after the talk.
    Answers {
        rings_ms: u64,
        answers_ms: u64,
        talk_ms: u64,
    },
    /// Refuses, with this cause and SIP status.
    Refuses {
        after_ms: u64,
        cause: i32,
        sip: i32,
    },
    Rings,
    /// Sends early media instead of ringing, then answers.
    EarlyMedia {
        answers_ms: u64,
        talk_ms: u64,
    },
    /// No leg can be made to it.
    Unreachable,
    /// Asterisk gives up on it by itself.
    Silent,
}

/// SIP timer B with a T1 of 100 ms.
pub const SILENT_MS: u64 = 6_400;

impl Client {
    pub fn invent(luck: &mut SmallRng) -> Self {
        let ring_ms = u64::from(RING_SECONDS) * 1_000;
        let talk_ms = match luck.random_range(0..6) {
            // Hangs up as soon as it has answered.
            0 => luck.random_range(0..4),
            _ => talk(luck),
        };
        match luck.random_range(0..20) {
            0..=8 => Self::Answers {
                rings_ms: luck.random_range(0..20),
                answers_ms: luck.random_range(20..ring_ms),
                talk_ms,
            },
            // Just as the ring time ends.
            9..=11 => Self::Answers {
                rings_ms: 2,
                answers_ms: ring_ms - 20 + luck.random_range(0..40),
                talk_ms,
            },
            12..=13 => Self::Refuses { after_ms: luck.random_range(0..200), cause: 17, sip: 486 },
            14 => Self::Refuses { after_ms: luck.random_range(0..900), cause: 21, sip: 603 },
            15 => Self::Refuses { after_ms: luck.random_range(0..50), cause: 34, sip: 503 },
            16..=17 => Self::Rings,
            18 => Self::EarlyMedia { answers_ms: luck.random_range(20..ring_ms), talk_ms },
            _ => Self::Silent,
        }
    }
}

/// Mostly short, and now and then longer than any audit takes.
fn talk(luck: &mut SmallRng) -> u64 {
    if luck.random_ratio(1, 8) {
        luck.random_range(60_000..150_000)
    } else {
        luck.random_range(0..20_000)
    }
}
