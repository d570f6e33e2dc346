//! A model of Asterisk, as far as our application can tell the difference.
//!
//! One agenda of [`Happening`]s in the order of their time; [`Asterisk::advance`] lets
//! them happen. What they do to channels is in [`channels`], how they reach the
//! service, or don't, in [`line`], and what commands do in [`commands`].

mod channels;
mod commands;
mod line;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use super::checks::Checks;
use super::people::{Caller, Client, Moment};
use crate::ari::model::{Dialplan, Party};
use crate::ari::{Channel, ChannelId, ChannelState, Event};
use crate::clock::Timestamp;
use crate::ids::CallId;
use commands::Reply;
pub use commands::{Command, Found, Simulated};
use line::Line;

pub const APPLICATION: &str = "capconduit";
/// How long a caller hears ringing while no application is there.
const PATIENCE_MS: u64 = 8_000;
const ASK_AGAIN_MS: u64 = 500;

/// The model, and the bell that is rung when its agenda has changed.
pub struct Shared {
    pub asterisk: Mutex<Asterisk>,
    pub agenda_changed: Notify,
    pub operator_hangs_up: Notify,
    pub asked_to_end: Notify,
}

pub struct Asterisk {
    pub now: Moment,
    pub checks: Checks,
    pub luck: SmallRng,
    /// Whether anything goes wrong that isn't a person's doing.
    pub is_unreliable: bool,
    /// Nothing of the kind has gone wrong, and nothing will.
    pub is_calm: bool,
    /// How much has happened.
    pub steps: u64,
    /// Of everything that has happened, in order.
    pub digest: u64,
    began: Timestamp,
    agenda: BTreeMap<(Moment, u64), Happening>,
    planned: u64,
    channels: BTreeMap<String, Live>,
    bridges: BTreeMap<String, BTreeSet<String>>,
    /// Whose call a bridge is a part of, once somebody was in it.
    bridge_stories: BTreeMap<String, usize>,
    line: Line,
    /// Not yet running before that.
    boots_until: Moment,
    /// Did nothing from then on.
    hangs_since: Moment,
    /// Does nothing before that.
    hangs_until: Moment,
    log: Option<Vec<String>>,
    /// Clients who are dialled next; invented ones come after them.
    clients: VecDeque<Client>,
    /// Calls that an operator hangs up now.
    pub hung_up: Vec<CallId>,
}

/// A channel.
#[derive(Clone, Debug)]
struct Live {
    state: ChannelState,
    in_application: bool,
    /// How long a caller is still kept in the dialplan, where no application is there.
    patience_left: u64,
    /// It was kept there before.
    has_waited: bool,
    bridge: Option<String>,
    /// Whose call it is a part of.
    story: usize,
    leg: Option<Leg>,
    /// The caller is gone, and Asterisk doesn't know.
    is_ghost: bool,
    /// Its next event comes after that.
    told_at: Moment,
    alone_for: u32,
}

#[derive(Clone, Debug)]
struct Leg {
    endpoint: String,
    dialled: bool,
}

/// Something that is about to happen.
#[derive(Debug)]
enum Happening {
    Arrives(usize),
    AsksAgain(String),
    CallerLeaves(String),
    Rings(String),
    SendsEarlyMedia(String),
    /// An operator asks the service to end this leg's call.
    OperatorHangsUp(String),
    Answers {
        leg: String,
        talk_ms: u64,
    },
    /// The answer reaches the caller, if both are still in one bridge.
    AnswerPasses {
        caller: String,
        leg: String,
    },
    LegEnds {
        leg: String,
        cause: i32,
        sip: Option<i32>,
        soft: bool,
    },
    Executes(Command, Option<Reply>),
    Replies(Reply, Box<commands::Answer>),
    Delivers {
        connection: u64,
        event: Box<Event>,
        told: line::Told,
    },
    Breaks {
        half_open_ms: u64,
        lasts_ms: u64,
    },
    Noticed {
        connection: u64,
    },
    Connects,
    Echoes {
        connection: u64,
    },
    /// Somebody who talks drops out of the bridge.
    DropsOut,
    Hangs {
        for_ms: u64,
    },
    Crashes {
        for_ms: u64,
    },
    LooksAround,
}

// === impl Shared ===

impl Shared {
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Asterisk> {
        self.asterisk.lock().unwrap()
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Moment> {
        self.lock().agenda.first_key_value().map(|((at, _), _)| *at)
    }
}

// === impl Asterisk ===

impl Asterisk {
    pub fn shared(seed: u64, began: Timestamp, checks: Checks) -> Arc<Shared> {
        let mut asterisk = Self {
            now: 0,
            checks,
            luck: SmallRng::seed_from_u64(seed),
            is_unreliable: true,
            is_calm: false,
            steps: 0,
            digest: 0,
            began,
            agenda: BTreeMap::new(),
            planned: 0,
            channels: BTreeMap::new(),
            bridges: BTreeMap::new(),
            bridge_stories: BTreeMap::new(),
            line: Line::default(),
            boots_until: 0,
            hangs_since: 0,
            hangs_until: 0,
            log: None,
            clients: VecDeque::new(),
            hung_up: Vec::new(),
        };
        asterisk.plan(0, Happening::LooksAround);
        Arc::new(Shared {
            asterisk: Mutex::new(asterisk),
            agenda_changed: Notify::new(),
            operator_hangs_up: Notify::new(),
            asked_to_end: Notify::new(),
        })
    }

