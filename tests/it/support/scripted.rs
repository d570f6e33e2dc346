//! A switch that speaks ARI and does what a test says, where a real Asterisk
//! can't be made to: it loses answers and events, refuses, doubles, lags, hangs,
//! reboots, and gives an application's name away.
//!
//! It is a small model: channels, bridges, and the events that go with them, as
//! traces of Asterisk 22.10 show them. Callers and clients are moved by the test.

mod model;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::model::Model;
use super::wait::{eventually, seconds};

/// What befalls a command.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Carried out at once, answered late.
    AnsweredLate(Duration),
    /// Carried out, and the connection closed without an answer.
    AnswerLost,
    /// Not carried out, and the connection closed: as when a request meets the
    /// end of an idle connection.
    Lost,
    /// Carried out, and never answered.
    Unanswered,
    /// Not carried out.
    Refused(u16),
    /// Carried out, and yet answered with a refusal, as a repetition would be.
    DoneButRefused(u16),
    /// Answered with 204, but the channel dies in this moment, and no event tells.
    ChannelDies,
}

/// What kind of server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Open,
    /// Connections are taken and closed at once, like those over `sessionlimit`.
    Closed,
    /// Every request is answered with this: 503 while it boots, 404 while it
    /// loads its modules.
    Answers(u16),
    /// Packets get lost: nothing is read or written any more, and what connects
    /// anew is never answered.
    Silent,
}

/// How events reach the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Passing,
    /// Each event is sent twice.
    Doubled,
    /// Kept back until [`ScriptedSwitch::release`].
    Held,
    /// Events are lost; probes of the connection come back.
    Lost,
    /// Connected, and nothing ever comes: what a race at the connection leaves.
    Nothing,
}

/// What is said over an event socket.
enum Say {
    Text(String),
    /// Broken off, as by a crash.
    Break,
}

struct Shared {
    model: Mutex<Model>,
    door: watch::Sender<Door>,
}

pub struct ScriptedSwitch {
    pub port: u16,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

const PATIENCE: Duration = seconds(15);

// === impl ScriptedSwitch ===

impl ScriptedSwitch {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (door, _) = watch::channel(Door::Open);
        let shared = Arc::new(Shared { model: Mutex::default(), door });
        let server = tokio::spawn(wire::serve(listener, shared.clone()));
        Self { port, shared, server }
    }

    // --- what is wrong with it ---

    /// Of the next commands of this name, all after the first `skip` and no more
    /// than `times` meet this fault.
    pub fn fail(&self, command: &'static str, skip: u32, times: u32, fault: Fault) {
        self.shared.model.lock().rules.push(model::Rule { command, skip, times, fault });
    }

    pub fn set_door(&self, door: Door) {
        self.shared.door.send_replace(door);
    }

    pub fn set_flow(&self, flow: Flow) {
        self.shared.model.lock().flow = flow;
    }

    /// Sends the events that were held, the newest first if they are to be `reversed`.
    pub fn release(&self, reversed: bool) {
        let mut model = self.shared.model.lock();
        let mut held = std::mem::take(&mut model.held);
        if reversed {
            held.reverse();
        }
        model.flow = Flow::Passing;
        for event in held {
            model.emit(event);
        }
    }

    /// Its clock is ahead of ours by so much.
    pub fn set_clock_ahead(&self, by: chrono::TimeDelta) {
        self.shared.model.lock().clock_ahead = by;
    }

    /// Breaks the event socket's connection.
    pub fn break_socket(&self) {
        let socket = self.shared.model.lock().socket.take();
        drop(socket.expect("it is connected").send(Say::Break));
    }

    /// Another application of the same name has connected: what was connected is
    /// told, and gets nothing any more.
    pub fn replace_application(&self) {
        let mut model = self.shared.model.lock();
        model.say(serde_json::json!({"type": "ApplicationReplaced"}));
        let replaced = model.socket.take();
        model.replaced.extend(replaced);
    }

    /// Sends this as it is.
    pub fn send_raw(&self, text: &str) {
        let model = self.shared.model.lock();
        let socket = model.socket.as_ref().expect("it is connected");
        drop(socket.send(Say::Text(text.to_owned())));
    }

    /// Says so many things that nobody acts on, if somebody is connected.
    pub fn babble(&self, count: usize) {
        let model = self.shared.model.lock();
        for _ in 0..count {
            model.say(serde_json::json!({"type": "InventedLater"}));
        }
    }

