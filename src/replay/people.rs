//! How clients behave in a replay.
//!
//! Of a client that a call was offered to at the time, its behaviour is known. What
//! another would have done isn't: it behaves as it did with one of its other calls of the
//! same time, drawn by a seed that only the call and the client make. A client that had
//! no call then behaves as any did; where nobody had one, it doesn't answer.

use std::collections::HashMap;

use capconduit_entity::AttemptResult;
use chrono::TimeDelta;

use super::seed_of;
use crate::call::CallRecord;
use crate::call::record::Attempt;
use crate::clock::Timestamp;
use crate::ids::{CallId, ClientId};

/// What a client does with a call, counted from when it is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Answers {
        after: TimeDelta,
        talk: TimeDelta,
    },
    /// It doesn't take the call, and this is how that comes out.
    Ends {
        after: TimeDelta,
        result: AttemptResult,
    },
}

/// What was seen of a client once.
#[derive(Clone, Copy, Debug)]
struct Seen {
    manner: Manner,
    /// How long it was to be rung at most.
    ring: TimeDelta,
}

/// What was seen of all clients.
#[derive(Debug, Default)]
pub struct People {
    of_client: HashMap<ClientId, Vec<Seen>>,
    of_anybody: Vec<Seen>,
}

impl People {
    pub fn met_in(records: &[CallRecord]) -> Self {
        let mut people = Self::default();
        for record in records {
            for attempt in &record.attempts {
                if let Some(seen) = Seen::of(record, attempt) {
                    people.of_client.entry(attempt.client).or_default().push(seen);
                    people.of_anybody.push(seen);
                }
            }
        }
        people
    }

    /// What this client does with this call, and whether that is known rather than drawn.
    pub fn manner(&self, record: &CallRecord, client: ClientId, ring: TimeDelta) -> (Manner, bool) {
        let then = record.attempts.iter().rev().find(|attempt| attempt.client == client);
        if let Some(then) = then {
            let manner = match Seen::of(record, then) {
                Some(seen) => seen.rung_for(ring),
                // The caller left first: it may be rung for all of its time.
                None => rings_on(then, ring, ring_time(record)),
            };
            return (manner, true);
        }
        let drawn = self.drawn(record.call, client).map(|seen| seen.rung_for(ring));
        let manner = match (drawn, talk_of(record)) {
            // How long a caller has to talk is the caller's more than the client's.
            (Some(Manner::Answers { after, .. }), Some(talk)) => Manner::Answers { after, talk },
            (Some(manner), _) => manner,
            (None, _) => rings_out(ring),
        };
        (manner, false)
    }

    fn drawn(&self, call: CallId, client: ClientId) -> Option<Seen> {
        let seen = self.of_client.get(&client).unwrap_or(&self.of_anybody);
        let lot = u64::from(seed_of(call)) ^ client.0.unsigned_abs().wrapping_mul(0x9E37_79B9);
        let place = usize::try_from(lot).unwrap_or_default().checked_rem(seen.len())?;
        seen.get(place).copied()
    }
}

const fn rings_out(ring: TimeDelta) -> Manner {
    Manner::Ends { after: ring, result: AttemptResult::NoAnswer }
}

/// Of a client that was still being rung when the caller left, for `then` at most: it is rung
/// on, be it beyond its time by the moment that a leg takes to end.
fn rings_on(attempt: &Attempt, ring: TimeDelta, then: TimeDelta) -> Manner {
    let rung = attempt.ended_at.map_or(ring, |ended| ended - attempt.held_at);
    let on = rung + TimeDelta::milliseconds(1);
    rings_out(if ring < then { ring } else { ring.max(on) })
}

/// How long a client was to be rung at most.
fn ring_time(record: &CallRecord) -> TimeDelta {
    TimeDelta::seconds(record.trace.dial_timeout_seconds.unwrap_or(0).into())
}

/// How long caller and client talked; none if they didn't.
fn talk_of(record: &CallRecord) -> Option<TimeDelta> {
    record.answered_attempt().and_then(|attempt| Some(attempt.ended_at? - attempt.answered_at?))
}

// === impl Seen ===

impl Seen {
    /// None of an attempt that the caller took back: what would have come is not known.
    fn of(record: &CallRecord, attempt: &Attempt) -> Option<Self> {
        let (result, ended_at) = (attempt.result?, attempt.ended_at?);
        let since = |at: Timestamp| (at - attempt.held_at).max(TimeDelta::zero());
        let manner = match result {
            AttemptResult::Canceled => return None,
            AttemptResult::Answered => {
                let answered_at = attempt.answered_at?;
                Manner::Answers { after: since(answered_at), talk: ended_at - answered_at }
            }
            result => Manner::Ends { after: since(ended_at), result },
        };
        Some(Self { manner, ring: ring_time(record) })
    }

    /// The same where the campaign rings for as long as this.
    fn rung_for(self, ring: TimeDelta) -> Manner {
        let Self { manner, ring: then } = self;
        if ring == then {
            return manner;
        }
        match manner {
            Manner::Answers { after, .. } | Manner::Ends { after, .. }
                if after < then && after > ring =>
            {
                rings_out(ring)
            }
            // It rang out: it does so again, later or sooner.
            Manner::Ends { after, result: AttemptResult::NoAnswer } if after >= then => {
                let after = after - then + ring;
                Manner::Ends { after, result: AttemptResult::NoAnswer }
            }
            manner => manner,
        }
    }
}
