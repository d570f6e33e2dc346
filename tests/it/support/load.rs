//! Steady traffic: SIPp callers who are counted rather than read, for as long as it takes.

use std::path::PathBuf;

use super::clients::{Scenario, sipp};
use super::process::Process;
use super::service::Service;

pub struct Load {
    process: Process,
    figures: PathBuf,
    rate: u32,
}

/// What SIPp counted since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub calls: u64,
    /// Calls that went otherwise than answered, talked and hung up.
    pub failed: u64,
    pub retransmissions: u64,
    /// Calls whose answer took longer than [`SLOW_MS`].
    pub slow: u64,
}

/// From the INVITE to its 200.
pub const SLOW_MS: u32 = 500;

impl Load {
    /// Calls at this rate until it is stopped.
    pub fn start(service: &Service, number: &str, rate: u32, talk_ms: u32) -> Self {
        let values = [
            ("number", number.to_owned()),
            ("talk_ms", talk_ms.to_string()),
            ("audio_port", service.ports.single().to_string()),
        ];
        let figures = service.file(&service.name("figures"));
        let target = format!("127.0.0.1:{}", service.sip_port);
        let (process, _) = sipp(service, Scenario::Counted(&scenario()), &values, |command| {
            command
                .arg(target)
                .args(["-p", &service.ports.single().to_string()])
                .args(["-r", &rate.to_string(), "-l", "2000"])
                .args(["-trace_stat", "-fd", "1", "-stf"])
                .arg(&figures);
        });
        Self { process, figures, rate }
    }

    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// What was counted by the last full second.
    pub fn figures(&self) -> Figures {
        let text = std::fs::read_to_string(&self.figures).unwrap_or_default();
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split(';').collect();
        let Some(last) = lines.next_back() else { return Figures::default() };
        let values: Vec<&str> = last.split(';').collect();
        let value = |name: &str| -> u64 {
            let place = names.iter().position(|known| *known == name);
            let place = place.unwrap_or_else(|| panic!("SIPp doesn't count {name}: {names:?}"));
            values.get(place).and_then(|value| value.parse().ok()).unwrap_or_default()
        };
        Figures {
            calls: value("TotalCallCreated"),
            failed: value("FailedCall(C)"),
            retransmissions: value("Retransmissions(C)"),
            slow: value(&format!("ResponseTimeRepartition1_>={SLOW_MS}(C)")),
        }
    }

    /// Nobody calls any more, and those who talk come to their end.
    pub async fn stop(mut self) -> Figures {
        assert!(self.process.signal(rustix::process::Signal::USR1), "{}", self.process.output());
        self.process.finished("the callers are done", super::wait::seconds(30)).await;
        self.figures()
    }
}

impl Figures {
    /// Nothing was repeated, refused or late.
    pub const fn is_clean(&self) -> bool {
        self.failed == 0 && self.retransmissions == 0 && self.slow == 0
    }
}

/// The callers' scenario in which any answer but a 200 is a failure, with the time it took.
fn scenario() -> String {
    let plain = include_str!("../sipp/caller.xml");
    let answered: String = plain
        .lines()
        .filter(|line| !line.contains(r#"next="refused""#))
        .flat_map(|line| [line, "\n"])
        .collect();
    answered
        .replacen(r#"<send retrans="500">"#, r#"<send retrans="500" start_rtd="1">"#, 1)
        .replacen(r#"<recv response="200"/>"#, r#"<recv response="200" rtd="1"/>"#, 1)
        .replace(
            "</scenario>",
            &format!("  <ResponseTimeRepartition value=\"50, 100, 200, {SLOW_MS}\"/>\n</scenario>"),
        )
}
