//! The model beside a real Asterisk: `tests/traces` has what Asterisk 22.10.1 was asked
//! and what it told. Asked the same, with people who do the same, the model tells the
//! same of every channel, in the same order. (`tests/it/calls/traces.rs` shows that a real
//! Asterisk still does.)

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;

use super::asterisk::{Asterisk, Command, Found, Shared};
use super::checks::Checks;
use super::people::{Caller, Client, Moment};
use super::town::Town;
use crate::ari::{AriError, Channel, ChannelState, EventKind, Signal};

/// What was told of each channel, in order, in the traces' words.
type Told = BTreeMap<String, Vec<String>>;

struct Trace {
    name: String,
    asked: Vec<(Moment, String)>,
    told: Told,
}

const CALLER: &str = "1790000000.0";
/// What is left to chance: which of two events that may come in either order is first,
/// and whether the last of a caller is told at all.
const CHANCES: u64 = 200;
const BEGAN: Moment = 100;

impl Trace {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (mut asked, mut told) = (Vec::new(), Told::new());
        for line in fs::read_to_string(path).unwrap().lines().filter(|line| !line.starts_with('#'))
        {
            let (at, rest) = line.trim().split_once(' ').unwrap();
            match rest.split_once(' ').unwrap() {
                (">", command) => {
                    asked.push((BEGAN + at.parse::<u64>().unwrap(), command.to_owned()))
                }
                (_, event) => {
                    let (channel, event) = event.split_once(' ').unwrap();
                    told.entry(channel.to_owned()).or_default().push(event.to_owned());
                }
            }
        }
        Self { name, asked, told }
    }

    /// What callers and clients did in it, which a trace shows only by its events.
    fn people(&self) -> (Caller, Vec<Client>) {
        let rings = Client::Rings;
        let answers = |talk_ms| Client::Answers { rings_ms: 2, answers_ms: 506, talk_ms };
        let refuses = |cause, sip| Client::Refuses { after_ms: 2, cause, sip };
        let forever = 600_000;
        let (patience_ms, talk_ms, clients) = match self.name.as_str() {
            "answered_callee_bye" => (forever, forever, vec![answers(1_005)]),
            "answered_caller_bye" => (forever, 1_008, vec![answers(forever)]),
            "early_media_183" => {
                (forever, 1_005, vec![Client::EarlyMedia { answers_ms: 506, talk_ms: forever }])
            }
            "busy" => (forever, 0, vec![refuses(17, 486)]),
            "unavailable_480" => (forever, 0, vec![refuses(19, 480)]),
            "no_such_port" => (forever, 0, vec![Client::Silent]),
            "unknown_endpoint" => (forever, 0, vec![Client::Unreachable]),
            "caller_cancel_ringing" | "caller_cancel_ringing_plain" => (515, 0, vec![rings]),
            "cancel_by_delete" | "dial_timeout_1s" => (forever, 0, vec![rings]),
            "failover_busy_ringout_answer" => {
                (forever, 1_008, vec![refuses(17, 486), rings, answers(forever)])
            }
            "plain_reject_404" => (forever, 0, vec![]),
            other => panic!("{other}: who does what there?"),
        };
        (Caller { arrives: BEGAN, number: super::town::NUMBERS[0], patience_ms, talk_ms }, clients)
    }

    /// What the model tells when it is asked the same.
    fn play(&self, seed: u64) -> Told {
        let town = Arc::new(Town::build(&mut SmallRng::seed_from_u64(1)));
        let began = "2026-03-02T10:05:00Z".parse().unwrap();
        let shared: Arc<Shared> = Asterisk::shared(seed, began, Checks::new(town, began));
        let (signals_in, mut signals) = mpsc::channel(1_000);
        let (caller, clients) = self.people();
        let mut asterisk = shared.lock();
        asterisk.is_unreliable = false;
        asterisk.attach(signals_in);
        asterisk.expect(vec![caller]);
        asterisk.expect_clients(clients);
        for (at, command) in &self.asked {
            asterisk.advance(*at, u64::MAX);
            let (command, status) = command.split_once(" -> ").unwrap();
            let ring_seconds = if self.name == "dial_timeout_1s" { 1 } else { 60 };
            let answer = asterisk.carry_out(parse(command, ring_seconds));
            assert_eq!(status_of(&answer), status, "{}: {command}", self.name);
        }
        asterisk.advance(20_000, u64::MAX);
        let mut told = Told::new();
        while let Ok(signal) = signals.try_recv() {
            if let Signal::Event(event) = signal {
                let (channel, text) = describe(&event.kind);
                told.entry(channel).or_default().push(text);
            }
        }
        told
    }
}

