//! Commands: carried out at some time, or not, and answered, or not.

use std::sync::Arc;

use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::people::{Client, Moment};
use super::{APPLICATION, Asterisk, Happening, Shared};
use crate::ari::client::REQUEST_TIMEOUT;
use crate::ari::model::Bridge;
use crate::ari::switch::Done;
use crate::ari::{AriError, Channel, ChannelId, Switch};

/// The switch as the exchange knows it.
pub struct Simulated(pub Arc<Shared>);

#[derive(Clone, Debug)]
pub enum Command {
    CreateBridge(String),
    Add { bridge: String, channel: String },
    Remove { bridge: String, channel: String },
    DestroyBridge(String),
    Create { channel: String, endpoint: String, originator: String },
    Dial { channel: String, timeout_seconds: u32 },
    Answer(String),
    HangUp { channel: String, cause: i32 },
    SendBack { channel: String, life: u64 },
    Look(String),
    Channels,
    Bridges,
}

#[derive(Debug)]
pub enum Found {
    Nothing,
    Created,
    /// The INVITE of this leg was sent.
    Dialled(String),
    Channel {
        id: String,
        at: Moment,
        channel: Option<Channel>,
    },
    Channels(Vec<Channel>),
    Bridges(Vec<Bridge>),
}

pub type Answer = Result<Found, AriError>;
pub type Reply = oneshot::Sender<Answer>;

const FOREVER_MS: u64 = 15_000;
/// An answer that comes so late is just not given up.
const LATE_MS: u64 = 1_900;
const MOMENT_MS: u64 = 4;
/// As long as a command without an answer is waited for, and then some.
const WAIT_MS: u64 = 3_000;

impl Asterisk {
    /// A command is on its way.
    fn take_command(&mut self, command: Command, reply: Reply) {
        if let Command::Add { channel, .. } | Command::HangUp { channel, .. } = &command {
            self.checks.acted_on(channel);
        }
        if let Command::SendBack { channel, .. } = &command {
            self.checks.is_sent_back(channel);
        }
        self.checks.report.commands += 1;
        if let Command::Dial { channel, .. } = &command
            && let Some(leg) = self.channels.get(channel)
        {
            self.checks.about_to_dial(leg.story, self.now);
        }
        if let Command::Answer(caller) = &command
            && let Some(channel) = self.channels.get(caller)
        {
            let (story, has_client) = (channel.story, self.client_beside(caller).is_some());
            self.checks.about_to_answer(story, has_client, self.now);
        }
        if !self.is_running() {
            let nobody = AriError::NotSent { operation: "any", source: "refused".into() };
            return self.plan(1, Happening::Replies(reply, Box::new(Err(nobody))));
        }
        let mut after = self.luck.random_range(0..MOMENT_MS);
        let mut kept = Some(reply);
        if self.is_unreliable {
            let mishap = self.luck.random_range(0..200);
            self.note_mishap(&command, mishap);
            match mishap {
                0..4 => after = self.luck.random_range(0..400),
                // Carried out when nobody waits for it any more.
                4 => after = self.luck.random_range(2_050..6_000),
                // Carried out; the connection breaks before the answer.
                5..=6 => kept = None,
                // Carried out; the answer never comes.
                7 => self.keep_waiting(kept.take()),
                // Never arrived.
                8..=9 => {
                    self.checks.report.commands_lost += 1;
                    return;
                }
                _ => {}
            }
        }
        self.plan(after, Happening::Executes(command, kept));
    }

    /// Whoever wants to look at the call waits for this command, or has to look again.
    fn note_mishap(&mut self, command: &Command, mishap: u32) {
        if mishap > 9 {
            return;
        }
        self.checks.report.commands_hurt += 1;
        let story = self.story_of(command);
        if mishap >= 4 && command.is_look() {
            self.checks.look_is_lost(story, self.now);
        }
        self.checks.look_waits(story, self.now, WAIT_MS);
    }

    /// Whose call a command is about, if that is known.
    fn story_of(&self, command: &Command) -> Option<usize> {
        let channel = match command {
            Command::Create { originator, .. } => originator,
            Command::Add { channel, .. }
            | Command::Remove { channel, .. }
            | Command::Dial { channel, .. }
            | Command::Answer(channel)
            | Command::HangUp { channel, .. }
            | Command::SendBack { channel, .. }
            | Command::Look(channel) => channel,
            Command::CreateBridge(bridge) | Command::DestroyBridge(bridge) => {
                return self.bridge_stories.get(bridge).copied();
            }
            Command::Channels | Command::Bridges => return None,
        };
        self.checks.story_of(channel).or_else(|| self.checks.story_of_leg(channel))
    }

    fn keep_waiting(&mut self, reply: Option<Reply>) {
        let unheard = AriError::NotFound { operation: "any" };
        if let Some(reply) = reply {
            self.plan(FOREVER_MS, Happening::Replies(reply, Box::new(Err(unheard))));
        }
    }

