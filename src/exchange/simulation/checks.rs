//! What must hold, whatever happens; and what became of each caller in truth.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use capconduit_entity::CallReason;
use chrono::TimeDelta;

use super::people::{Caller, Moment};
use super::town::Town;
use super::vault::is_answered;
use crate::call::CallRecord;
use crate::capacity::{Caps, Scope};
use crate::clock::Timestamp;
use crate::ids::{CallId, LinkId};

pub struct Checks {
    town: Arc<Town>,
    pub stories: Vec<Story>,
    /// The first promise that was broken.
    pub broken: Option<String>,
    pub report: Report,
}

/// What became of a caller.
#[derive(Clone, Debug)]
pub struct Story {
    pub caller: Caller,
    pub channel: String,
    /// The application had the call.
    pub entered: bool,
    /// When it heard the 200.
    pub heard: Option<Moment>,
    pub talks_until: Moment,
    pub left: Option<Moment>,
    /// When the service was told that it had left.
    told_left: Option<Moment>,
    /// Something of it was hidden from the service.
    unseen: bool,
    /// The service sent the caller away.
    released: bool,
    /// Over which the last client was dialled.
    link: Option<LinkId>,
}

/// What happened in how many calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub broken: Option<String>,
    pub digest: u64,
    pub calls: u64,
    pub answered: u64,
    pub interrupted: u64,
    pub dialled: u64,
    pub full: u64,
    pub kills: u64,
    pub crashes_of_asterisk: u64,
    pub hangs: u64,
    pub breaks: u64,
    pub ghosts: u64,
    pub dropped_out: u64,
    pub defects: u64,
    pub commands: u64,
    pub commands_lost: u64,
    pub events_lost: u64,
    pub events_doubled: u64,
    pub steps: u64,
}

/// Looks of half a second each in which the service saw a channel alone.
const ALONE_MOST: u32 = 80;
/// The end of a call that left so long ago was led by whoever leads now.
const UNDER_WAY_MS: u64 = 12_000;
const EXACT: TimeDelta = TimeDelta::milliseconds(300);

impl Checks {
    pub fn new(town: Arc<Town>) -> Self {
        Self { town, stories: Vec::new(), broken: None, report: Report::default() }
    }

    pub fn begin_story(&mut self, caller: Caller) -> usize {
        let story = self.stories.len();
        self.stories.push(Story {
            caller,
            channel: format!("1790000000.{story}"),
            entered: false,
            heard: None,
            talks_until: 0,
            left: None,
            told_left: None,
            unseen: false,
            released: false,
            link: None,
        });
        story
    }

    pub fn story_of(&self, channel: &str) -> Option<usize> {
        self.stories.iter().position(|story| story.channel == channel)
    }

    // --- what happens ---

    pub fn entered(&mut self, story: usize) {
        self.stories[story].entered = true;
    }

    pub fn heard(&mut self, story: usize, at: Moment, talks_until: Moment) {
        let story = &mut self.stories[story];
        story.heard = Some(at);
        story.talks_until = talks_until;
    }

    pub fn left(&mut self, story: usize, at: Moment) {
        self.stories[story].left.get_or_insert(at);
    }

    /// The service hung up, for a reason of its call's.
    pub fn released(&mut self, story: usize) {
        self.stories[story].released = true;
    }

    /// Asterisk is gone, and everybody on it.
    pub fn cut_off(&mut self, story: usize, at: Moment) {
        self.left(story, at);
        self.was_unseen(story);
    }

    pub fn was_unseen(&mut self, story: usize) {
        self.stories[story].unseen = true;
    }

    pub fn told_left(&mut self, story: usize, at: Moment) {
        self.stories[story].told_left.get_or_insert(at);
    }

