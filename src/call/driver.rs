//! The task that leads one call: inputs in, effects carried out.
//!
//! Two halves. The *driver* owns the machine: it takes inputs from its mailbox
//! and from timers, and never waits for the switch, so a caller's hang-up is
//! seen at once whatever else is under way. The [hands](super::hands) carry out
//! effects on the ledger and the switch, and report back as inputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capconduit_entity::AttemptResult;
use chrono::TimeDelta;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug, info, warn};

use super::errands::{Errands, errands};
use super::hands::Hands;
use super::machine::{Effect, Input, Machine, Timer};
use super::record::{Attempt, CallRecord};
use super::setup::{InSetup, Place};
use crate::ari::{ChannelId, Switch};
use crate::capacity::Keeper;
use crate::clock::{self, Timestamp};
use crate::journal::Journal;
use crate::live::{Live, LiveCall, LiveClient, LiveState};
use crate::telemetry::{Drift, Metrics};

/// An input and when it happened.
pub type Stamped = (Timestamp, Input);

/// What a call needs of the rest of the service.
pub struct Parts {
    pub switch: Arc<dyn Switch>,
    pub keeper: Arc<Keeper>,
    pub journal: Arc<Journal>,
    pub live: Arc<Live>,
    pub metrics: Arc<Metrics>,
    pub in_setup: InSetup,
    /// Cancelled once capacity can be held, or nobody waits for that any longer.
    pub opened: CancellationToken,
}

/// Inputs that wait for one call. A call that has more to say than this within
/// a moment is damaged; what is lost is found by the machine's timers.
pub const MAILBOX: usize = 256;

/// True from the moment that nobody is to be dialled any more, at the latest when the
/// driver is no more, however it ended.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Driver<'a> {
    parts: Arc<Parts>,
    machine: Machine,
    errands: Errands,
    /// Tells the hands that what they still have to dial is wanted no more.
    is_ending: Ending,
    timers: Vec<(Instant, Timer)>,
    /// When the call arrived; none once its fate is decided.
    undecided_since: Option<Instant>,
    /// The attempt whose client was last heard to ring.
    rang: Option<u32>,
    /// Until when the call is known to have been up, for whoever goes on after a defect.
    known_until: &'a mut Timestamp,
}

/// Leads a call from its arrival to its end.
///
/// After a defect, `known_until` says until when it is known to have been up; `place` is its
/// place among the calls on their way to a client, until it is dialled.
pub async fn lead(
    parts: Arc<Parts>,
    machine: Machine,
    mailbox: &mut mpsc::Receiver<Stamped>,
    known_until: &mut Timestamp,
    place: Option<Place>,
) {
    let call = machine.record().call;
    let (errands, waiting) = errands();
    // Bounded by the hands: one answer, or few, for each errand.
    let (results_in, mut results) = mpsc::unbounded_channel();
    let is_ending = Arc::new(AtomicBool::new(false));
    let hands = Hands {
        call,
        is_ending: is_ending.clone(),
        place: Mutex::new(place),
        caller: ChannelId(machine.record().channel.clone()),
        parts: parts.clone(),
        results: results_in,
    };
    // Where a defect ends this, they end too: whoever goes on has hands of its own.
    let hands = AbortOnDropHandle::new(tokio::spawn(hands.work(waiting).in_current_span()));
    let is_new = machine.record().attempts.is_empty();
    let mut driver = Driver {
        parts,
        undecided_since: is_new.then(Instant::now),
        rang: ringing(&machine).map(|(attempt, _)| attempt),
        machine,
        errands,
        is_ending: Ending(is_ending),
        timers: Vec::new(),
        known_until,
    };
    driver.take(clock::now(), Input::Started);
    while !driver.machine.is_closed() {
        let timer = driver.timers.iter().map(|(at, _)| *at).min();
        let wait = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((at, input)) = mailbox.recv() => driver.take(at, input),
            Some(input) = results.recv() => driver.take(clock::now(), input),
            () = wait => driver.take_due_timers(),
        }
    }
    let Driver { errands, parts, machine, .. } = driver;
    drop(errands);
    if hands.await.is_err() {
        warn!("the end of a call was cut off");
    }
    parts.live.remove(call);
    parts.metrics.call_ended(machine.record());
    if let Some(end) = &machine.record().end {
        info!(
            outcome = %end.outcome.status,
            reason = %end.outcome.reason,
            attempts = machine.record().attempts.len(),
            "call closed"
        );
    }
}

