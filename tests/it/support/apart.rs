//! The service and its Asterisk as two processes that a test ends and starts one by one,
//! with a network between them that it can break.

use std::process::Command;

use capconduit::clock;
use rustix::process::{Signal, kill_process};

use super::process::Process;
use super::proxy::Proxy;
use super::service::{Service, tools};
use super::wait::{eventually, seconds};

pub struct Apart {
    pub service: Service,
    pub network: Proxy,
    asterisk: Option<Process>,
}

impl Apart {
    /// Starts what was prepared, with settings of the service.
    pub async fn start(mut service: Service, settings: &[(&str, &str)]) -> Self {
        // It makes the database, the first admin and Asterisk's configuration.
        service.start_first().await;
        service.stop();
        let network = Proxy::start(service.ports.single(), service.ari_port);
        let mut apart = Self { service, network, asterisk: None };
        apart.start_asterisk().await;
        apart.serve(settings).await;
        apart
    }

    /// Starts the service, and waits until it takes calls.
    pub async fn serve(&mut self, settings: &[(&str, &str)]) {
        self.service.serve(self.network.port, settings);
        self.service.ready().await;
    }

    /// Starts Asterisk, and waits until it says that it has booted.
    pub async fn start_asterisk(&mut self) {
        let mut command = Command::new(tools().join("bin/asterisk"));
        let home = self.service.data().join("asterisk");
        command.arg("-C").arg(home.join("etc/asterisk.conf")).arg("-f").current_dir(&home);
        self.asterisk = Some(Process::start(&mut command, &self.service.file("asterisk-console")));
        booted(&self.service).await;
    }

    /// Ends Asterisk, and all its calls with it.
    pub fn end_asterisk(&mut self, signal: Signal) {
        let mut asterisk = self.asterisk.take().expect("it runs");
        asterisk.end_with(signal);
    }
}

/// Waits until the service's Asterisk says that it has booted.
pub async fn booted(service: &Service) {
    eventually("Asterisk has booted", seconds(20), async || {
        let said = service.asterisk("core waitfullybooted");
        said.contains("fully booted").then_some(())
    })
    .await;
}

/// Waits until its dialplan keeps callers from an application that says nothing.
pub async fn silent(service: &Service) {
    eventually("the silence is long enough", seconds(10), async || {
        let told = service.ari("asterisk/variable?variable=CAPCONDUIT_HEARD").await;
        let heard: i64 = told["value"].as_str()?.parse().ok()?;
        (clock::now().timestamp() - heard > 4).then_some(())
    })
    .await;
}

/// Kills the Asterisk of a `capconduit run`.
pub fn crash_asterisk(service: &Service) {
    kill_process(service.asterisk_process(), Signal::KILL).unwrap();
}
