//! What must hold, whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use capconduit_entity::{AttemptResult, CallReason};

use super::legs::{self, LegEnd};
use super::people::{Caller, Moment};
use super::report::Report;
use super::story::{Story, UNDER_WAY_MS, moment_of};
use super::town::Town;
use super::vault::is_answered;
use crate::ari::LegId;
use crate::call::{CallRecord, Outcome};
use crate::capacity::{Caps, Scope};
use crate::clock::Timestamp;
use crate::clock::simulated::{self, Defect};
use crate::ids::LinkId;

pub struct Checks {
    town: Arc<Town>,
    began: Timestamp,
    /// Of calls that had no client yet.
    early_defects: Vec<Defect>,
    pub stories: Vec<Story>,
    /// Since when the service takes no calls any more.
    gives_back_since: Option<Moment>,
    /// The first promise that was broken.
    pub broken: Option<String>,
    pub report: Report,
}

/// Looks of half a second each in which the service could see a channel alone. Whoever
/// drops out of a bridge is put back when two audits in a row have found it, which is
/// after 30 seconds, and later where the answer to an audit is lost.
const ALONE_MOST: u32 = 80;
/// For as long as a call is taken down.
const OUTLIVES_MS: Moment = 1_000;
/// What one mishap leaves on the switch at most, that has to be mended: a caller's leg, a
/// client's and their bridge.
const LEFT_BEHIND: u64 = 3;

impl Checks {
    pub fn new(town: Arc<Town>, began: Timestamp) -> Self {
        Self {
            town,
            began,
            early_defects: Vec::new(),
            stories: Vec::new(),
            gives_back_since: None,
            broken: None,
            report: Report::default(),
        }
    }

    pub fn begin_story(&mut self, caller: Caller) -> usize {
        let story = self.stories.len();
        self.stories.push(Story::new(caller, format!("1790000000.{story}")));
        story
    }

    pub fn story_of(&self, channel: &str) -> Option<usize> {
        self.stories.iter().position(|story| story.channel == channel)
    }

    /// The story that a client's leg is a part of.
    pub fn story_of_leg(&self, leg: &str) -> Option<usize> {
        self.stories.iter().position(|story| story.legs.iter().any(|known| known.name == leg))
    }

    // --- what happens ---

    pub fn entered(&mut self, story: usize, at: Moment) {
        self.stories[story].entered.get_or_insert(at);
    }

    /// The caller is in the dialplan again; nobody who is served may be put there.
    pub fn sent_back(&mut self, story: usize) {
        self.report.sent_back += 1;
        let story = &mut self.stories[story];
        story.goes_back();
        if story.link.is_some() || story.heard.is_some() {
            let story = story.clone();
            self.fail(|| format!("one who was served was given back: {story:?}"));
        }
    }

    /// The caller hears the answer of the client that is in its bridge, if one is.
    pub fn heard(&mut self, story: usize, at: Moment, talks_until: Moment, with: Option<String>) {
        let story = &mut self.stories[story];
        story.heard = Some(at);
        story.talks_until = talks_until;
        story.talked_with = with;
    }

    pub fn leg_made(&mut self, story: usize, leg: &str, at: Moment) {
        self.stories[story].leg_made(leg, at);
    }

    /// A client's leg is gone.
    pub fn leg_gone(&mut self, story: usize, leg: &str, end: LegEnd) {
        let story = &mut self.stories[story];
        if story.is_leg(leg) {
            story.parted = Some(end.at);
        }
        if let Some(leg) = story.leg_mut(leg) {
            leg.end = Some(end);
        }
    }

    pub fn left(&mut self, story: usize, at: Moment) {
        self.stories[story].left.get_or_insert(at);
    }

    /// The caller takes the call back as it is answered.
    pub fn taken_back(&mut self, story: usize, at: Moment) {
        self.stories[story].taken_back = true;
        self.left(story, at);
    }

    /// Until it is done, that is when it ended.
    pub fn operator_hangs_up(&mut self, story: usize, at: Moment) {
        self.report.hung_up += 1;
        self.stories[story].hung_up.get_or_insert(at);
    }

