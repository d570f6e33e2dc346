//! What became of a caller in truth, what of it the service could hear, and whether the
//! record says it.
//!
//! While the service is dead or deaf, or when an event is lost, something of a call is
//! *hidden*: from a moment on, until the service has looked again, and no longer than it
//! may take to look once it hears again. A record may differ from the truth by that and
//! by nothing else: it says that a call was answered unless the whole talk was hidden, it
//! never has a talk begin before the caller heard it or last longer than it did, and a
//! moment that wasn't hidden is exact, whatever was hidden before and after. What it says
//! of the clients is compared in [`legs`](super::legs).

use capconduit_entity::CallReason;

use super::legs::ClientLeg;
use super::people::{Caller, Moment};
use super::vault::is_answered;
use crate::call::CallRecord;
use crate::clock::Timestamp;
use crate::ids::LinkId;

#[derive(Clone, Debug)]
pub struct Story {
    pub caller: Caller,
    pub channel: String,
    /// When the application got the call.
    pub entered: Option<Moment>,
    /// When it heard the 200.
    pub heard: Option<Moment>,
    pub talks_until: Moment,
    /// The leg that was answered as it did.
    pub talked_with: Option<String>,
    /// When the last client that was dialled was gone.
    pub parted: Option<Moment>,
    pub left: Option<Moment>,
    /// When this life of the service was told of it.
    pub known_since: Option<Moment>,
    /// When the service was told that it had left.
    pub told_left: Option<Moment>,
    /// The service has done something for the caller, who waits until it can.
    pub is_begun: bool,
    /// It came to a life of the service that takes no calls any more, and is to give it back.
    pub is_given_back: bool,
    /// The service has asked for that.
    pub was_sent_back: bool,
    /// The service has seen the last client up and in the caller's bridge.
    pub client_seen: bool,
    /// The service sent the caller away.
    pub released: bool,
    /// With which cause, if nobody had answered it.
    pub told: Option<i32>,
    /// When an operator first wanted it to end.
    pub hung_up: Option<Moment>,
    /// It gave up just as it was answered, so that Asterisk shows it as answered.
    pub taken_back: bool,
    /// The last client that was dialled: its leg, and the link.
    pub leg: Option<String>,
    pub link: Option<LinkId>,
    /// All that were made, in their order.
    pub legs: Vec<ClientLeg>,
    /// The clients of whom the service was told that they were dialled, and when.
    told_dialled: Vec<(LinkId, Moment)>,
    met_defect: Option<Met>,
    hidden: Vec<Hidden>,
    looked_at: Looked,
}

/// When the service last looked at the legs since something was hidden.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    caller: Option<Moment>,
    leg: Option<Moment>,
}

/// What a defect of the service means for its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// The two talk, and go on.
    Outlived,
    CutOff,
}

/// From then on nothing was heard of a caller, until the service looked.
#[derive(Clone, Copy, Debug)]
struct Hidden {
    from: Moment,
    until: Option<Moment>,
    /// When it has to have looked, once it hears again.
    latest: Moment,
    /// Not all of it: one event.
    is_lost: bool,
}

/// What happened so shortly before is on its way to the service, or being thought about.
pub const UNDER_WAY_MS: Moment = 400;
/// How exact a time is of which an event told.
const EXACT_MS: Moment = 300;
/// How late an end may be found that no event told of. A connection that is dead without
/// a word is given up after 2.8 seconds; until then what a look finds is taken for new.
pub const FOUND_MS: Moment = 3_300;
/// The same of an event that was lost, where the answer to the first look is lost too.
pub const FOUND_AGAIN_MS: Moment = 6_500;
/// An event that is lost alone is made up for by an audit, at the latest, which is
/// repeated where its answer is lost.
const LOST_MS: Moment = 21_000;
/// In which the service looks at all of its calls once it hears again.
const LOOK_MS: Moment = 10_000;
/// When a call that is lost sight of was last known to be up: the last probe, or the
/// last sign of life in the journal.
const KNOWN_MS: Moment = 1_000;
/// What the service was told so shortly before it was killed it may not have read.
const UNREAD_MS: Moment = 2;

impl Story {
    pub fn new(caller: Caller, channel: String) -> Self {
        Self {
            caller,
            channel,
            entered: None,
            heard: None,
            talks_until: 0,
            talked_with: None,
            parted: None,
            left: None,
            known_since: None,
            told_left: None,
            is_begun: false,
            is_given_back: false,
            was_sent_back: false,
            client_seen: false,
            released: false,
            told: None,
            hung_up: None,
            taken_back: false,
            leg: None,
            link: None,
            legs: Vec::new(),
            told_dialled: Vec::new(),
            met_defect: None,
            hidden: Vec::new(),
            looked_at: Looked::default(),
        }
    }