    /// Crashes and is there again: no channel, no bridge, nobody is told.
    pub fn reboot(&self) {
        let mut model = self.shared.model.lock();
        model.boots += 1;
        model.channels.clear();
        model.bridges.clear();
        if let Some(socket) = model.socket.take() {
            drop(socket.send(Say::Break));
        }
    }

    // --- callers and clients ---

    /// Somebody calls this number; the caller's channel.
    pub fn call(&self, number: &str) -> String {
        self.shared.model.lock().arrive(number)
    }

    /// Waits until this many legs were dialled; the last of these.
    pub async fn dialled(&self, count: usize) -> String {
        self.listed("dialled legs", count, |model| &model.dialled).await
    }

    /// Waits until this many legs were made, dialled or not; the last of these.
    pub async fn created(&self, count: usize) -> String {
        self.listed("legs", count, |model| &model.created).await
    }

    async fn listed(&self, what: &str, count: usize, list: fn(&Model) -> &Vec<String>) -> String {
        eventually(&format!("{count} {what}"), PATIENCE, async || {
            list(&self.shared.model.lock()).get(count - 1).cloned()
        })
        .await
    }

    /// The client takes the call.
    pub fn answer(&self, leg: &str) {
        self.shared.model.lock().answered(leg);
    }

    /// Whoever is at this channel hangs up, or refuses.
    pub fn hang_up(&self, channel: &str, cause: i32, sip: Option<i32>) {
        self.shared.model.lock().end(channel, cause, sip, false);
    }

    /// Whoever is at this channel leaves, and nothing tells of it but that the channel has
    /// left the application.
    pub fn leave(&self, channel: &str) {
        self.shared.model.lock().leave(channel);
    }

    /// The channel is gone, and no event says so.
    pub fn vanish(&self, channel: &str) {
        self.shared.model.lock().remove(channel);
    }

    // --- what it was asked, and what it has ---

    /// How often this was asked for, carried out or not.
    pub fn asked(&self, command: &str) -> usize {
        self.shared.model.lock().asked.iter().filter(|asked| **asked == command).count()
    }

    /// How many legs were dialled so far.
    pub fn dialled_so_far(&self) -> usize {
        self.shared.model.lock().dialled.len()
    }

    /// When the application last heard of it, as it says: in seconds since 1970.
    pub fn heard(&self) -> Option<i64> {
        let model = self.shared.model.lock();
        model.variable.strip_prefix("variable=CAPCONDUIT_HEARD&value=")?.parse().ok()
    }

    /// How often an event socket was connected.
    pub fn connections(&self) -> usize {
        self.shared.model.lock().connections
    }

    /// How many connections found the door closed, and requests were answered by it.
    pub fn refused_connections(&self) -> usize {
        self.shared.model.lock().open.refused
    }

    /// The most connections that were open at once.
    pub fn most_open(&self) -> usize {
        self.shared.model.lock().open.most
    }

    pub fn is_connected(&self) -> bool {
        self.shared.model.lock().socket.is_some()
    }

    /// Waits until an event socket was connected so many times.
    pub async fn connected(&self, times: usize) {
        eventually(&format!("connection {times}"), PATIENCE, async || {
            let model = self.shared.model.lock();
            (model.connections >= times && model.socket.is_some()).then_some(())
        })
        .await;
    }

    pub fn is_there(&self, channel: &str) -> bool {
        self.shared.model.lock().channels.contains_key(channel)
    }

    pub fn is_up(&self, channel: &str) -> bool {
        self.shared.model.lock().channels.get(channel).is_some_and(|channel| channel.is_up())
    }

    /// Waits until this channel is gone; the cause with which the application ended
    /// it, if it did.
    pub async fn gone(&self, channel: &str) -> Option<i32> {
        eventually(&format!("{channel} is gone"), PATIENCE, async || {
            (!self.is_there(channel)).then_some(())
        })
        .await;
        self.shared.model.lock().released.get(channel).copied()
    }

    /// Channels that are in one bridge with this one.
    pub fn bridged_with(&self, channel: &str) -> HashSet<String> {
        let model = self.shared.model.lock();
        let bridge = model.bridges.values().find(|members| members.contains(channel));
        let others = bridge.into_iter().flatten().filter(|member| *member != channel);
        others.cloned().collect()
    }
}

impl Drop for ScriptedSwitch {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Socket = mpsc::UnboundedSender<Say>;
