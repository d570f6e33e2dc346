//! What became of the clients' legs of a call in truth, and whether its record says it.
//!
//! Who was dialled, and who got the call, the record says whatever was hidden from the
//! service. How each attempt ended, how the call did, and what the caller was told of it
//! follow from how the legs ended, wherever nothing was hidden. Where two things end an
//! attempt at the same moment, either may be its result.

use std::collections::BTreeSet;

use capconduit_entity::{AttemptResult, CallReason};

use super::people::Moment;
use super::story::{FOUND_AGAIN_MS, FOUND_MS, Story, UNDER_WAY_MS};
use super::town::{NUMBERS, RING_SECONDS};
use super::vault::is_answered;
use crate::ari::LegId;
use crate::call::outcome::attempt_result;
use crate::call::{Attempt, CallRecord, Outcome};
use crate::ids::LinkId;
use crate::routing::LinkTrace;

/// A client's leg.
#[derive(Clone, Debug)]
pub struct ClientLeg {
    pub name: String,
    /// The ring time begins no sooner.
    pub made: Moment,
    /// Over which link its client was dialled, if it was.
    pub link: Option<LinkId>,
    pub end: Option<LegEnd>,
}

/// How a leg ended.
#[derive(Clone, Copy, Debug)]
pub struct LegEnd {
    pub at: Moment,
    pub was_answered: bool,
    /// The cause and the SIP status with which its client ended it; none where the service
    /// did, or the switch's own ring time.
    pub by_client: Option<(i32, Option<i32>)>,
}

const RING_MS: Moment = RING_SECONDS as Moment * 1_000;

/// What the record says of clients, of its outcome or of what the caller was told that
/// can't be.
pub fn contradiction(story: &Story, record: &CallRecord) -> Option<String> {
    wrong_client(story, record).or_else(|| {
        if story.was_hidden() {
            return None;
        }
        asked_twice(record)
            .or_else(|| wrong_result(story, record))
            .or_else(|| wrong_outcome(story, record))
            .or_else(|| wrong_words(story, record))
    })
}

fn wrong_client(story: &Story, record: &CallRecord) -> Option<String> {
    for leg in story.legs.iter().filter(|leg| leg.link.is_some()) {
        let is_its =
            |attempt: &Attempt| leg.is_of(attempt, record) && Some(attempt.link) == leg.link;
        if !record.attempts.iter().any(is_its) {
            return Some(format!("no attempt tells of {}", leg.name));
        }
    }
    let answered = record.answered_attempt().filter(|_| is_answered(record))?;
    let Some(leg) = story.dialled_leg(answered, record) else {
        return Some(format!("the client of attempt {} was never dialled", answered.position));
    };
    let talked_with = story.talked_with.as_ref()?;
    (*talked_with != leg.name).then(|| format!("it was {talked_with} that got the call"))
}

fn asked_twice(record: &CallRecord) -> Option<String> {
    let mut asked = BTreeSet::new();
    let again = record.attempts.iter().find(|attempt| !asked.insert(attempt.link))?;
    Some(format!("attempt {} asked a client a second time", again.position))
}

fn wrong_result(story: &Story, record: &CallRecord) -> Option<String> {
    record.attempts.iter().find_map(|attempt| {
        let may_be =
            attempt.result.is_some_and(|result| match story.dialled_leg(attempt, record) {
                Some(leg) => leg.may_have_ended(result, story),
                None => may_be_without_client(result),
            });
        (!may_be).then(|| format!("attempt {} did not end so", attempt.position))
    })
}

/// No leg could be made for it, or the command to dial it got lost.
const fn may_be_without_client(result: AttemptResult) -> bool {
    use AttemptResult::{Canceled, NoAnswer, Unreachable};
    matches!(result, Unreachable | NoAnswer | Canceled)
}

fn wrong_outcome(story: &Story, record: &CallRecord) -> Option<String> {
    let outcome = record.end?.outcome;
    let results: Vec<_> = record.attempts.iter().filter_map(|attempt| attempt.result).collect();
    let was_dialled = story.legs.iter().any(|leg| leg.link.is_some());
    let was_everybody_asked = !record.trace.links.iter().any(LinkTrace::is_not_reached);
    let may_be = match outcome.reason {
        CallReason::Answered => story.heard.is_some() && outcome == Outcome::ANSWERED,
        CallReason::CallerAbandoned => story.told.is_none() && outcome == Outcome::ABANDONED,
        CallReason::AllBusy | CallReason::AllFailed | CallReason::AllNoAnswer => {
            let follows = !results.is_empty() && outcome == Outcome::unanswered(&results);
            follows && was_everybody_asked
        }
        CallReason::NoEligibleClientsAvailable => results.is_empty() && was_everybody_asked,
        CallReason::CapacityUnavailable => results.is_empty(),
        // Only an operator ends a call of which a client knows.
        CallReason::SystemError => {
            (story.hung_up.is_some() || !was_dialled) && outcome == Outcome::SYSTEM_ERROR
        }
        CallReason::DidNotFound => !NUMBERS[..3].contains(&story.caller.number),
        _ => false,
    };
    (!may_be).then(|| "it did not end so".to_owned())
}