fn parse(command: &str, ring_seconds: u32) -> Command {
    let id = |channel: &str| {
        if channel == "caller" { CALLER.to_owned() } else { channel.replace("leg", "x-b") }
    };
    let words: Vec<&str> = command.split(' ').collect();
    let bridge = || "x".to_owned();
    match words[..] {
        ["bridge"] => Command::CreateBridge(bridge()),
        ["destroy", "bridge"] => Command::DestroyBridge(bridge()),
        ["add", channel] => Command::Add { bridge: bridge(), channel: id(channel) },
        ["create", leg] => Command::Create {
            channel: id(leg),
            endpoint: "endpoint-1".to_owned(),
            originator: CALLER.to_owned(),
        },
        ["dial", leg] => Command::Dial { channel: id(leg), timeout_seconds: ring_seconds },
        ["hang", "up", channel, cause] => {
            Command::HangUp { channel: id(channel), cause: cause.parse().unwrap() }
        }
        _ => panic!("{command}"),
    }
}

fn status_of(answer: &Result<Found, AriError>) -> String {
    match answer {
        Ok(Found::Created) => "200".to_owned(),
        Ok(_) => "204".to_owned(),
        Err(AriError::Refused { status, .. }) => status.to_string(),
        Err(error) => panic!("{error}"),
    }
}

/// An event in the traces' words.
fn describe(kind: &EventKind) -> (String, String) {
    let named = |what: &str, channel: &Channel, rest: &[(&str, Option<String>)]| {
        let role = match channel.id.as_str().rsplit_once("-b") {
            Some((_, attempt)) => format!("leg{attempt}"),
            None => "caller".to_owned(),
        };
        let state = match channel.state {
            ChannelState::Other => "Other".to_owned(),
            state => format!("{state:?}"),
        };
        let mut text = format!("{what} {state}");
        for (name, value) in rest {
            if let Some(value) = value {
                text.push_str(&format!(" {name}={value}"));
            }
        }
        (role, text)
    };
    let text = |number: &Option<i32>| number.map(|number| number.to_string());
    match kind {
        EventKind::StasisStart { channel, .. } => named("StasisStart", channel, &[]),
        EventKind::StasisEnd { channel } => named("StasisEnd", channel, &[]),
        EventKind::ChannelStateChange { channel } => named("ChannelStateChange", channel, &[]),
        EventKind::ChannelHangupRequest { channel, cause, soft, tech_cause } => {
            let soft = soft.then(|| "true".to_owned());
            let rest = [("cause", text(cause)), ("soft", soft), ("tech_cause", text(tech_cause))];
            named("ChannelHangupRequest", channel, &rest)
        }
        EventKind::ChannelDestroyed { channel, cause, tech_cause } => {
            let rest = [("cause", Some(cause.to_string())), ("tech_cause", text(tech_cause))];
            named("ChannelDestroyed", channel, &rest)
        }
        EventKind::Dial { peer, dialstatus } => {
            let status = Some(dialstatus.clone()).filter(|status| !status.is_empty());
            named("Dial", peer, &[("dialstatus", status)])
        }
        other => panic!("the model doesn't tell {other:?}"),
    }
}

#[test]
fn the_model_tells_what_a_real_asterisk_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut traces = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let trace = Trace::read(&entry.unwrap().path());
        let mut last = Told::new();
        let told = (0..CHANCES).any(|seed| {
            last = trace.play(seed);
            last == trace.told
        });
        assert!(told, "{}: Asterisk told {:#?}, the model {last:#?}", trace.name, trace.told);
        traces += 1;
    }
    assert!(traces >= 13, "{traces} traces");
}
