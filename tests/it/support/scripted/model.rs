//! Channels, bridges, and the events that tell of them.

use std::collections::{BTreeMap, BTreeSet};

use capconduit::clock;
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Fault, Flow, Say, Socket};

pub struct Model {
    pub channels: BTreeMap<String, Channel>,
    pub bridges: BTreeMap<String, BTreeSet<String>>,
    pub rules: Vec<Rule>,
    pub flow: Flow,
    pub held: Vec<Value>,
    pub clock_ahead: TimeDelta,
    /// Where events go.
    pub socket: Option<Socket>,
    /// Connected still, and without events for good.
    pub replaced: Vec<Socket>,
    pub connections: usize,
    pub open: Open,
    pub asked: Vec<&'static str>,
    pub created: Vec<String>,
    pub dialled: Vec<String>,
    /// Channels that the application ended, and with which cause.
    pub released: BTreeMap<String, i32>,
    /// How often it was started anew.
    pub boots: usize,
    /// The query with which its newest variable was set.
    pub variable: String,
    callers: usize,
}

/// Connections, of every kind.
#[derive(Default)]
pub struct Open {
    pub now: usize,
    pub most: usize,
    pub refused: usize,
}

pub struct Channel {
    state: &'static str,
    exten: String,
    caller: String,
}

/// See [`ScriptedSwitch::fail`](super::ScriptedSwitch::fail).
pub struct Rule {
    pub command: &'static str,
    pub skip: u32,
    pub times: u32,
    pub fault: Fault,
}

/// A status and a body.
pub type Answer = (u16, Value);

const NO_CONTENT: Answer = (204, Value::Null);
const NOT_FOUND: Answer = (404, Value::Null);
/// `AST_SOFTHANGUP_EXPLICIT`: not a Q.850 cause.
const SOFT: i32 = 32;

impl Default for Model {
    fn default() -> Self {
        Self {
            channels: BTreeMap::new(),
            bridges: BTreeMap::new(),
            rules: Vec::new(),
            flow: Flow::Passing,
            held: Vec::new(),
            clock_ahead: TimeDelta::zero(),
            socket: None,
            replaced: Vec::new(),
            connections: 0,
            open: Open::default(),
            asked: Vec::new(),
            created: Vec::new(),
            dialled: Vec::new(),
            released: BTreeMap::new(),
            boots: 0,
            variable: String::new(),
            callers: 0,
        }
    }
}

// === impl Channel ===

impl Channel {
    pub fn is_up(&self) -> bool {
        self.state == "Up"
    }
}

// === impl Model ===

impl Model {
    // --- events ---

    /// Tells the application, if the script lets it.
    pub fn emit(&mut self, event: Value) {
        match self.flow {
            Flow::Passing => self.say(event),
            Flow::Doubled => {
                self.say(event.clone());
                self.say(event);
            }
            Flow::Held => self.held.push(event),
            Flow::Lost | Flow::Nothing => {}
        }
    }

    /// Tells it whatever the script says.
    pub fn say(&self, mut event: Value) {
        if event["timestamp"].is_null() {
            event["timestamp"] = self.now();
        }
        if let Some(socket) = &self.socket {
            drop(socket.send(Say::Text(event.to_string())));
        }
    }

    fn now(&self) -> Value {
        let at = clock::now() + self.clock_ahead;
        json!(at.format("%Y-%m-%dT%H:%M:%S%.3f%z").to_string())
    }