/// The cause with which the caller was sent away says why.
fn wrong_words(story: &Story, record: &CallRecord) -> Option<String> {
    let (told, end) = (story.told?, record.end?);
    let is_right = told == end.cause && told == end.outcome.release_cause();
    (!is_right).then(|| format!("the caller was told {told}"))
}

impl Story {
    pub fn leg_made(&mut self, name: &str, at: Moment) {
        self.legs.push(ClientLeg { name: name.to_owned(), made: at, link: None, end: None });
    }

    /// The last leg of this name: one that was given up may be made late, once more.
    pub fn leg_mut(&mut self, name: &str) -> Option<&mut ClientLeg> {
        self.legs.iter_mut().rev().find(|leg| leg.name == name)
    }

    /// The leg of an attempt, if its client was dialled.
    fn dialled_leg(&self, attempt: &Attempt, record: &CallRecord) -> Option<&ClientLeg> {
        self.legs.iter().find(|leg| leg.link.is_some() && leg.is_of(attempt, record))
    }

    fn is_over_by(&self, at: Moment) -> bool {
        self.left.is_some_and(|left| left <= at)
    }

    fn is_hung_up_by(&self, at: Moment) -> bool {
        self.hung_up.is_some_and(|hung_up| hung_up <= at)
    }
}

impl ClientLeg {
    fn is_of(&self, attempt: &Attempt, record: &CallRecord) -> bool {
        let name = LegId { call: record.call, attempt: attempt.position };
        self.name == name.to_string()
    }