impl Driver<'_> {
    fn take(&mut self, at: Timestamp, input: Input) {
        *self.known_until = if let Input::Unseen { since } = input { since } else { at };
        #[cfg(test)]
        clock::simulated::perhaps_a_defect(self.machine.record(), at);
        debug!(?input, "input");
        let is_audited = matches!(input, Input::LegSeen { .. });
        let is_missed =
            matches!(input, Input::Timer(Timer::CallerMissing)) && !self.machine.is_ending();
        let misses_leg = matches!(input, Input::Timer(Timer::LegMissing(attempt))
            if self.machine.expects_leg(attempt));
        let effects = self.machine.handle(at, input);
        let takes_down = |effect: &Effect| matches!(effect, Effect::HangUpLeg { .. });
        if is_audited && effects.iter().any(takes_down) {
            warn!("a leg that the call gave up on is taken down");
            self.parts.metrics.drifted(Drift::ChannelWithoutCall);
        }
        if is_missed && self.machine.is_ending() {
            warn!("the caller was found gone, and no event had told so");
            self.parts.metrics.drifted(Drift::CallWithoutChannel);
        }
        if misses_leg {
            warn!("the client's leg was found gone, and no event had told so");
            self.parts.metrics.drifted(Drift::CallWithoutLeg);
        }
        if self.machine.is_ending() {
            self.is_ending.0.store(true, Ordering::Release);
        }
        for effect in effects {
            self.note_decision(&effect);
            self.perform(effect);
        }
        self.note_ringing();
    }

    /// Tells how long the first decision took.
    fn note_decision(&mut self, effect: &Effect) {
        if matches!(effect, Effect::CreateLeg { .. } | Effect::HangUpCaller { .. })
            && let Some(since) = self.undecided_since.take()
        {
            self.parts.metrics.decided(since.elapsed());
        }
    }

    /// Tells once for each client how long it took to ring.
    fn note_ringing(&mut self) {
        let Some((attempt, after)) = ringing(&self.machine) else { return };
        if self.rang.replace(attempt) != Some(attempt) {
            self.parts.metrics.rang(after);
        }
    }

    fn take_due_timers(&mut self) {
        let now = Instant::now();
        let (due, waiting) = self.timers.drain(..).partition(|(at, _)| *at <= now);
        self.timers = waiting;
        for (_, timer) in due {
            self.take(clock::now(), Input::Timer(timer));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            // Before anything that follows: the record is out of the process's
            // memory before the switch is asked for the next thing.
            Effect::Save(record) => self.parts.journal.save(*record),
            Effect::Show(state, since) => self.show(state, since),
            Effect::Arm(timer, after) => self.timers.push((Instant::now() + after, timer)),
            Effect::Close => {}
            other => self.errands.add(other),
        }
    }

    fn show(&self, state: LiveState, since: Timestamp) {
        let record = self.machine.record();
        let client = current_attempt(record, state).map(|attempt| LiveClient {
            link: attempt.link,
            id: attempt.client,
            name: attempt.client_name.clone(),
            identifier: attempt.client_identifier.clone(),
        });
        self.parts.live.put(LiveCall {
            call: record.call,
            state,
            since,
            started_at: record.started_at,
            dialled: record.dialled.clone(),
            caller_number: record.caller_number.clone(),
            seller: record.seller,
            did: record.did,
            campaign: record.campaign.clone(),
            client,
            attempts: u32::try_from(record.attempts.len()).unwrap_or(u32::MAX),
        });
    }
}

/// The attempt whose client is rung or talked to; in the end, whose leg is still there or
/// who had the call.
fn current_attempt(record: &CallRecord, state: LiveState) -> Option<&Attempt> {
    record.attempts.last().filter(|last| match state {
        LiveState::Routing => false,
        LiveState::Ringing | LiveState::Talking => true,
        LiveState::Ending => {
            last.ended_at.is_none() || last.result == Some(AttemptResult::Answered)
        }
    })
}

/// The newest attempt, if its client rings or has rung, and how long after its hold.
fn ringing(machine: &Machine) -> Option<(u32, TimeDelta)> {
    let attempt = machine.record().attempts.last()?;
    Some((attempt.position, attempt.ringing_at? - attempt.held_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::record::tests::record;
    use crate::ids::{ClientId, LinkId};

    #[test]
    fn in_the_end_a_client_that_refused_is_not_told_as_the_one_talked_to() {
        let mut record = record();
        assert!(current_attempt(&record, LiveState::Ending).is_none());
        record.attempts.push(Attempt {
            position: 1,
            link: LinkId(1),
            client: ClientId(1),
            client_name: "Acme".to_owned(),
            client_identifier: "acme".to_owned(),
            held_at: record.started_at,
            dialled_at: None,
            ringing_at: None,
            answered_at: None,
            ended_at: None,
            result: None,
            cause: None,
            sip: None,
        });
        assert!(current_attempt(&record, LiveState::Ending).is_some(), "its leg is still there");
        record.attempts[0].ended_at = Some(record.started_at);
        for (result, is_told) in [(AttemptResult::Rejected, false), (AttemptResult::Answered, true)]
        {
            record.attempts[0].result = Some(result);
            assert_eq!(current_attempt(&record, LiveState::Ending).is_some(), is_told);
        }
    }
}
