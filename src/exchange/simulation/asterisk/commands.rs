//! Commands: carried out at some time, or not, and answered, or not.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::people::{Client, Moment};
use super::{APPLICATION, Asterisk, Happening, Shared};
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
    Look(String),
    Channels,
    Bridges,
}

#[derive(Debug)]
pub enum Found {
    Nothing,
    Created,
    Channel { id: String, at: Moment, channel: Option<Channel> },
    Channels(Vec<Channel>),
    Bridges(Vec<Bridge>),
}

pub type Answer = Result<Found, AriError>;
pub type Reply = oneshot::Sender<Answer>;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const FOREVER_MS: u64 = 15_000;
const MOMENT_MS: u64 = 4;

impl Asterisk {
    /// A command is on its way.
    fn take_command(&mut self, command: Command, reply: Reply) {
        if let Command::Add { channel, .. } | Command::HangUp { channel, .. } = &command {
            self.checks.acted_on(channel);
        }
        self.checks.report.commands += 1;
        if let Command::Dial { channel, .. } = &command
            && let Some(leg) = self.channels.get(channel)
        {
            self.checks.about_to_dial(leg.story, self.now);
        }
        if !self.is_running() {
            let nobody = AriError::NotSent { operation: "any", source: "refused".into() };
            return self.plan(1, Happening::Replies(reply, Box::new(Err(nobody))));
        }
        let mut after = self.luck.random_range(0..MOMENT_MS);
        let mut kept = Some(reply);
        if self.is_unreliable {
            match self.luck.random_range(0..200) {
                0..4 => after = self.luck.random_range(0..400),
                // Carried out when nobody waits for it any more.
                4 => after = self.luck.random_range(3_050..6_000),
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
        let answer = if self.is_running() {
            self.carry_out(command)
        } else {
            Err(AriError::OutcomeUnknown { operation: "any", source: "reset".into() })
        };
        let after = self.luck.random_range(0..MOMENT_MS);
        if let Some(reply) = reply {
            self.plan(after, Happening::Replies(reply, Box::new(answer)));
        }
    }

    /// The answer arrives, if somebody still waits for it.
    pub(super) fn reply(&mut self, reply: Reply, answer: Answer) {
        let looked_at = match &answer {
            Ok(Found::Channel { id, at, .. }) => Some((id.clone(), *at)),
            _ => None,
        };
        if reply.send(answer).is_ok()
            && let Some((channel, at)) = looked_at
        {
            self.checks.looked_at(&channel, at, self.line.is_heard());
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
                match self.channels.get(&channel) {
                    None => return refused(400),
                    Some(live) if !live.in_application => return refused(422),
                    Some(_) => {}
                }
                self.leave_bridge(&channel);
                self.channels.get_mut(&channel).expect("it is there").bridge = Some(bridge.clone());
                self.bridges.get_mut(&bridge).expect("it is there").insert(channel);
            }
            Command::Remove { bridge, channel } => {
                let inside = self.bridges.get(&bridge).is_some_and(|all| all.contains(&channel));
                if !inside {
                    return refused(422);
                }
                self.leave_bridge(&channel);
            }
            Command::DestroyBridge(bridge) => {
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
            Command::Dial { channel, timeout_seconds } => match self.channels.get(&channel) {
                None => return not_found(),
                Some(live) if live.leg.as_ref().is_none_or(|leg| leg.dialled) => {
                    return refused(409);
                }
                Some(_) => self.dial_leg(&channel, timeout_seconds),
            },
            Command::Answer(channel) => {
                if !self.channels.contains_key(&channel) {
                    return not_found();
                }
                self.answer_caller(&channel);
            }
            Command::HangUp { channel, cause } => self.hang_up(&channel, cause),
            Command::Look(channel) => {
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