    /// Asterisk hangs, and with it the news of who has just taken a call back.
    pub fn hang(&mut self, now: Moment, for_ms: Moment) {
        self.stories.iter_mut().for_each(|story| story.look_waits(now, for_ms));
        let since = now.saturating_sub(UNDER_WAY_MS);
        for story in self.stories.iter_mut().filter(|story| story.taken_back) {
            if let Some(left) = story.left.filter(|left| *left >= since) {
                story.lose(left);
            }
        }
    }

    /// The service wants something done with a channel.
    pub fn acted_on(&mut self, channel: &str) {
        let Some(story) = self.story_of(channel) else { return };
        self.stories[story].is_begun = true;
        let came = self.stories[story].entered;
        if came.zip(self.gives_back_since).is_some_and(|(came, since)| came > since) {
            let story = self.stories[story].clone();
            self.fail(|| format!("a call was taken after all were to be given back: {story:?}"));
        }
    }

    /// The service asks for it to be given back to the dialplan.
    pub fn is_sent_back(&mut self, channel: &str) {
        if let Some(story) = self.story_of(channel) {
            self.stories[story].was_sent_back = true;
        }
    }

    /// The service hung up, for a reason of its call's.
    pub fn released(&mut self, story: usize) {
        self.stories[story].released = true;
    }

    /// The service sent the caller away, whom nobody had answered.
    pub fn told(&mut self, story: usize, cause: i32) {
        self.stories[story].told.get_or_insert(cause);
    }

    /// Asterisk is gone, and everybody on it.
    pub fn cut_off(&mut self, story: usize, at: Moment) {
        self.left(story, at);
        self.hide(story, at);
    }

    /// Nobody hears of it from now on.
    pub fn hide(&mut self, story: usize, now: Moment) {
        self.stories[story].hide(now);
    }

    /// An event was lost.
    pub fn lose(&mut self, story: usize, at: Moment) {
        self.stories[story].lose(at);
    }

    /// The service has looked at a channel, and knows how it was then.
    pub fn looked_at(&mut self, channel: &str, at: Moment, now: Moment, hears: bool) {
        self.note_defects();
        let its = |story: &&mut Story| story.is_leg(channel) || story.channel == channel;
        if let Some(story) = self.stories.iter_mut().find(its) {
            story.look(channel, at, now, hears);
        }
    }

    pub fn heard_again(&mut self, at: Moment) {
        self.stories.iter_mut().for_each(|story| story.heard_again(at));
    }

    /// A command of somebody's got no answer, or a late one: whoever wants to look waits.
    pub fn look_waits(&mut self, story: Option<usize>, at: Moment, for_ms: Moment) {
        for story in self.those(story) {
            story.look_waits(at, for_ms);
        }
    }

    /// The same of the look itself.
    pub fn look_is_lost(&mut self, story: Option<usize>, at: Moment) {
        for story in self.those(story) {
            story.look_is_lost(at);
        }
    }

    /// That story, or all where it isn't known whose it is.
    fn those(&mut self, story: Option<usize>) -> &mut [Story] {
        match story {
            Some(story) => &mut self.stories[story..=story],
            None => &mut self.stories,
        }
    }

    pub fn told_of(&mut self, story: usize, at: Moment) {
        self.stories[story].known_since.get_or_insert(at);
        self.stories[story].is_given_back = self.gives_back_since.is_some();
    }

    /// Whoever comes from now on, or still waits to be served, is given back; so is one who
    /// has just come, as this is read before it. `served` are the callers of live calls.
    pub fn takes_no_calls(&mut self, now: Moment, served: &[usize]) {
        self.gives_back_since = Some(now);
        for (number, story) in self.stories.iter_mut().enumerate() {
            let is_here = story.known_since.is_some() && story.entered.is_some();
            let has_left = story.told_left.is_some_and(|left| left < now);
            story.is_given_back |=
                is_here && !has_left && !story.is_begun && !served.contains(&number);
        }
    }

    /// None who came while there was time is left in the application by a service that ends.
    pub fn must_have_been_sent_back(&mut self, here: &[usize], now: Moment) {
        let Some(since) = self.gives_back_since else { return };
        let left_out = here.iter().map(|story| &self.stories[*story]).find(|story| {
            let heard =
                story.known_since.is_some_and(|known| known.max(since) + UNDER_WAY_MS < now);
            heard && story.is_given_back && !story.is_begun && !story.was_sent_back
        });
        if let Some(story) = left_out.cloned() {
            self.fail(|| format!("it was not given back: {story:?}"));
        }
    }