    /// It is in the dialplan again, as if it hadn't come yet.
    pub fn goes_back(&mut self) {
        (self.entered, self.known_since, self.told_left) = (None, None, None);
        self.was_sent_back = false;
        self.hidden.clear();
        self.looked_at = Looked::default();
    }

    // --- whom the service knows to be dialled ---

    pub fn told_dialled(&mut self, at: Moment) {
        self.told_dialled.extend(self.link.map(|link| (link, at)));
    }

    /// The service is killed: what it has read it has noted.
    pub fn forget_dialled_since(&mut self, now: Moment) {
        self.told_dialled.retain(|(_, told)| told + UNREAD_MS < now);
    }

    pub fn is_known_as_dialled(&self, link: LinkId) -> bool {
        self.told_dialled.iter().any(|(known, _)| *known == link)
    }

    // --- what a defect means ---

    /// A defect meets its call: a talk goes on, once in each life of the service, and is
    /// looked at anew. What becomes of any other call is known to nobody.
    pub fn meets_defect(&mut self, at: Moment, in_a_talk: bool) {
        let from = at.saturating_sub(UNDER_WAY_MS);
        if in_a_talk && self.met_defect.is_none() {
            self.met_defect = Some(Met::Outlived);
            self.hide(from);
        } else {
            self.met_defect = Some(Met::CutOff);
            self.cut_off(from);
        }
    }

    pub fn outlives_defect(&self) -> bool {
        self.met_defect == Some(Met::Outlived)
    }

    /// Of another life of the service.
    pub fn starts_anew(&mut self) {
        self.known_since = None;
        self.was_sent_back = false;
        self.is_given_back &= self.left.is_some();
        self.met_defect = self.met_defect.filter(|met| *met == Met::CutOff);
    }

    // --- what was hidden ---

    /// Nothing more is heard of it.
    pub fn hide(&mut self, from: Moment) {
        self.looked_at = Looked::default();
        match self.hidden.iter_mut().find(|hidden| hidden.is_open_at(from)) {
            Some(hidden) => {
                hidden.from = hidden.from.min(from);
                hidden.latest = Moment::MAX;
            }
            None => {
                let latest = Moment::MAX;
                self.hidden.push(Hidden { from, until: None, latest, is_lost: false });
            }
        }
    }

    /// Nobody leads its call any more: what becomes of it is known to nobody.
    pub fn cut_off(&mut self, from: Moment) {
        let (until, latest) = (Some(Moment::MAX), Moment::MAX);
        self.hidden.push(Hidden { from, until, latest, is_lost: false });
    }

    /// Events flow again: what was looked at before may have changed since, and is about
    /// to be looked at.
    pub fn heard_again(&mut self, at: Moment) {
        self.looked_at = Looked::default();
        for hidden in self.hidden.iter_mut().filter(|hidden| hidden.until.is_none()) {
            hidden.latest = hidden.latest.min(at + LOOK_MS);
        }
    }

    /// The service has to wait before it can look.
    pub fn look_waits(&mut self, at: Moment, for_ms: Moment) {
        for hidden in self.hidden.iter_mut().filter(|hidden| hidden.is_open_at(at)) {
            hidden.latest = hidden.latest.saturating_add(for_ms);
        }
    }

    /// A look is lost: the next audit makes up for it.
    pub fn look_is_lost(&mut self, at: Moment) {
        for hidden in self.hidden.iter_mut().filter(|hidden| hidden.is_open_at(at)) {
            hidden.latest = hidden.latest.max(at + LOST_MS);
        }
    }

    /// A single event of it was lost.
    pub fn lose(&mut self, at: Moment) {
        let until = at + LOST_MS;
        self.hidden.push(Hidden { from: at, until: Some(until), latest: until, is_lost: true });
    }

    /// The service looked at a leg of it, and knows now how that was then. When it has
    /// looked at both, nothing is hidden any more, if it hears.
    pub fn look(&mut self, channel: &str, at: Moment, now: Moment, hears: bool) {
        let looked_at =
            if self.is_leg(channel) { &mut self.looked_at.leg } else { &mut self.looked_at.caller };
        *looked_at = Some(at);
        let leg = if self.leg.is_none() { Some(at) } else { self.looked_at.leg };
        let Some(both) = self.looked_at.caller.zip(leg).map(|(caller, leg)| caller.max(leg)) else {
            return;
        };
        let mut was_hidden = false;
        let open = |hidden: &&mut Hidden| hidden.until.is_none() && both > hidden.from;
        for hidden in self.hidden.iter_mut().filter(open) {
            // What happens while the answer is on its way may overtake it.
            hidden.until = Some(now + UNDER_WAY_MS);
            was_hidden = true;
        }
        if was_hidden && !hears {
            self.hide(both);
        }
    }