    /// The service that was told is no more.
    pub fn forget_what_was_told(&mut self, now: Moment) {
        for story in &mut self.stories {
            story.told_left = None;
            let has_come = story.caller.arrives <= now;
            story.unseen |= has_come && story.left.is_none_or(|left| left + UNDER_WAY_MS > now);
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

    /// A client has been dialled; `legs` are all that are dialled and up.
    pub fn dialled(&mut self, story: usize, endpoint: &str, legs: &[(usize, String)]) {
        self.report.dialled += 1;
        let number = self.stories[story].caller.number;
        let Some(link) = self.town.link(number, endpoint) else {
            return self.fail(|| format!("{number} is not sold to {endpoint}"));
        };
        self.stories[story].link = Some(link);
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
            let seen = !story.unseen || story.left.is_none();
            story.heard.is_some() && seen && counts(story.link)
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

    pub fn must_not_stay_alone(&mut self, channel: &str, looks: u32) {
        if looks > ALONE_MOST {
            self.fail(|| format!("{channel} was left alone"));
        }
    }

    // --- the end ---

    /// Every caller has one record, and it says what happened.
    pub fn records_must_be_right(
        &mut self,
        records: &[Arc<CallRecord>],
        cut_off: &[CallId],
        began: Timestamp,
    ) {
        self.report.defects += cut_off.len() as u64;
        for record in records.iter().filter(|record| cut_off.contains(&record.call)) {
            if let Some(story) = self.story_of(&record.channel) {
                self.was_unseen(story);
            }
        }
        let mut by_channel: BTreeMap<&str, Vec<&CallRecord>> = BTreeMap::new();
        for record in records {
            by_channel.entry(&record.channel).or_default().push(record);
        }
        for story in self.stories.clone() {
            let own = by_channel.remove(story.channel.as_str()).unwrap_or_default();
            match own[..] {
                [record] => self.record_must_be_right(&story, record, began),
                // It was here and gone while nobody looked, and no client knew of it.
                [] if !story.entered => {}
                [] if story.unseen && story.link.is_none() && !story.released => {}
                _ => self.fail(|| format!("{} records of {story:?}: {own:?}", own.len())),
            }
        }
        for (channel, own) in by_channel {
            self.fail(|| format!("records of a caller who never was, {channel}: {own:?}"));
        }
        self.volumes_must_be_kept(records);
    }

    fn record_must_be_right(&mut self, story: &Story, record: &CallRecord, began: Timestamp) {
        self.report.answered += u64::from(is_answered(record));
        let Some(end) = record.end else {
            return self.fail(|| format!("a record without an end: {record:?}"));
        };
        self.report.interrupted += u64::from(end.outcome.reason == CallReason::Interrupted);
        self.report.full += u64::from(end.outcome.reason == CallReason::NoEligibleClientsAvailable);
        if story.unseen {
            return;
        }
        let time = |moment: Moment| began + std::time::Duration::from_millis(moment);
        let is_right = match (story.heard, story.left, record.answered_at) {
            (None, _, None) => !is_answered(record),
            (Some(heard), Some(left), Some(answered)) => {
                is_answered(record)
                    && (answered - time(heard)).abs() <= EXACT
                    && (time(heard) - EXACT..=time(left) + EXACT).contains(&end.at)
            }
            _ => false,
        };
        if !is_right {
            self.fail(|| format!("{story:?} has the record {record:?}"));
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

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.answered += other.answered;
        self.interrupted += other.interrupted;
        self.dialled += other.dialled;
        self.full += other.full;
        self.kills += other.kills;
        self.crashes_of_asterisk += other.crashes_of_asterisk;
        self.hangs += other.hangs;
        self.breaks += other.breaks;
        self.ghosts += other.ghosts;
        self.dropped_out += other.dropped_out;
        self.defects += other.defects;
        self.commands += other.commands;
        self.commands_lost += other.commands_lost;
        self.events_lost += other.events_lost;
        self.events_doubled += other.events_doubled;
        self.steps += other.steps;
    }

    /// Everything that can happen has happened.
    #[track_caller]
    pub fn assert_eventful(&self) {
        let all = [
            self.answered,
            self.interrupted,
            self.dialled,
            self.full,
            self.kills,
            self.crashes_of_asterisk,
            self.hangs,
            self.breaks,
            self.ghosts,
            self.dropped_out,
            self.defects,
            self.commands_lost,
            self.events_lost,
            self.events_doubled,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls: {} answered, {} interrupted, {} refused for want of room; {} clients dialled; \
             the service killed {} times, Asterisk crashed {} times, hung {} times, the socket broke \
             {} times; {} commands, {} lost; {} events lost, {} doubled; {} cancels met an answer, {} dropped out of their bridge; {} steps",
            self.calls,
            self.answered,
            self.interrupted,
            self.full,
            self.dialled,
            self.kills,
            self.crashes_of_asterisk,
            self.hangs,
            self.breaks,
            self.commands,
            self.commands_lost,
            self.events_lost,
            self.events_doubled,
            self.ghosts,
            self.dropped_out,
            self.steps,
        )
    }
}