    pub fn told_left(&mut self, story: usize, at: Moment) {
        self.stories[story].told_left.get_or_insert(at);
    }

    /// The service was told that this leg's client has been dialled.
    pub fn told_dialled(&mut self, leg: &str, at: Moment) {
        if let Some(story) = self.stories.iter_mut().find(|story| story.is_leg(leg)) {
            story.told_dialled(at);
        }
    }

    /// The service that was told is no more, and what was on its way to it is lost.
    pub fn forget_what_was_told(&mut self, now: Moment) {
        self.gives_back_since = None;
        let since = now.saturating_sub(UNDER_WAY_MS);
        for story in &mut self.stories {
            story.told_left = None;
            story.starts_anew();
            story.forget_dialled_since(now);
            if story.entered.is_some() && story.left.is_none_or(|left| left >= since) {
                story.hide(since);
            }
        }
    }

    fn note_defects(&mut self) {
        for defect in simulated::defects() {
            self.report.defects += 1;
            let is_its =
                |leg: &String| LegId::parse(leg).is_some_and(|leg| leg.call == defect.call);
            let its = |story: &&mut Story| story.leg.as_ref().is_some_and(is_its);
            match self.stories.iter_mut().find(its) {
                Some(story) => {
                    story.meets_defect(moment_of(self.began, defect.at), defect.in_a_talk);
                    self.report.defects_outlived += u64::from(story.outlives_defect());
                }
                None => self.early_defects.push(defect),
            }
        }
    }

    fn fail(&mut self, what: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(what);
    }

    // --- what must not happen ---

    pub fn about_to_dial(&mut self, story: usize, now: Moment) {
        let told = self.stories[story].told_left;
        if told.is_some_and(|told| told < now) {
            let story = self.stories[story].clone();
            self.fail(|| format!("a client was dialled after the caller left: {now} {story:?}"));
        }
    }

    /// Who was taken out of the bridge has to be put back, and seen there.
    pub fn taken_out(&mut self, channel: &str) {
        if let Some(story) = self.stories.iter_mut().find(|story| story.is_leg(channel)) {
            story.client_seen = false;
        }
    }

    /// A caller is answered to somebody who is there, or was a moment ago.
    pub fn about_to_answer(&mut self, story: usize, has_client: bool, now: Moment) {
        if !has_client && !self.stories[story].client_seen {
            let story = self.stories[story].clone();
            self.fail(|| format!("a caller was answered to nobody: {now} {story:?}"));
        }
    }

    /// A client has been dialled; `legs` are all that are dialled and up.
    pub fn dialled(&mut self, story: usize, leg: &str, endpoint: &str, legs: &[(usize, String)]) {
        self.report.dialled += 1;
        self.note_defects();
        let number = self.stories[story].caller.number;
        let Some(link) = self.town.link(number, endpoint) else {
            return self.fail(|| format!("{number} is not sold to {endpoint}"));
        };
        if self.stories[story].is_known_as_dialled(link) {
            let story = self.stories[story].clone();
            return self.fail(|| format!("{endpoint} was dialled a second time: {story:?}"));
        }
        if self.stories[story].heard.is_some() {
            let story = self.stories[story].clone();
            return self.fail(|| format!("{endpoint} was dialled for one who talks: {story:?}"));
        }
        if let Some(leg) = self.stories[story].leg_mut(leg) {
            leg.link = Some(link);
        }
        self.stories[story].link = Some(link);
        self.stories[story].leg = Some(leg.to_owned());
        self.stories[story].parted = None;
        self.stories[story].client_seen = false;
        for (scope, caps) in self.town.caps(link) {
            self.must_have_room(scope, &caps, legs);
        }
    }

    fn must_have_room(&mut self, scope: Scope, caps: &Caps, legs: &[(usize, String)]) {
        let counts = |link: Option<LinkId>| {
            link.is_some_and(|link| self.town.caps(link).iter().any(|(known, _)| *known == scope))
        };
        let link_of = |(story, endpoint): &(usize, String)| {
            self.town.link(self.stories[*story].caller.number, endpoint)
        };
        let live = legs.iter().filter(|leg| counts(link_of(leg)));
        let waiting = live.clone().filter(|(story, _)| self.stories[*story].heard.is_none());
        let sold = self.stories.iter().filter(|story| {
            // Whether an answer is counted that nobody saw, nobody knows.
            story.is_known_as_answered() && counts(story.link)
        });
        let names: Vec<_> = sold.clone().map(|story| story.channel.clone()).collect();
        let (live, units) = (live.count(), waiting.count() + sold.count());
        if caps.concurrency.is_some_and(|limit| live > limit as usize) {
            self.fail(|| format!("{live} live calls in {scope:?} under {caps:?}"));
        }
        if caps.volume.iter().flatten().any(|limit| units > *limit as usize) {
            self.fail(|| format!("{units} calls in {scope:?} under {caps:?}, sold: {names:?}"));
        }
    }

