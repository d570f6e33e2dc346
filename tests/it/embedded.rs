//! `make run`: how it begins and ends, whatever is in the way, in both profiles.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
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
    database_port: u16,
    redis_port: u16,
    profile: &'static str,
    folder: TempDir,
}

// === impl Place ===

impl Place {
    fn find() -> Self {
        Self::find_for("embedded")
    }

    fn find_for(profile: &'static str) -> Self {
        let ports = Ports::claim();
        Self {
            http_port: ports.single(),
            sip_port: ports.single(),
            ari_port: ports.single(),
            database_port: ports.single(),
            redis_port: ports.single(),
            profile,
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
            .args(["run", "--profile", self.profile])
            .args(["--rtp-ports", &format!("{rtp_from}-{rtp_to}")])
            .args(["--http-port", &self.http_port.to_string()])
            .args(["--sip-port", &self.sip_port.to_string()])
            .args(["--ari-port", &self.ari_port.to_string()])
            .args(["--database-port", &self.database_port.to_string()])
            .args(["--redis-port", &self.redis_port.to_string()])
            .arg("--tools")
            .arg(tools());
        command
    }

    fn start(&self) -> Process {
        self.start_as(self.run())
    }

    /// The same by `env`, with what it is to do about signals.
    fn start_under_env(&self, signals: &str) -> Process {
        let run = self.run();
        let mut command = Command::new("env");
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.arg(signals).arg(run.get_program()).args(run.get_args());
        self.start_as(command)
    }

    fn start_as(&self, mut command: Command) -> Process {
        let output = self.folder.path().join("stdout");
        drop(std::fs::remove_file(&output));
        Process::start(command.arg("--data").arg(self.data()), &output)
    }

    async fn assert_nothing_is_left(&self, when: Duration) {
        let what = format!("all ports are free after an interruption at {when:?}");
        eventually(&what, seconds(2), async || {
            TcpListener::bind(("127.0.0.1", self.http_port)).ok()?;
            TcpListener::bind(("127.0.0.1", self.ari_port)).ok()?;
            TcpListener::bind(("127.0.0.1", self.database_port)).ok()?;
            TcpListener::bind(("127.0.0.1", self.redis_port)).ok()?;
            UdpSocket::bind(("127.0.0.1", self.sip_port)).ok()
        })
        .await;
        eventually("nothing runs in the folder", seconds(2), async || {
            let mut folders = std::fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| std::fs::read_link(entry.unwrap().path().join("cwd")).ok());
            (!folders.any(|folder| folder.starts_with(self.data()))).then_some(())
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
    interrupt(&Place::find(), [200, 400, 600, 800, 1000, 2000].map(ms)).await;
}

#[tokio::test]
async fn nor_are_its_servers_in_the_production_profile() {
    // The first starts make PostgreSQL's folder, or don't get so far.
    let place = Place::find_for("production");
    interrupt(&place, [100, 300, 500, 1000, 3000, 200, 600, 1500].map(ms)).await;
}

#[tokio::test]
async fn interrupted_twice_it_ends_at_once() {
    for profile in ["embedded", "production"] {
        let place = Place::find_for(profile);
        let mut process = place.start();
        process.says("is ready", seconds(30)).await;
        process.signal(Signal::INT);
        process.says("Stopping:", seconds(5)).await;
        let status = process.interrupt().expect("it ends as asked");
        assert_eq!(status.code(), Some(130), "{}", process.output());
        place.assert_nothing_is_left(ms(0)).await;
    }
}

#[tokio::test]
async fn a_closed_terminal_ends_it_in_order() {
    let place = Place::find();
    let mut process = place.start_under_env("--default-signal=HUP");
    process.says("is ready", seconds(30)).await;
    let status = process.end_with(Signal::HUP).expect("it ends as asked");
    assert!(status.success(), "{status}: {}", process.output());
    assert!(process.output().contains("Stopped."));
    place.assert_nothing_is_left(ms(0)).await;
}

#[tokio::test]
async fn a_closed_terminal_is_borne_under_nohup() {
    let place = Place::find();
    let mut process = place.start_under_env("--ignore-signal=HUP");
    process.says("is ready", seconds(30)).await;
    assert!(process.signal(Signal::HUP));
    // Whoever listens for SIGHUP hears it before the SIGTERM that comes after it, and the
    // second signal ends the run at once, not in order.
    let status = process.end().expect("it ends as asked");
    assert!(status.success(), "{status}: {}", process.output());
    assert!(process.output().contains("Stopped."));
    place.assert_nothing_is_left(ms(0)).await;
}

async fn interrupt<const N: usize>(place: &Place, moments: [Duration; N]) {
    for when in moments {
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
    process.says("is ready", seconds(30)).await;
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
    std::fs::create_dir_all(place.data()).unwrap();
    std::fs::write(place.data().join("profile"), "production\n").unwrap();
    let said = refusal(place.run().arg("--data").arg(place.data()).output().unwrap());
    assert!(said.contains("holds the data of the production profile"), "{said}");
    std::fs::remove_file(place.data().join("profile")).unwrap();
    let mut nowhere = place.run();
    nowhere.arg("--data").arg(place.data()).args(["--fallback", "dial:+15550100@backup"]);
    let said = refusal(nowhere.output().unwrap());
    assert!(said.contains("carriers.conf has no section [backup]"), "{said}");
    for (option, value) in [
        ("--fallback", "dial:+1555,0100@backup"),
        ("--fallback", "announce:/nowhere/at-all.wav"),
        ("--patience-seconds", "soon"),
        ("--patience-seconds", "121"),
    ] {
        let output = place.run().arg("--data").arg(place.data()).args([option, value]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(option) && said.contains(value), "{said}");
    }
    let mut elsewhere = place.run();
    elsewhere.arg("--data").arg(place.data()).args(["--sip-address", "192.0.2.1"]);
    let said = refusal(elsewhere.output().unwrap());
    assert!(said.contains("doesn't have the address 192.0.2.1"), "{said}");
}
