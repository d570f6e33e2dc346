//! `make run`: how it begins and ends, whatever is in the way.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::ports::Ports;
use crate::support::process::Process;
use crate::support::service::tools;
use crate::support::wait::{eventually, ms, seconds};

/// A folder and ports of its own.
struct Place {
    ports: Ports,
    http_port: u16,
    sip_port: u16,
    ari_port: u16,
    folder: TempDir,
}

// === impl Place ===

impl Place {
    fn find() -> Self {
        let ports = Ports::claim();
        Self {
            http_port: ports.single(),
            sip_port: ports.single(),
            ari_port: ports.single(),
            ports,
            folder: tempfile::Builder::new().prefix("cc-").tempdir().unwrap(),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self) -> Command {
        let (rtp_from, rtp_to) = self.ports.media();
        let mut command = Command::new(env!("CARGO_BIN_EXE_capconduit"));
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["run", "--rtp-ports", &format!("{rtp_from}-{rtp_to}")])
            .args(["--http-port", &self.http_port.to_string()])
            .args(["--sip-port", &self.sip_port.to_string()])
            .args(["--ari-port", &self.ari_port.to_string()])
            .arg("--tools")
            .arg(tools());
        command
    }

    fn start(&self) -> Process {
        let output = self.folder.path().join("stdout");
        drop(std::fs::remove_file(&output));
        Process::start(self.run().arg("--data").arg(self.data()), &output)
    }

    async fn assert_nothing_is_left(&self, when: Duration) {
        let what = format!("all ports are free after an interruption at {when:?}");
        eventually(&what, seconds(2), async || {
            TcpListener::bind(("127.0.0.1", self.http_port)).ok()?;
            TcpListener::bind(("127.0.0.1", self.ari_port)).ok()?;
            UdpSocket::bind(("127.0.0.1", self.sip_port)).ok()
        })
        .await;
        let conf = self.data().join("asterisk/etc/asterisk.conf").display().to_string();
        eventually("no Asterisk runs on the folder", seconds(2), async || {
            let commands = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
                std::fs::read_to_string(entry.unwrap().path().join("cmdline")).ok()
            });
            (!commands.into_iter().any(|command| command.contains(&conf))).then_some(())
        })
        .await;
    }
}

fn refusal(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    said
}

#[tokio::test]
async fn whenever_it_is_interrupted_nothing_is_left_running() {
    let place = Place::find();
    for when in [200, 400, 600, 800, 1000, 2000].map(ms) {
        let mut process = place.start();
        tokio::time::sleep(when).await;
        let status = process.interrupt().expect("it ends as asked");
        assert!(status.success(), "at {when:?}: {}", process.output());
        place.assert_nothing_is_left(when).await;
    }
}

#[tokio::test]
async fn a_second_run_on_the_same_folder_says_so_and_others_cannot_read_it() {
    let place = Place::find();
    let process = place.start();
    eventually("it is ready", seconds(30), async || {
        process.output().contains("is ready").then_some(())
    })
    .await;
    let mode = std::fs::metadata(place.data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mode = std::fs::metadata(place.data().join("capconduit.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = place.run().arg("--data").arg(place.data()).output().unwrap();
    assert!(refusal(second).contains("is in use by another `capconduit run`"));
}

#[test]
fn a_port_in_use_or_a_folder_that_cannot_work_is_named_before_anything_starts() {
    let place = Place::find();
    let taken = TcpListener::bind(("127.0.0.1", place.http_port)).unwrap();
    let said = refusal(place.run().arg("--data").arg(place.data()).output().unwrap());
    assert!(said.contains(&format!("HTTP port {} is in use", place.http_port)), "{said}");
    drop(taken);
    for name in ["a;b", "a%20b", "a?b", "a'b", "a\nb"] {
        let folder = place.folder.path().join(name);
        let said = refusal(place.run().arg("--data").arg(&folder).output().unwrap());
        assert!(said.contains("can't be used: its full path may have"), "{said}");
        assert!(!folder.exists());
    }
    let folder = place.folder.path().join("x".repeat(90));
    let said = refusal(place.run().arg("--data").arg(folder).output().unwrap());
    assert!(said.contains("81 bytes at most"), "{said}");
    let mut elsewhere = place.run();
    elsewhere.arg("--data").arg(place.data()).args(["--sip-address", "192.0.2.1"]);
    let said = refusal(elsewhere.output().unwrap());
    assert!(said.contains("doesn't have the address 192.0.2.1"), "{said}");
}
