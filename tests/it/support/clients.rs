//! Clients' phones: SIPp on a port of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::process::{Process, print_tail};
use super::service::{Service, tools};
use super::sip::Trace;
use super::wait::{eventually, seconds};

/// A client's phone. It is gone with this.
pub struct Phones {
    pub port: u16,
    messages: PathBuf,
    process: Process,
}

/// What a client does with its calls.
#[derive(Clone, Copy)]
pub struct Manner {
    pub ring_ms: u32,
    pub talk_ms: u32,
    /// How many calls are refused before one is answered.
    pub refusals: u32,
    /// Where audio is wanted; none = nowhere.
    pub audio_port: Option<u16>,
}

/// Longer than any test.
pub const FOREVER_MS: u32 = 600_000;

impl Manner {
    pub const fn answers_after(ring_ms: u32) -> Self {
        Self { ring_ms, talk_ms: FOREVER_MS, refusals: 0, audio_port: None }
    }

    pub const fn rings_forever() -> Self {
        Self::answers_after(FOREVER_MS)
    }

    pub const fn hangs_up_after(self, talk_ms: u32) -> Self {
        Self { talk_ms, ..self }
    }
}

impl Phones {
    /// Phones that take calls in this manner.
    pub async fn start(service: &Service, manner: Manner) -> Self {
        let scenario = Scenario::Traced(include_str!("../sipp/callee.xml"));
        Self::with_manner(service, scenario, manner).await
    }

    /// The same, and nothing is written of what comes and goes: for calls by the thousand.
    pub async fn start_silent(service: &Service, manner: Manner) -> Self {
        let scenario = Scenario::Counted(include_str!("../sipp/callee.xml"));
        Self::with_manner(service, scenario, manner).await
    }

    async fn with_manner(service: &Service, scenario: Scenario<'_>, manner: Manner) -> Self {
        let audio = manner.audio_port.unwrap_or_else(|| service.ports.single());
        let values = [
            ("ring_ms", manner.ring_ms.to_string()),
            ("talk_ms", manner.talk_ms.to_string()),
            ("refusals", manner.refusals.to_string()),
            ("audio_port", audio.to_string()),
        ];
        Self::run(service, scenario, &values).await
    }

    /// Phones that refuse every call with this code.
    pub async fn refusing(service: &Service, code: u16) -> Self {
        let scenario = Scenario::Traced(include_str!("../sipp/refuser.xml"));
        Self::run(service, scenario, &[("code", code.to_string())]).await
    }

    async fn run(service: &Service, scenario: Scenario<'_>, values: &[(&str, String)]) -> Self {
        let port = service.ports.single();
        let (process, messages) = sipp(service, scenario, values, |command| {
            // Asterisk probes clients: OPTIONS are answered, as phones do.
            command.args(["-aa", "-p", &port.to_string()]);
        });
        let mut phones = Self { port, messages, process };
        eventually("the client's phone is on", seconds(10), async || {
            assert!(phones.process.exited().is_none(), "{}", phones.process.output());
            is_bound(port).then_some(())
        })
        .await;
        phones
    }

    pub fn contact(&self) -> String {
        format!("sip:client@127.0.0.1:{}", self.port)
    }

    /// What came and went so far.
    pub fn trace(&self) -> Trace {
        Trace::read(&self.messages)
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(&self.messages, 60);
        }
    }
}

/// What SIPp is to do, and whether it writes down every message.
#[derive(Clone, Copy)]
pub enum Scenario<'a> {
    Traced(&'a str),
    Counted(&'a str),
}

/// Starts SIPp with a scenario in which `[name]` stands for each value.
pub fn sipp(
    service: &Service,
    scenario: Scenario<'_>,
    values: &[(&str, String)],
    more: impl FnOnce(&mut Command),
) -> (Process, PathBuf) {
    let name = service.name("sipp");
    let file = |extension: &str| service.file(&format!("{name}.{extension}"));
    let (Scenario::Traced(text) | Scenario::Counted(text)) = scenario;
    let mut text = text.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("[{name}]"), value);
    }
    fs::write(file("xml"), text).unwrap();
    let messages = file("messages");
    let mut command = Command::new(tools().join("bin/sipp"));
    command
        .current_dir(service.file(""))
        .arg("-sf")
        .arg(file("xml"))
        .args(["-i", "127.0.0.1", "-bind_local", "-nostdin"])
        .args(["-cp", &service.ports.single().to_string()]);
    if let Scenario::Traced(_) = scenario {
        command.args(["-trace_msg", "-message_file"]).arg(&messages);
    }
    more(&mut command);
    (Process::start(&mut command, &file("output")), messages)
}

/// Whether somebody listens on this UDP port.
fn is_bound(port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    table.contains(&format!(" 0100007F:{port:04X} "))
}