    /// Keeps what happens, for whoever wants to read it.
    pub fn tell(&mut self) {
        self.log = Some(Vec::new());
    }

    pub fn told(&self) -> String {
        self.log.as_ref().map(|log| log.join("\n")).unwrap_or_default()
    }

    pub fn expect(&mut self, callers: Vec<Caller>) {
        for caller in callers {
            let at = caller.arrives;
            let story = self.checks.begin_story(caller);
            self.plan_at(at, Happening::Arrives(story));
        }
    }

    pub fn expect_clients(&mut self, clients: Vec<Client>) {
        self.clients = clients.into();
    }

    /// Breaks down at random, so many times until then.
    pub fn expect_trouble(&mut self, until: Moment, times: u32) {
        for _ in 0..times {
            let at = self.luck.random_range(0..until);
            let trouble = match self.luck.random_range(0..8) {
                6..=7 => Happening::DropsOut,
                0 => Happening::Crashes { for_ms: self.luck.random_range(500..4_000) },
                1..=2 => Happening::Hangs { for_ms: self.luck.random_range(20..7_000) },
                _ => Happening::Breaks {
                    half_open_ms: [0, 2_800][self.luck.random_range(0..2)],
                    lasts_ms: self.luck.random_range(20..6_000),
                },
            };
            self.plan_at(at, trouble);
        }
    }

    /// Lets everything happen that is due by then.
    pub fn advance(&mut self, to: Moment, stop_at: u64) {
        while self.checks.broken.is_none() && self.steps < stop_at {
            let Some(entry) = self.agenda.first_entry() else { break };
            let (at, _) = *entry.key();
            if at > to {
                break;
            }
            let happening = entry.remove();
            self.now = self.now.max(at);
            if self.now < self.hangs_until && happening.waits_for_asterisk() {
                self.plan_at(self.hangs_until, happening);
                continue;
            }
            self.steps += 1;
            self.note(&happening);
            self.happen(happening);
        }
        self.now = self.now.max(to.min(self.next_at().unwrap_or(to)));
    }

    fn next_at(&self) -> Option<Moment> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    fn note(&mut self, happening: &Happening) {
        let mark = (self.now << 6) ^ self.agenda.len() as u64;
        self.digest = self.digest.rotate_left(5) ^ mark.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if let Some(log) = &mut self.log {
            log.push(format!("{:>7} {happening:?}", self.now));
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(story) => self.arrive(story),
            Happening::AsksAgain(channel) => self.ask_again(channel),
            Happening::CallerLeaves(channel) => self.caller_leaves(&channel),
            Happening::Rings(leg) => self.rings(&leg),
            Happening::SendsEarlyMedia(leg) => self.emit_dial(&leg, "PROGRESS"),
            Happening::OperatorHangsUp(leg) => self.operator_hangs_up(&leg),
            Happening::Answers { leg, talk_ms } => self.answers(&leg, talk_ms),
            Happening::AnswerPasses { caller, leg } => self.answer_passes(&caller, &leg),
            Happening::LegEnds { leg, cause, sip, soft } => self.leg_ends(&leg, cause, sip, soft),
            Happening::Executes(command, reply) => self.execute(command, reply),
            Happening::Replies(reply, answer) => self.reply(reply, *answer),
            Happening::Delivers { connection, event, told } => {
                self.deliver(connection, *event, told)
            }
            Happening::Breaks { half_open_ms, lasts_ms } => self.break_line(half_open_ms, lasts_ms),
            Happening::Noticed { connection } => self.notice(connection),
            Happening::Connects => self.connect(),
            Happening::Echoes { connection } => self.echo(connection),
            Happening::DropsOut => self.drop_out(),
            Happening::Hangs { for_ms } => self.hang(for_ms),
            Happening::Crashes { for_ms } => self.crash(for_ms),
            Happening::LooksAround => self.look_around(),
        }
    }

    fn plan(&mut self, after: u64, happening: Happening) {
        self.plan_at(self.now + after, happening);
    }