    pub fn is_leg(&self, channel: &str) -> bool {
        self.leg.as_deref() == Some(channel)
    }

    pub fn was_hidden(&self) -> bool {
        !self.hidden.is_empty()
    }

    pub fn times_hidden(&self) -> usize {
        self.hidden.len()
    }

    /// From and until when that moment was hidden, with what was hidden right before
    /// and after it.
    fn hidden_at(&self, moment: Moment) -> Option<(Moment, Moment)> {
        let (mut from, mut until) = (moment, moment);
        let mut found = false;
        loop {
            let before = (from, until, found);
            for hidden in &self.hidden {
                let end = hidden.end();
                if hidden.from <= until && from <= end {
                    (from, until, found) = (from.min(hidden.from), until.max(end), true);
                }
            }
            if before == (from, until, found) {
                return found.then_some((from, until));
            }
        }
    }

    /// Whether it was hidden before the service can have thought about it.
    fn is_hidden_soon_after(&self, moment: Moment) -> bool {
        self.hidden_at(moment).or_else(|| self.hidden_at(moment + UNDER_WAY_MS)).is_some()
    }

    /// Whether the service may never have known that the caller was there from then on.
    pub fn may_be_unknown_since(&self, moment: Moment) -> bool {
        let Some((_, until)) = self.hidden_at(moment) else { return false };
        self.left.is_some_and(|left| left <= until.saturating_add(EXACT_MS))
    }

    /// Whether the service can't but know that the caller was answered.
    pub fn is_known_as_answered(&self) -> bool {
        self.heard.is_some_and(|heard| !self.may_be_unknown_since(heard))
    }

    /// Whether it came and left while nobody looked, and no client knew of it.
    pub fn was_only_hidden(&self) -> bool {
        let Some(entered) = self.entered else { return true };
        // Nobody's call, wherever it leaves: here, or in the dialplan.
        if self.is_given_back && !self.is_begun {
            return true;
        }
        // One who still waited to be served is known to nobody, once the service is dead:
        // nor does the next life know who it is whose end it is told of.
        let waited = !self.is_begun && (self.told_left.is_none() || self.known_since.is_none());
        let since = if waited { self.left.unwrap_or(entered) } else { entered };
        self.link.is_none() && !self.released && self.may_be_unknown_since(since)
    }

    /// Whether it went on while something was hidden, and its times must be exact.
    pub fn is_exact_beside_hidden(&self) -> bool {
        let is_plain = |moment: Option<Moment>| moment.is_some_and(|m| self.hidden_at(m).is_none());
        self.was_hidden() && is_plain(self.heard) && is_plain(self.talk_end())
    }

    // --- what the record has to say ---

    fn talk_end(&self) -> Option<Moment> {
        let left = self.left?;
        let heard = self.heard?;
        Some(self.parted.map_or(left, |parted| parted.max(heard).min(left)))
    }

    /// What the record says that can't be.
    pub fn contradiction(&self, record: &CallRecord, began: Timestamp) -> Option<String> {
        let Some(end) = record.end else { return Some("no end".to_owned()) };
        let moment = |at: Timestamp| moment_of(began, at);
        let ended = moment(end.at);
        let answered = record.answered_at.map(moment).filter(|_| is_answered(record));
        if answered.is_some() != record.answered_at.is_some() {
            return Some("answered or not".to_owned());
        }
        let Some(left) = self.left else { return Some("the caller is still there".to_owned()) };
        match (self.heard, answered) {
            (None, None) => {
                let latest = self.hidden_at(left).map_or(left, |(_, until)| until);
                (ended > latest.saturating_add(FOUND_MS))
                    .then(|| format!("it ended at {ended}, and not by {latest}"))
            }
            (None, Some(_)) if self.taken_back && self.hidden_at(left).is_some() => None,
            (None, Some(_)) => Some("it was never answered".to_owned()),
            (Some(heard), None) if self.may_be_unknown_since(heard) => None,
            (Some(_), None) => Some("it was answered".to_owned()),
            (Some(heard), Some(answered)) => {
                let parted = self.talk_end().expect("the caller has left");
                self.wrong_times((heard, parted), (answered, ended), end.outcome.reason)
            }
        }
    }