    /// Some of what the service sent as it died never left its host.
    pub(super) fn lose_commands(&mut self) {
        let sent: Vec<_> = self
            .agenda
            .iter()
            .filter(|(_, happening)| matches!(happening, Happening::Executes(..)))
            .map(|(at, _)| *at)
            .collect();
        for at in sent {
            if self.luck.random_ratio(1, 3) {
                self.agenda.remove(&at);
            }
        }
    }

    pub(super) fn execute(&mut self, command: Command, reply: Option<Reply>) {
        let after = self.answers_after(&command);
        let answer = if self.is_running() {
            self.carry_out(command)
        } else {
            Err(AriError::OutcomeUnknown { operation: "any", source: "reset".into() })
        };
        if let Some(reply) = reply {
            self.plan(after, Happening::Replies(reply, Box::new(answer)));
        }
    }

    /// Now and then an answer is long on its way, and old when it arrives.
    fn answers_after(&mut self, command: &Command) -> u64 {
        if !self.is_hurt(150) {
            return self.luck.random_range(0..MOMENT_MS);
        }
        let story = self.story_of(command);
        self.checks.look_waits(story, self.now, WAIT_MS);
        self.luck.random_range(0..LATE_MS)
    }

    /// True in one of so many cases, while things go wrong at all.
    fn is_hurt(&mut self, one_in: u32) -> bool {
        let is_hurt = self.goes_wrong(one_in);
        self.checks.report.commands_hurt += u64::from(is_hurt);
        is_hurt
    }

    /// The answer arrives, if somebody still waits for it.
    pub(super) fn reply(&mut self, reply: Reply, answer: Answer) {
        let (mut looked_at, mut dialled) = (None, None);
        match &answer {
            Ok(Found::Channel { id, at, .. }) => looked_at = Some((id.clone(), *at)),
            Ok(Found::Dialled(leg)) => dialled = Some(leg.clone()),
            _ => {}
        }
        if reply.send(answer).is_err() {
            return;
        }
        if let Some((channel, at)) = looked_at {
            self.checks.looked_at(&channel, at, self.now, self.line.is_heard());
        }
        if let Some(leg) = dialled {
            self.checks.told_dialled(&leg, self.now);
        }
    }

    pub fn carry_out(&mut self, command: Command) -> Answer {
        let not_found = || Err(AriError::NotFound { operation: "any" });
        let refused =
            |status| Err(AriError::Refused { operation: "any", status, detail: String::new() });
        match command {
            Command::CreateBridge(bridge) => {
                self.bridges.entry(bridge).or_default();
                return Ok(Found::Created);
            }
            Command::Add { bridge, channel } => {
                if !self.bridges.contains_key(&bridge) {
                    return not_found();
                }
                let Some(live) = self.channels.get(&channel) else {
                    // One that dies at this moment is put there, and isn't there.
                    return if self.is_hurt(2) { Ok(Found::Nothing) } else { refused(400) };
                };
                // Or it is just entering our application.
                if !live.in_application || self.is_hurt(300) {
                    return refused(422);
                }
                self.leave_bridge(&channel);
                let live = self.channels.get_mut(&channel).expect("it is there");
                live.bridge = Some(bridge.clone());
                self.bridge_stories.insert(bridge.clone(), live.story);
                self.bridges.get_mut(&bridge).expect("it is there").insert(channel);
            }
            Command::Remove { bridge, channel } => {
                let inside = self.bridges.get(&bridge).is_some_and(|all| all.contains(&channel));
                if !inside {
                    return refused(422);
                }
                self.checks.taken_out(&channel);
                self.leave_bridge(&channel);
            }
            Command::DestroyBridge(bridge) => {
                self.bridge_stories.remove(&bridge);
                let Some(inside) = self.bridges.remove(&bridge) else { return not_found() };
                for channel in inside {
                    self.channels.get_mut(&channel).expect("it was inside").bridge = None;
                }
            }
            Command::Create { channel, endpoint, originator } => {
                if self.channels.contains_key(&channel) {
                    return refused(409);
                }
                // A client that is known to be unreachable.
                let known = matches!(self.clients.front(), Some(Client::Unreachable));
                if known || self.clients.is_empty() && self.luck.random_ratio(1, 14) {
                    self.clients.pop_front();
                    return refused(500);
                }
                let Some(story) = self.checks.story_of(&originator) else { return refused(400) };
                self.create_leg(&channel, story, &endpoint);
                return Ok(Found::Created);
            }
            Command::Dial { channel, timeout_seconds } => {
                let Some(live) = self.channels.get(&channel) else { return not_found() };
                if live.leg.as_ref().is_none_or(|leg| leg.dialled) {
                    return refused(409);
                }
                // It is just entering our application.
                if self.is_hurt(300) {
                    return refused(409);
                }
                self.dial_leg(&channel, timeout_seconds);
                return Ok(Found::Dialled(channel));
            }
            Command::Answer(channel) => {
                if !self.channels.contains_key(&channel) {
                    return not_found();
                }
                if self.is_hurt(40) {
                    return refused([412, 500][self.luck.random_range(0..2)]);
                }
                self.answer_caller(&channel);
            }
            Command::HangUp { channel, cause } => self.hang_up(&channel, cause),
            Command::SendBack { channel, life } => {
                let Some(live) = self.channels.get(&channel) else { return not_found() };
                // Taken for granted, and sure by nothing: that it isn't carried out so late that
                // the next life of the service has the caller.
                if !live.in_application || life != self.line.life() {
                    return refused(409);
                }
                self.send_back(&channel);
            }
            Command::Look(channel) => {
                self.note_client_seen(&channel);
                let live = self.channels.get(&channel).map(|live| self.shown(&channel, live));
                return Ok(Found::Channel { id: channel, at: self.now, channel: live });
            }
            Command::Channels => {
                let all = self.channels.iter().map(|(id, live)| self.shown(id, live));
                return Ok(Found::Channels(all.collect()));
            }
            Command::Bridges => {
                let all = self.bridges.iter().map(|(id, inside)| Bridge {
                    id: id.clone(),
                    channels: inside.iter().cloned().map(ChannelId).collect(),
                });
                return Ok(Found::Bridges(all.collect()));
            }
        }
        Ok(Found::Nothing)
    }
}