    fn plan_at(&mut self, at: Moment, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), happening);
    }

    /// True in one of so many cases, while things go wrong at all.
    fn goes_wrong(&mut self, one_in: u32) -> bool {
        self.is_unreliable && self.luck.random_ratio(1, one_in)
    }

    pub fn time(&self) -> Timestamp {
        self.time_of(self.now)
    }

    fn time_of(&self, moment: Moment) -> Timestamp {
        self.began + std::time::Duration::from_millis(moment)
    }

    fn is_running(&self) -> bool {
        self.now >= self.boots_until
    }

    /// Whether everybody has left, and nobody is to come.
    pub fn is_quiet(&self) -> bool {
        let idle = |happening: &Happening| matches!(happening, Happening::LooksAround);
        self.channels.is_empty() && self.agenda.values().all(idle)
    }

    pub fn has_bridges(&self) -> bool {
        !self.bridges.is_empty()
    }

    /// The service serves nobody any more who isn't served yet.
    pub fn takes_no_calls(&mut self, served: &[usize]) {
        self.checks.takes_no_calls(self.now, served);
    }

    /// Nobody who could have been given back to the dialplan is left.
    pub fn must_have_sent_back(&mut self) {
        let is_here = |live: &&Live| live.leg.is_none() && live.in_application && !live.is_ghost;
        let here: Vec<_> = self.channels.values().filter(is_here).map(|live| live.story).collect();
        self.checks.must_have_been_sent_back(&here, self.now);
    }

    /// A promise that a number of things are none.
    pub fn must_not(&mut self, what: &str, count: usize) {
        if count > 0 {
            self.checks.broken.get_or_insert_with(|| format!("{what}: {count}"));
        }
    }

    // --- trouble ---

    fn drop_out(&mut self) {
        let talks = |live: &Live| live.state == ChannelState::Up && live.bridge.is_some();
        let talking: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, live)| talks(live))
            .map(|(id, _)| id.clone())
            .collect();
        if !talking.is_empty() {
            self.checks.report.dropped_out += 1;
            let who = self.luck.random_range(0..talking.len());
            self.leave_bridge(&talking[who]);
        }
    }

    fn hang(&mut self, for_ms: u64) {
        self.checks.report.hangs += 1;
        self.checks.hang(self.now, for_ms);
        self.hangs_since = self.now;
        self.hangs_until = self.now + for_ms;
        let noticed = 2_800;
        if for_ms > noticed {
            let lasts_ms = for_ms - noticed + self.luck.random_range(50..900);
            self.plan(noticed, Happening::Breaks { half_open_ms: 0, lasts_ms });
        }
    }

    /// Everything that it knew is gone, without a word to anybody.
    fn crash(&mut self, for_ms: u64) {
        self.checks.report.crashes_of_asterisk += 1;
        self.boots_until = self.now + for_ms;
        self.hangs_until = 0;
        for (_, channel) in std::mem::take(&mut self.channels) {
            self.checks.cut_off(channel.story, self.now);
        }
        self.bridges.clear();
        self.bridge_stories.clear();
        let lasts_ms = for_ms + self.luck.random_range(20..1_500);
        self.break_line(0, lasts_ms);
        self.unregister();
    }

    /// Looks for what lasts too long.
    fn look_around(&mut self) {
        let sees = self.line.is_open() && self.now >= self.hangs_until && self.is_running();
        for id in self.channels.keys().cloned().collect::<Vec<_>>() {
            let alone = self.is_alone(&id);
            let channel = self.channels.get_mut(&id).expect("its name was just read");
            channel.alone_for = if alone { channel.alone_for + u32::from(sees) } else { 0 };
            self.checks.must_not_stay_alone(&id, channel.alone_for);
        }
        if self.is_calm {
            self.look_for_what_is_left();
        }
        self.plan(500, Happening::LooksAround);
    }

    /// Looks for what nobody needs any more.
    fn look_for_what_is_left(&mut self) {
        for (id, channel) in &self.channels {
            self.checks.must_not_outlive_its_caller(id, channel.story, self.now);
        }
        for bridge in self.bridges.keys() {
            if let Some(story) = self.bridge_stories.get(bridge) {
                self.checks.must_not_outlive_its_caller(bridge, *story, self.now);
            }
        }
    }

    /// Nobody is there to talk to, or to wait for.
    fn is_alone(&self, id: &str) -> bool {
        let channel = &self.channels[id];
        let others = channel.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge));
        channel.in_application && others.is_none_or(|others| others.len() < 2)
    }

    // --- as it shows a channel ---

    fn shown(&self, id: &str, channel: &Live) -> Channel {
        let story = &self.checks.stories[channel.story];
        let exten = if channel.leg.is_some() { "s" } else { story.caller.number };
        let (app_name, app_data) =
            if channel.in_application { ("Stasis", APPLICATION) } else { ("Wait", "0.5") };
        Channel {
            id: ChannelId(id.to_owned()),
            state: channel.state,
            caller: Party { name: String::new(), number: format!("+1555{:07}", channel.story) },
            dialplan: Dialplan {
                exten: exten.to_owned(),
                app_name: app_name.to_owned(),
                app_data: app_data.to_owned(),
            },
        }
    }
}

impl Happening {
    /// Whether it is Asterisk that has to do something.
    const fn waits_for_asterisk(&self) -> bool {
        !matches!(
            self,
            Self::Breaks { .. }
                | Self::Noticed { .. }
                | Self::Hangs { .. }
                | Self::Crashes { .. }
                | Self::LooksAround
                | Self::OperatorHangsUp(_)
        )
    }
}
