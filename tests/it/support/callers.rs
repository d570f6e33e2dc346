//! Callers: SIPp that dials a number of ours.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::clients::{Scenario, sipp};
use super::process::Process;
use super::service::Service;
use super::sip::Trace;

/// Callers who call one number.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    pub number: &'a str,
    pub calls: u32,
    /// New calls per second.
    pub rate: u32,
    pub talk_ms: u32,
}

/// Callers at work.
pub struct Callers {
    process: Process,
    messages: PathBuf,
    calls: u32,
}

impl Plan<'_> {
    pub fn start(self, service: &Service) -> Callers {
        self.start_at_most(self.calls, service)
    }

    /// The same with no more than so many at once: a slow machine is called more slowly.
    pub fn start_at_most(self, at_once: u32, service: &Service) -> Callers {
        let values = [
            ("number", self.number.to_owned()),
            ("talk_ms", self.talk_ms.to_string()),
            ("audio_port", service.ports.single().to_string()),
        ];
        let target = format!("127.0.0.1:{}", service.sip_port);
        let (process, messages) = sipp(
            service,
            Scenario::Traced(include_str!("../sipp/caller.xml")),
            &values,
            |command| {
                command
                    .arg(target)
                    .args(["-p", &service.ports.single().to_string()])
                    .args(["-m", &self.calls.to_string(), "-l", &at_once.to_string()])
                    .args(["-r", &self.rate.to_string()]);
            },
        );
        Callers { process, messages, calls: self.calls }
    }
}

impl Callers {
    /// Nobody calls any more, and those who talk or wait come to their end.
    pub async fn stop(mut self, bound: Duration) -> Trace {
        assert!(self.process.signal(Signal::USR1), "they called all the time");
        self.process.finished("the callers are done", bound).await;
        Trace::read(&self.messages)
    }

    /// Waits for the end of every call.
    pub async fn finish(mut self, bound: Duration) -> Trace {
        let status = self.process.finished("the callers are done", bound).await;
        let trace = Trace::read(&self.messages);
        assert_eq!(trace.calls().len(), self.calls as usize, "{}", self.process.output());
        assert!(status.success(), "{status}: {}", self.process.output());
        trace
    }

    /// The same, however the calls went.
    pub async fn seen(mut self, bound: Duration) -> Trace {
        self.process.finished("the callers are done", bound).await;
        Trace::read(&self.messages)
    }
}

impl Trace {
    /// How many callers got this final answer.
    pub fn answered_with(&self, status: u16) -> usize {
        let answers = self.calls();
        answers
            .values()
            .filter(|call| call.find(|message| message.final_status() == Some(status)).is_some())
            .count()
    }
}

/// One caller.
pub const fn call(number: &str, talk_ms: u32) -> Plan<'_> {
    Plan { number, calls: 1, rate: 1, talk_ms }
}
