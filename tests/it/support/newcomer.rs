//! Another instance of the service, beside the first one on the same Asterisk and
//! database: with calls, a journal and ports of its own.

use std::process::Command;

use super::metrics::Metrics;
use super::process::Process;
use super::service::Service;
use super::wait::{eventually, seconds};

/// How often it has listed what there is.
const AUDITS: &str = "capconduit_ari_command_seconds_count{command=\"list bridges\"}";

pub struct Newcomer {
    metrics_port: u16,
    _process: Process,
}

impl Newcomer {
    /// Starts it under this Stasis application's name, and waits until it takes calls.
    pub async fn beside(service: &Service, application: &str) -> Self {
        let [http_port, metrics_port] = [(); 2].map(|()| service.ports.single());
        let mut command = Command::new(env!("CARGO_BIN_EXE_capconduit"));
        command
            .arg("serve")
            .env("CAPCONDUIT__DATABASE__URL", service.database_url())
            .env("CAPCONDUIT__HTTP__ADDRESS", format!("127.0.0.1:{http_port}"))
            .env("CAPCONDUIT__METRICS__ADDRESS", format!("127.0.0.1:{metrics_port}"))
            .env("CAPCONDUIT__ARI__ADDRESS", format!("127.0.0.1:{}", service.ari_port))
            .env("CAPCONDUIT__ARI__PASSWORD", service.secret("ari-password"))
            .env("CAPCONDUIT__ARI__APPLICATION", application)
            .env("CAPCONDUIT__CALLS__AUDIT_SECONDS", "1")
            .env("CAPCONDUIT__JOURNAL__DIRECTORY", service.file("newcomer"));
        let process = Process::start(&mut command, &service.file("newcomer-stdout"));
        let newcomer = Self { metrics_port, _process: process };
        eventually("the newcomer takes calls", seconds(20), async || {
            let metrics = newcomer.try_metrics().await?;
            (metrics.known("capconduit_ari_connected") == 1.0).then_some(())
        })
        .await;
        newcomer
    }

    async fn try_metrics(&self) -> Option<Metrics> {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        let answer = http.get(url).send().await.ok()?;
        Some(Metrics::parse(&answer.text().await.unwrap()))
    }

    pub async fn metrics(&self) -> Metrics {
        self.try_metrics().await.expect("it runs")
    }

    /// Waits until it has looked at what is on the switch for this often again.
    pub async fn audits(&self, times: f64) {
        let made = async || self.metrics().await.sum(AUDITS);
        let before = made().await;
        eventually("the newcomer looks around", seconds(20), async || {
            (made().await >= before + times).then_some(())
        })
        .await;
    }
}