    /// The service hangs up, as it does with what it can't lead any more.
    pub fn must_not_be_cut_off(&mut self, story: usize, now: Moment) {
        self.note_defects();
        let story = &self.stories[story];
        if story.outlives_defect() && story.left.is_none() {
            let story = story.clone();
            self.fail(|| format!("a talk was cut off by a single defect: {now} {story:?}"));
        }
    }

    pub fn must_not_stay_alone(&mut self, channel: &str, looks: u32) {
        self.report.alone_most = self.report.alone_most.max(looks);
        if looks > ALONE_MOST {
            self.fail(|| format!("{channel} was left alone"));
        }
    }

    /// Where nothing goes wrong, whatever was a caller's is gone soon after the caller.
    pub fn must_not_outlive_its_caller(&mut self, what: &str, story: usize, now: Moment) {
        let story = &self.stories[story];
        if story.left.is_some_and(|left| left + OUTLIVES_MS < now) {
            let story = story.clone();
            self.fail(|| format!("{what} is still there at {now}: {story:?}"));
        }
    }

    // --- the end ---

    /// Every caller has one record, and it says what happened.
    pub fn records_must_be_right(&mut self, records: &[Arc<CallRecord>]) {
        self.note_defects();
        for Defect { call, at, .. } in std::mem::take(&mut self.early_defects) {
            let record = records.iter().find(|record| record.call == call);
            if let Some(story) = record.and_then(|record| self.story_of(&record.channel)) {
                self.stories[story].meets_defect(moment_of(self.began, at), false);
            }
        }
        let mut by_channel: BTreeMap<&str, Vec<&CallRecord>> = BTreeMap::new();
        for record in records {
            by_channel.entry(&record.channel).or_default().push(record);
        }
        for story in self.stories.clone() {
            let own = by_channel.remove(story.channel.as_str()).unwrap_or_default();
            match own[..] {
                [record] => self.record_must_be_right(&story, record),
                // It was here and gone while nobody looked, and no client knew of it.
                [] if story.was_only_hidden() => {}
                _ => self.fail(|| format!("{} records of {story:?}: {own:?}", own.len())),
            }
        }
        for (channel, own) in by_channel {
            self.fail(|| format!("records of a caller who never was, {channel}: {own:?}"));
        }
        self.volumes_must_be_kept(records);
    }