    fn tell(&mut self, kind: &str, channel: &str, more: Value) {
        let mut event = json!({
            "type": kind,
            "timestamp": self.now(),
            "application": "capconduit",
            "channel": self.describe(channel),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        self.emit(event);
    }

    fn describe(&self, id: &str) -> Value {
        let channel = &self.channels[id];
        json!({
            "id": id,
            "name": format!("PJSIP/{id}"),
            "state": channel.state,
            "caller": {"name": "", "number": channel.caller},
            "dialplan": {
                "context": "from-carrier", "exten": channel.exten, "priority": 1,
                "app_name": "Stasis", "app_data": "capconduit",
            },
        })
    }

    // --- callers and clients ---

    pub fn arrive(&mut self, number: &str) -> String {
        self.callers += 1;
        let id = format!("caller-{}", self.callers);
        let caller = format!("+1555800{:04}", self.callers);
        self.channels
            .insert(id.clone(), Channel { state: "Ring", exten: number.to_owned(), caller });
        self.tell("StasisStart", &id, json!({"args": []}));
        id
    }

    fn set_state(&mut self, id: &str, state: &'static str) {
        let Some(channel) = self.channels.get_mut(id).filter(|channel| channel.state != state)
        else {
            return;
        };
        channel.state = state;
        self.tell("ChannelStateChange", id, json!({}));
    }

    fn progress(&mut self, leg: &str, status: &str) {
        let peer = self.describe(leg);
        let at = self.now();
        self.emit(json!({"type": "Dial", "timestamp": at, "peer": peer, "dialstatus": status}));
    }

    /// The client answers, and Asterisk the caller who shares its bridge.
    pub fn answered(&mut self, leg: &str) {
        self.set_state(leg, "Up");
        self.progress(leg, "ANSWER");
        let bridge = self.bridges.values().find(|members| members.contains(leg));
        for member in bridge.cloned().unwrap_or_default() {
            self.set_state(&member, "Up");
        }
    }

    /// The channel ends, and the application hears of it in Asterisk's order.
    pub fn end(&mut self, id: &str, cause: i32, sip: Option<i32>, soft: bool) {
        if !self.channels.contains_key(id) {
            return;
        }
        let request = match (soft, sip) {
            (true, _) => json!({"soft": true, "cause": SOFT}),
            (false, Some(sip)) => json!({"cause": cause, "tech_cause": sip}),
            (false, None) => json!({"cause": cause}),
        };
        self.tell("ChannelHangupRequest", id, request);
        self.tell("StasisEnd", id, json!({}));
        let mut destroyed = json!({"cause": cause, "cause_txt": "as the script says"});
        if let Some(sip) = sip {
            destroyed["tech_cause"] = json!(sip);
        }
        self.tell("ChannelDestroyed", id, destroyed);
        self.remove(id);
    }

    pub fn leave(&mut self, id: &str) {
        self.tell("StasisEnd", id, json!({}));
        self.remove(id);
    }

    pub fn remove(&mut self, id: &str) {
        self.channels.remove(id);
        for members in self.bridges.values_mut() {
            members.remove(id);
        }
    }

    // --- commands ---

    /// What the script has in store for this command.
    pub fn fault(&mut self, command: &'static str) -> Option<Fault> {
        self.asked.push(command);
        let rules = self.rules.iter_mut();
        let rule = rules.filter(|rule| rule.command == command).find(|rule| rule.times > 0)?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times -= 1;
        Some(rule.fault)
    }

    /// Carries a command out.
    pub fn carry_out(&mut self, command: &str, target: &str, body: &Value) -> Answer {
        match command {
            "create bridge" if self.bridges.contains_key(target) => (500, json!({})),
            "create bridge" => {
                self.bridges.insert(target.to_owned(), BTreeSet::new());
                (200, self.describe_bridge(target))
            }
            "add to bridge" => self.add_to_bridge(target, body),
            "remove from bridge" => {
                let channel = body["channel"].as_str().unwrap_or_default();
                match self.bridges.get_mut(target).map(|members| members.remove(channel)) {
                    Some(true) => NO_CONTENT,
                    Some(false) => (422, json!({})),
                    None => NOT_FOUND,
                }
            }
            "destroy bridge" => {
                if self.bridges.remove(target).is_some() {
                    NO_CONTENT
                } else {
                    NOT_FOUND
                }
            }
            "create channel" => self.create_channel(body),
            "dial" => match self.channels.get(target).map(|channel| channel.state) {
                Some("Down") => {
                    self.dialled.push(target.to_owned());
                    self.progress(target, "");
                    self.set_state(target, "Ringing");
                    self.progress(target, "RINGING");
                    NO_CONTENT
                }
                Some(_) => (409, json!({"message": "Channel is not in the 'Down' state"})),
                None => NOT_FOUND,
            },
            "answer" if self.channels.contains_key(target) => {
                self.set_state(target, "Up");
                NO_CONTENT
            }
            "look up channel" if self.channels.contains_key(target) => (200, self.describe(target)),
            "list channels" => {
                let all = self.channels.keys().map(|id| self.describe(id)).collect();
                (200, Value::Array(all))
            }
            "list bridges" => {
                let all = self.bridges.keys().map(|id| self.describe_bridge(id)).collect();
                (200, Value::Array(all))
            }
            "probe" => {
                if self.flow != Flow::Nothing {
                    self.say(json!({
                        "type": "ChannelUserevent", "eventname": target,
                        "userevent": {"eventname": target, "token": body["variables"]["token"]},
                    }));
                }
                NO_CONTENT
            }
            "set variable" => {
                target.clone_into(&mut self.variable);
                NO_CONTENT
            }
            "ask for the startup time" => {
                (200, json!({"status": {"startup_time": format!("boot {}", self.boots)}}))
            }
            "filter events" | "reload module" => NO_CONTENT,
            _ => NOT_FOUND,
        }
    }

    /// A channel is to be hung up, with this cause.
    pub fn release(&mut self, channel: &str, cause: i32) -> Answer {
        if !self.channels.contains_key(channel) {
            return NOT_FOUND;
        }
        self.released.insert(channel.to_owned(), cause);
        self.end(channel, cause, None, true);
        NO_CONTENT
    }

    fn add_to_bridge(&mut self, bridge: &str, body: &Value) -> Answer {
        let channel = body["channel"].as_str().unwrap_or_default();
        if !self.channels.contains_key(channel) {
            return (400, json!({"message": "Channel not found"}));
        }
        match self.bridges.get_mut(bridge) {
            Some(members) => {
                members.insert(channel.to_owned());
                NO_CONTENT
            }
            None => NOT_FOUND,
        }
    }

    fn create_channel(&mut self, body: &Value) -> Answer {
        let id = body["channelId"].as_str().unwrap_or_default().to_owned();
        if self.channels.contains_key(&id) {
            return (409, json!({"message": "Channel with given unique ID already exists"}));
        }
        let channel = Channel { state: "Down", exten: "s".to_owned(), caller: String::new() };
        self.channels.insert(id.clone(), channel);
        self.created.push(id.clone());
        self.tell("StasisStart", &id, json!({"args": []}));
        (200, self.describe(&id))
    }

    fn describe_bridge(&self, id: &str) -> Value {
        json!({"id": id, "bridge_type": "mixing", "channels": self.bridges[id]})
    }
}
