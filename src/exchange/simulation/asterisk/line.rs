//! The event socket: what is told, when, and whether it arrives.

use rand::RngExt;
use tokio::sync::mpsc;

use super::super::people::Moment;
use super::super::story::moment_of;
use super::{Asterisk, Happening};
use crate::ari::{Channel, Event, EventKind, Signal};

/// The connection on which the service hears.
#[derive(Debug, Default)]
pub struct Line {
    signals: Option<mpsc::Sender<Signal>>,
    /// Of the service.
    life: u64,
    connection: u64,
    /// What is sent arrives.
    open: bool,
    /// Asterisk believes that an application is there.
    registered: bool,
    /// A probe has come back on this connection.
    echoed: bool,
    /// When the last probe came back on the one before.
    heard: Moment,
    /// Which start of Asterisk the service has spoken to.
    started: Option<u64>,
}

/// Whom an event tells what, for the checks.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// The caller of this story has come.
    CallerCame(usize),
    /// The caller of this story is gone.
    CallerGone(usize),
    Other(usize),
}

const LAG_MS: u64 = 4;
/// As long as an event may be behind the answer to a command.
const LAG_MOST_MS: u64 = 150;

impl Line {
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// The service hears, and knows that it does.
    pub const fn is_heard(&self) -> bool {
        self.open && self.echoed
    }

    pub const fn is_registered(&self) -> bool {
        self.registered
    }

    /// Which life of the service it is that listens, or was the last that did.
    pub const fn life(&self) -> u64 {
        self.life
    }
}

impl Asterisk {
    /// The service begins to listen.
    pub fn attach(&mut self, signals: mpsc::Sender<Signal>) {
        self.line.signals = Some(signals);
        self.line.life += 1;
        let after = self.luck.random_range(2..80);
        self.plan(after, Happening::Connects);
    }

    /// Whether the service runs.
    pub(super) const fn is_attached(&self) -> bool {
        self.line.signals.is_some()
    }

    /// The service is no more: its connections are closed by its host.
    pub fn detach(&mut self) {
        self.line.signals = None;
        self.line.open = false;
        self.line.registered = false;
        self.line.echoed = false;
        self.line.started = None;
        self.line.connection += 1;
        self.agenda.retain(|_, happening| !matches!(happening, Happening::Connects));
        self.checks.forget_what_was_told(self.now);
        self.lose_commands();
    }

    /// An event of a channel, as it is now.
    pub(super) fn emit(&mut self, id: &str, kind: impl FnOnce(Channel) -> EventKind) {
        let channel = &self.channels[id];
        let (story, is_leg) = (channel.story, channel.leg.is_some());
        let kind = kind(self.shown(id, channel));
        let after = if self.goes_wrong(50) { LAG_MOST_MS } else { LAG_MS };
        let lag = self.luck.random_range(0..after);
        if !self.line.open {
            self.checks.report.events_lost += 1;
            self.checks.hide(story, self.now);
            return;
        }
        if self.goes_wrong(400) {
            self.checks.report.events_lost += 1;
            self.checks.lose(story, self.now);
            return;
        }
        // Events of one channel keep their order.
        let channel = self.channels.get_mut(id).expect("it was just there");
        channel.told_at = channel.told_at.max(self.now + lag);
        let at = channel.told_at;
        let told = match &kind {
            EventKind::StasisStart { .. } if !is_leg => Told::CallerCame(story),
            // One who goes back to the dialplan leaves the application, and comes again.
            EventKind::StasisEnd { .. } if self.checks.stories[story].left.is_none() => {
                Told::Other(story)
            }
            EventKind::StasisEnd { .. } | EventKind::ChannelDestroyed { .. } if !is_leg => {
                Told::CallerGone(story)
            }
            _ => Told::Other(story),
        };
        let connection = self.line.connection;
        let event = Box::new(Event { at: self.time(), kind });
        if self.goes_wrong(200) {
            self.checks.report.events_doubled += 1;
            let again = at + self.luck.random_range(0..LAG_MOST_MS);
            let event = event.clone();
            self.plan_at(again, Happening::Delivers { connection, event, told });
        }
        self.plan_at(at, Happening::Delivers { connection, event, told });
    }

    pub(super) fn deliver(&mut self, connection: u64, event: Event, told: Told) {
        if !self.line.open || connection != self.line.connection {
            self.checks.report.events_lost += 1;
            let (Told::CallerCame(story) | Told::CallerGone(story) | Told::Other(story)) = told;
            // Of one who is in the dialplan again nothing is to be known.
            if self.checks.stories[story].entered.is_some() {
                self.checks.lose(story, moment_of(self.began, event.at));
            }
            return;
        }
        match told {
            Told::CallerCame(story) => self.checks.told_of(story, self.now),
            Told::CallerGone(story) => self.checks.told_left(story, self.now),
            Told::Other(_) => {}
        }
        self.signal(Signal::Event(event));
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(signals) = &self.line.signals {
            signals.try_send(signal).expect("the registry keeps up");
        }
    }

    /// Of an Asterisk that has crashed no application is known to the next one.
    pub(super) const fn unregister(&mut self) {
        self.line.registered = false;
    }

    pub(super) fn break_line(&mut self, half_open_ms: u64, lasts_ms: u64) {
        if !self.line.open {
            return;
        }
        self.checks.report.breaks += 1;
        self.line.open = false;
        self.line.registered = half_open_ms > 0;
        self.line.connection += 1;
        // A probe comes back once a second, and none while Asterisk hangs.
        let deaf_since = if self.now <= self.hangs_until { self.hangs_since } else { self.now };
        self.line.heard = deaf_since.saturating_sub(self.luck.random_range(0..1_000));
        for channel in self.channels.values().filter(|channel| channel.in_application) {
            self.checks.hide(channel.story, deaf_since);
        }
        let connection = self.line.connection;
        self.plan(half_open_ms, Happening::Noticed { connection });
        self.plan(half_open_ms + lasts_ms, Happening::Connects);
    }

    pub(super) fn notice(&mut self, connection: u64) {
        if connection != self.line.connection {
            return;
        }
        self.line.registered = false;
        if std::mem::take(&mut self.line.echoed) {
            self.signal(Signal::Down { heard: self.time_of(self.line.heard) });
        }
    }

    pub(super) fn connect(&mut self) {
        if self.line.signals.is_none() || self.line.open {
            return;
        }
        if !self.is_running() {
            return self.plan(200, Happening::Connects);
        }
        self.line.open = true;
        self.line.registered = true;
        self.line.connection += 1;
        let started = self.checks.report.crashes_of_asterisk;
        if self.line.started.replace(started).is_some_and(|before| before != started) {
            self.signal(Signal::Restarted);
        }
        let (connection, after) = (self.line.connection, self.luck.random_range(2..30));
        self.plan(after, Happening::Echoes { connection });
    }

    pub(super) fn echo(&mut self, connection: u64) {
        if connection == self.line.connection && self.line.open {
            self.line.echoed = true;
            self.checks.heard_again(self.now);
            self.signal(Signal::Up);
        }
    }
}