    fn wrong_times(
        &self,
        (heard, parted): (Moment, Moment),
        (answered, ended): (Moment, Moment),
        reason: CallReason,
    ) -> Option<String> {
        let latest_answer = self.hidden_at(heard).map_or(heard, |(_, until)| until);
        let end_is_hidden = self.hidden_at(parted);
        let earliest_end =
            end_is_hidden.map_or(parted, |(from, _)| from.saturating_sub(KNOWN_MS).max(heard));
        let talk = heard.saturating_sub(EXACT_MS)..=latest_answer.saturating_add(EXACT_MS);
        let lost = self.hidden.iter().filter(|hidden| hidden.is_lost && hidden.from == parted);
        // What an operator hangs up ends then, however long the switch takes.
        let earliest_end = self.hung_up.map_or(earliest_end, |at| at.max(heard).min(earliest_end));
        let late = match (end_is_hidden, lost.count()) {
            (None, _) => EXACT_MS,
            (Some(_), 0) => FOUND_MS,
            (Some(_), 1) => FOUND_AGAIN_MS,
            // Of all that tells of an end nothing came.
            (Some(_), 2..) => LOST_MS,
        };
        let end = earliest_end.saturating_sub(EXACT_MS)..=parted.max(answered) + late;
        let billed = ended.saturating_sub(answered);
        if !talk.contains(&answered) {
            Some(format!("it was answered at {answered}, and not in {talk:?}"))
        } else if !end.contains(&ended) {
            Some(format!("the talk ended at {ended}, and not in {end:?}"))
        } else if billed > parted - heard + late {
            Some(format!("{billed} ms are billed, and {} were talked", parted - heard))
        } else if reason == CallReason::Interrupted && !self.is_hidden_soon_after(parted) {
            Some("its end was seen".to_owned())
        } else {
            None
        }
    }
}

impl Hidden {
    fn end(&self) -> Moment {
        self.until.unwrap_or(Moment::MAX).min(self.latest)
    }

    fn is_open_at(&self, moment: Moment) -> bool {
        self.until.is_none() && moment < self.latest
    }
}

/// An end before everything began isn't after anything else either.
pub fn moment_of(began: Timestamp, at: Timestamp) -> Moment {
    Moment::try_from((at - began).num_milliseconds()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::simulation::town::NUMBERS;

    /// Whether one who was answered and left so much later may be unknown to the service,
    /// from which it was hidden at first.
    fn may_be_unknown(left: Moment, heard: impl FnOnce(&mut Story)) -> bool {
        let caller = Caller { arrives: 0, number: NUMBERS[0], patience_ms: 9_000, talk_ms: 9_000 };
        let mut story = Story::new(caller, "1.0".to_owned());
        story.left = Some(left);
        story.hide(1_000);
        heard(&mut story);
        story.may_be_unknown_since(2_000)
    }

    #[test]
    fn what_was_hidden_is_excused_no_longer_than_a_look_may_take_whether_or_not_there_was_one() {
        assert!(may_be_unknown(90_000, |_| {}), "it was never heard again");
        assert!(may_be_unknown(14_000, |story| story.heard_again(5_000)));
        assert!(!may_be_unknown(16_000, |story| story.heard_again(5_000)));
        let looks_late = |story: &mut Story| {
            story.heard_again(5_000);
            story.look("1.0", 60_000, 60_001, true);
        };
        assert!(!may_be_unknown(50_000, looks_late));
        let looks_at_once = |story: &mut Story| {
            story.heard_again(5_000);
            story.look("1.0", 5_010, 5_011, true);
        };
        assert!(!may_be_unknown(6_000, looks_at_once));
    }

    #[test]
    fn what_hinders_a_look_is_excused_too() {
        let is_deaf_again = |story: &mut Story| {
            story.heard_again(5_000);
            story.hide(6_000);
        };
        assert!(may_be_unknown(90_000, is_deaf_again));
        let loses_a_look = |story: &mut Story| {
            story.heard_again(5_000);
            story.look_is_lost(6_000);
        };
        assert!(may_be_unknown(26_000, loses_a_look));
        assert!(!may_be_unknown(28_000, loses_a_look));
        let is_cut_off = |story: &mut Story| {
            story.cut_off(1_500);
            story.heard_again(5_000);
        };
        assert!(may_be_unknown(90_000, is_cut_off));
        let waits = |story: &mut Story| {
            story.heard_again(5_000);
            story.look_waits(5_500, 3_000);
            story.look_waits(60_000, 60_000);
        };
        assert!(may_be_unknown(17_000, waits));
        assert!(!may_be_unknown(19_000, waits), "what was over stays over");
    }
}