    /// Whether this may be the result of its attempt.
    fn may_have_ended(&self, result: AttemptResult, story: &Story) -> bool {
        let Some(end) = self.end else { return false };
        match &story.talked_with {
            Some(name) if *name == self.name => return result == AttemptResult::Answered,
            // The caller was answered beside every leg.
            None if story.heard.is_some() && result == AttemptResult::Answered => return true,
            _ => {}
        }
        let has_rung_out = end.at >= self.made + RING_MS;
        // Whether the caller heard the answer is asked more than once.
        let decided_within =
            if end.was_answered || has_rung_out { FOUND_AGAIN_MS } else { UNDER_WAY_MS };
        let is_called_off = story.is_over_by(end.at + decided_within)
            || story.is_hung_up_by(end.at + decided_within.max(FOUND_MS));
        match result {
            AttemptResult::NoAnswer if has_rung_out => true,
            // It couldn't be put back to the caller.
            AttemptResult::Rejected if end.was_answered => true,
            AttemptResult::Canceled => is_called_off,
            result => {
                end.by_client.is_some_and(|(cause, sip)| result == attempt_result(cause, sip))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::record::End;
    use crate::call::record::tests::record;
    use crate::exchange::simulation::people::Caller;
    use crate::ids::ClientId;
    use crate::routing::snapshot::tests::link;

    const BUSY: (i32, Option<i32>) = (17, Some(486));

    /// A call whose first client was busy and whose second one was talked with, and its record.
    fn played() -> (Story, CallRecord) {
        let mut record = record();
        let caller = Caller { arrives: 0, number: NUMBERS[0], patience_ms: 9_000, talk_ms: 9_000 };
        let mut story = Story::new(caller, record.channel.clone());
        let mut dial = |attempt: u32, made: Moment, end: LegEnd| {
            let name = LegId { call: record.call, attempt }.to_string();
            let link = Some(LinkId(i64::from(attempt)));
            story.legs.push(ClientLeg { name: name.clone(), made, link, end: Some(end) });
            name
        };
        dial(1, 10, LegEnd { at: 500, was_answered: false, by_client: Some(BUSY) });
        let second = dial(2, 510, LegEnd { at: 9_000, was_answered: true, by_client: None });
        story.talked_with = Some(second);
        (story.heard, story.left) = (Some(2_000), Some(8_999));
        record.attempts =
            vec![attempt(1, AttemptResult::Busy), attempt(2, AttemptResult::Answered)];
        record.answered_at = Some(record.started_at);
        record.end = Some(End { at: record.started_at, outcome: Outcome::ANSWERED, cause: 16 });
        (story, record)
    }

    fn attempt(position: u32, result: AttemptResult) -> Attempt {
        Attempt {
            position,
            link: LinkId(i64::from(position)),
            client: ClientId(1),
            client_name: "Acme".to_owned(),
            client_identifier: "acme".to_owned(),
            held_at: record().started_at,
            dialled_at: None,
            ringing_at: None,
            answered_at: None,
            ended_at: None,
            result: Some(result),
            cause: None,
            sip: None,
        }
    }

    /// The same caller, answered by nobody: both clients were busy, and the caller was told.
    fn refused() -> (Story, CallRecord) {
        let (mut story, mut record) = played();
        (story.heard, story.talked_with, story.told) = (None, None, Some(17));
        story.legs[1].end = Some(LegEnd { at: 900, was_answered: false, by_client: Some(BUSY) });
        record.attempts[1].result = Some(AttemptResult::Busy);
        let outcome = Outcome::unanswered(&[AttemptResult::Busy]);
        record.answered_at = None;
        record.end = Some(End { at: record.started_at, outcome, cause: 17 });
        (story, record)
    }

    #[test]
    fn a_record_that_says_what_became_of_the_legs_is_right() {
        for (story, record) in [played(), refused()] {
            assert_eq!(contradiction(&story, &record), None);
        }
    }

    #[test]
    fn a_record_that_gives_the_call_to_another_client_is_found_whatever_was_hidden() {
        for is_hidden in [false, true] {
            let (mut story, mut record) = played();
            if is_hidden {
                story.hide(0);
            }
            record.attempts[0].result = Some(AttemptResult::Answered);
            assert!(contradiction(&story, &record).unwrap().contains("that got the call"));
            record.attempts.remove(1);
            assert!(contradiction(&story, &record).unwrap().contains("no attempt tells of"));
        }
    }

    #[test]
    fn a_client_who_was_never_dialled_got_no_call_and_refused_none() {
        let (mut story, mut record) = played();
        story.legs[1].link = None;
        assert!(contradiction(&story, &record).unwrap().contains("never dialled"));
        (story, record) = refused();
        story.legs[1].link = None;
        assert!(contradiction(&story, &record).unwrap().contains("attempt 2 did not end so"));
        record.attempts[1].result = Some(AttemptResult::Unreachable);
        let results = [AttemptResult::Busy, AttemptResult::Unreachable];
        let outcome = Outcome::unanswered(&results);
        record.end = record.end.map(|end| End { outcome, cause: outcome.release_cause(), ..end });
        story.told = Some(outcome.release_cause());
        assert_eq!(contradiction(&story, &record), None);
    }

    #[test]
    fn a_result_that_is_not_how_the_leg_ended_is_found_unless_something_was_hidden() {
        use AttemptResult::{Canceled, NoAnswer, Rejected, Unreachable};
        for result in [NoAnswer, Rejected, Unreachable, Canceled] {
            let (mut story, mut record) = played();
            record.attempts[0].result = Some(result);
            assert!(contradiction(&story, &record).unwrap().contains("attempt 1 did not end so"));
            story.hide(0);
            assert_eq!(contradiction(&story, &record), None);
        }
    }

    #[test]
    fn a_client_is_called_off_or_given_up_only_when_the_caller_left_or_the_ring_time_was_over() {
        let (mut story, _) = played();
        story.talked_with = None;
        story.heard = None;
        let mut ended = |at, left, result| {
            let end = LegEnd { at, was_answered: false, by_client: None };
            story.left = Some(left);
            story.legs[0].end = Some(end);
            story.legs[0].may_have_ended(result, &story)
        };
        assert!(ended(3_000, 2_990, AttemptResult::Canceled));
        assert!(!ended(3_000, 3_900, AttemptResult::Canceled), "nobody had left");
        assert!(ended(5_020, 8_000, AttemptResult::NoAnswer));
        assert!(!ended(4_000, 8_000, AttemptResult::NoAnswer), "it still rang");
        assert!(!ended(5_020, 8_000, AttemptResult::Busy), "it said nothing");
    }

    #[test]
    fn an_outcome_that_does_not_follow_from_the_attempts_is_found() {
        let wrong = [
            Outcome::ABANDONED,
            Outcome::SYSTEM_ERROR,
            Outcome::INTERRUPTED,
            Outcome::ANSWERED,
            Outcome::unanswered(&[AttemptResult::NoAnswer]),
            Outcome::no_room(&[]),
            Outcome::refused(CallReason::DidNotFound),
        ];
        for outcome in wrong {
            let (story, mut record) = refused();
            record.end = record.end.map(|end| End { outcome, ..end });
            assert!(contradiction(&story, &record).unwrap().contains("it did not end so"));
        }
    }

    #[test]
    fn who_sends_a_caller_away_has_asked_everybody_and_nobody_twice() {
        let (story, mut record) = refused();
        record.trace.links.push(LinkTrace::new(&link(3, 1, 1), "not_reached"));
        assert!(contradiction(&story, &record).unwrap().contains("it did not end so"));
        let (mut story, mut record) = refused();
        story.legs[1].link = story.legs[0].link;
        record.attempts[1].link = record.attempts[0].link;
        assert!(contradiction(&story, &record).unwrap().contains("a second time"));
    }

    #[test]
    fn a_caller_who_is_told_something_else_than_the_record_says_is_found() {
        for told in [16, 19, 34, 38] {
            let (mut story, record) = refused();
            story.told = Some(told);
            assert!(contradiction(&story, &record).unwrap().contains("the caller was told"));
        }
    }
}