impl Command {
    /// Whether it asks what is there.
    const fn is_look(&self) -> bool {
        matches!(self, Self::Look(_) | Self::Channels | Self::Bridges)
    }
}

// === impl Simulated ===

impl Simulated {
    async fn ask(&self, operation: &'static str, command: Command) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.0.lock().take_command(command, reply);
        self.0.agenda_changed.notify_one();
        let unknown =
            |why: &'static str| AriError::OutcomeUnknown { operation, source: why.into() };
        match timeout(REQUEST_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unknown("the connection broke")),
            Err(_) => Err(unknown("no answer in time")),
        }
    }

    async fn order(&self, operation: &'static str, command: Command) -> Done {
        self.ask(operation, command).await.map(drop)
    }
}

#[async_trait::async_trait]
impl Switch for Simulated {
    fn application(&self) -> &str {
        APPLICATION
    }

    async fn create_bridge(&self, bridge: &str) -> Done {
        self.order("create bridge", Command::CreateBridge(bridge.to_owned())).await
    }

    async fn add_to_bridge(&self, bridge: &str, channel: &str) -> Done {
        let (bridge, channel) = (bridge.to_owned(), channel.to_owned());
        self.order("add to bridge", Command::Add { bridge, channel }).await
    }

    async fn remove_from_bridge(&self, bridge: &str, channel: &str) -> Done {
        let (bridge, channel) = (bridge.to_owned(), channel.to_owned());
        match self.order("remove from bridge", Command::Remove { bridge, channel }).await {
            Err(AriError::NotFound { .. } | AriError::Refused { .. }) => Ok(()),
            done => done,
        }
    }

    async fn destroy_bridge(&self, bridge: &str) -> Done {
        match self.order("destroy bridge", Command::DestroyBridge(bridge.to_owned())).await {
            Err(AriError::NotFound { .. }) => Ok(()),
            done => done,
        }
    }

    async fn create_channel(&self, channel: &str, endpoint: &str, originator: &str) -> Done {
        let endpoint = endpoint.trim_start_matches("PJSIP/").to_owned();
        let (channel, originator) = (channel.to_owned(), originator.to_owned());
        self.order("create channel", Command::Create { channel, endpoint, originator }).await
    }

    async fn dial(&self, channel: &str, _: &str, timeout_seconds: u32) -> Done {
        self.order("dial", Command::Dial { channel: channel.to_owned(), timeout_seconds }).await
    }

    async fn answer(&self, channel: &str) -> Done {
        self.order("answer", Command::Answer(channel.to_owned())).await
    }

    async fn hang_up(&self, channel: &str, cause: i32) -> Done {
        self.order("hang up", Command::HangUp { channel: channel.to_owned(), cause }).await
    }

    async fn send_back(&self, channel: &str) -> Done {
        let life = self.0.lock().line.life();
        let channel = channel.to_owned();
        match self.order("send back", Command::SendBack { channel, life }).await {
            Err(AriError::NotFound { .. } | AriError::Refused { .. }) => Ok(()),
            done => done,
        }
    }

    async fn channel(&self, channel: &str) -> Result<Option<Channel>, AriError> {
        match self.ask("look up channel", Command::Look(channel.to_owned())).await? {
            Found::Channel { channel, .. } => Ok(channel),
            other => panic!("a channel was asked for: {other:?}"),
        }
    }

    async fn channels(&self) -> Result<Vec<Channel>, AriError> {
        match self.ask("list channels", Command::Channels).await? {
            Found::Channels(channels) => Ok(channels),
            other => panic!("channels were asked for: {other:?}"),
        }
    }

    async fn bridges(&self) -> Result<Vec<Bridge>, AriError> {
        match self.ask("list bridges", Command::Bridges).await? {
            Found::Bridges(bridges) => Ok(bridges),
            other => panic!("bridges were asked for: {other:?}"),
        }
    }
}