    /// What was counted of calls is what the records say, where one life counted them all.
    pub fn figures_must_be_right(&mut self, figures: &str, records: &[Arc<CallRecord>]) {
        if self.report.kills + self.report.asked_to_end > 0 {
            return;
        }
        let mut expected = BTreeMap::<String, u64>::new();
        for record in records {
            let Some(Outcome { status, reason }) = record.end.map(|end| end.outcome) else {
                continue;
            };
            let key = format!("capconduit_calls_total{{status=\"{status}\",reason=\"{reason}\"}}");
            *expected.entry(key).or_default() += 1;
            for attempt in &record.attempts {
                let result = attempt.result.unwrap_or(AttemptResult::Canceled);
                let key = format!("capconduit_attempts_total{{result=\"{result}\"}}");
                *expected.entry(key).or_default() += 1;
            }
        }
        let is_counted = |key: &str| {
            let families = ["capconduit_calls_total{", "capconduit_attempts_total{"];
            families.iter().any(|family| key.starts_with(family))
        };
        let counted: BTreeMap<String, u64> = figures
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(key, count)| is_counted(key) && *count != "0")
            .map(|(key, count)| (key.to_owned(), count.parse().expect("a whole number")))
            .collect();
        if counted != expected {
            self.fail(|| format!("counted were {counted:?}, and the records say {expected:?}"));
        }
    }

    /// What had to be mended is what was left behind by something that went wrong.
    pub fn drift_must_be_explained(&mut self, figures: &str) {
        self.note_defects();
        let drift: u64 = figures
            .lines()
            .filter(|line| line.starts_with("capconduit_drift_total{"))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(_, count)| count.parse::<u64>().expect("a whole number"))
            .sum();
        let hidden: usize = self.stories.iter().map(Story::times_hidden).sum();
        let Report { commands_hurt, dropped_out, hangs, defects, .. } = self.report;
        // A hang hurts every command that is under way.
        let hung = hangs * self.stories.len() as u64;
        let mishaps = hidden as u64 + commands_hurt + dropped_out + defects + hung;
        if drift > mishaps * LEFT_BEHIND {
            self.fail(|| format!("{drift} differences were mended after {mishaps} mishaps"));
        }
    }

    fn record_must_be_right(&mut self, story: &Story, record: &CallRecord) {
        self.report.answered += u64::from(is_answered(record));
        self.report.hung_up_answered += u64::from(is_answered(record) && story.hung_up.is_some());
        self.report.exact += u64::from(is_answered(record) && story.is_exact_beside_hidden());
        self.report.whole += u64::from(!story.was_hidden());
        let reason = record.end.map(|end| end.outcome.reason);
        self.report.interrupted += u64::from(reason == Some(CallReason::Interrupted));
        self.report.full += u64::from(reason == Some(CallReason::NoEligibleClientsAvailable));
        let wrong = story.contradiction(record, self.began);
        if let Some(wrong) = wrong.or_else(|| legs::contradiction(story, record)) {
            self.fail(|| format!("{wrong}: {story:?} has the record {record:?}"));
        }
    }

    fn volumes_must_be_kept(&mut self, records: &[Arc<CallRecord>]) {
        let mut sold: BTreeMap<Scope, (u32, Caps)> = BTreeMap::new();
        for record in records.iter().filter(|record| is_answered(record)) {
            let Some(attempt) = record.answered_attempt() else { continue };
            for (scope, caps) in self.town.caps(attempt.link) {
                sold.entry(scope).or_insert((0, caps)).0 += 1;
            }
        }
        for (scope, (calls, caps)) in sold {
            if caps.volume.iter().flatten().any(|limit| calls > *limit) {
                self.fail(|| format!("{calls} calls are recorded in {scope:?} under {caps:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::exchange::simulation::town::NUMBERS;

    const LEG: &str = "0199c3d4-0000-7000-8000-000000000001-b1";

    /// With one caller, whose client is about to be dialled.
    fn checks() -> Checks {
        let town = Arc::new(Town::build(&mut SmallRng::seed_from_u64(1)));
        let mut checks = Checks::new(town, "2026-03-02T10:05:00Z".parse().unwrap());
        let caller = Caller { arrives: 0, number: NUMBERS[0], patience_ms: 9_000, talk_ms: 9_000 };
        let story = checks.begin_story(caller);
        checks.entered(story, 10);
        checks.leg_made(story, LEG, 20);
        checks
    }

    #[test]
    fn a_client_is_dialled_for_one_who_waits_and_never_for_one_who_talks() {
        for talks in [false, true] {
            let mut checks = checks();
            if talks {
                checks.heard(0, 15, 9_000, None);
            }
            checks.dialled(0, LEG, "endpoint-1", &[]);
            assert_eq!(checks.broken.is_some(), talks, "{:?}", checks.broken);
        }
    }

    #[test]
    fn a_difference_that_nothing_explains_is_found() {
        let figures = "capconduit_drift_total{kind=\"call_apart\"} 1\n";
        for is_explained in [false, true] {
            let mut checks = checks();
            if is_explained {
                checks.lose(0, 100);
            }
            checks.drift_must_be_explained(figures);
            assert_eq!(checks.broken.is_none(), is_explained, "{:?}", checks.broken);
        }
    }

    #[test]
    fn what_is_left_of_one_who_left_is_found() {
        for (now, is_left) in [(1_900, false), (2_100, true)] {
            let mut checks = checks();
            checks.must_not_outlive_its_caller(LEG, 0, 99_000);
            checks.left(0, 1_000);
            checks.must_not_outlive_its_caller(LEG, 0, now);
            assert_eq!(checks.broken.is_some(), is_left, "{:?}", checks.broken);
        }
    }
}
