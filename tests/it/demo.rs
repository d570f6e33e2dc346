//! `make demo`: what a newcomer sees, on a real Asterisk with SIPp.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A folder and ports of its own.
struct Place {
    data: TempDir,
    http_port: u16,
    sip_port: u16,
    ari_port: u16,
}

// === impl Place ===

impl Place {
    fn find() -> Self {
        // Held together, so that none is found twice.
        let tcp = [(); 2].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
        let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        Self {
            data: tempfile::tempdir().unwrap(),
            http_port: tcp[0].local_addr().unwrap().port(),
            sip_port: udp.local_addr().unwrap().port(),
            ari_port: tcp[1].local_addr().unwrap().port(),
        }
    }

    fn demo(&self, tools: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_capconduit"));
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["demo", "--rtp-ports", "30000-32000", "--data"])
            .arg(self.data.path())
            .args(["--http-port", &self.http_port.to_string()])
            .args(["--sip-port", &self.sip_port.to_string()])
            .args(["--ari-port", &self.ari_port.to_string()])
            .arg("--tools")
            .arg(tools)
            // SIPp's scratch folder, so that it can be seen to be removed.
            .env("TMPDIR", self.data.path())
            .env_remove("CAPCONDUIT_DEMO_PASSWORD");
        command
    }

    fn assert_nothing_is_left(&self) {
        TcpListener::bind(("127.0.0.1", self.http_port)).unwrap();
        TcpListener::bind(("127.0.0.1", self.ari_port)).unwrap();
        UdpSocket::bind(("127.0.0.1", self.sip_port)).unwrap();
        let left: Vec<_> = std::fs::read_dir(self.data.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("capconduit-demo"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_interrupted_demo_ends_what_it_started_and_the_next_one_tells_the_whole_story() {
    let place = Place::find();
    interrupt_when_a_call_is_up(&place);
    place.assert_nothing_is_left();

    let output = place.demo(Path::new(".tools")).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for line in [
        "Nothing runs on port",
        "ringing Delta",
        "not taken by Delta -> ringing Echo",
        "talking to Alpha",
        "s by Alpha (Delta busy, Echo rang out)",
        "CANCELED by the caller",
        "REFUSED every client is at its concurrency cap (503)",
        "REFUSED every client has all the calls it bought (503)",
        "Each of the 36 calls left exactly one record.",
        "No cap was exceeded: 10 of 10 held",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "colours in a pipe:\n{text}");
    let story = text.lines().filter(|line| !line.contains("http://"));
    assert!(story.clone().all(|line| line.chars().count() <= 100), "too wide:\n{text}");
    place.assert_nothing_is_left();
}

#[test]
fn without_sipp_the_demo_says_how_to_get_it() {
    let place = Place::find();
    let output = place.demo(place.data.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("run `scripts/fetch-tools sipp`"), "{said}");
}

#[test]
fn a_port_that_something_else_answers_on_is_named() {
    let place = Place::find();
    let stranger = TcpListener::bind(("127.0.0.1", place.http_port)).unwrap();
    let answering = std::thread::spawn(move || drop(stranger.accept()));
    let output = place.demo(Path::new(".tools")).output().unwrap();
    answering.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("answers on port {}", place.http_port)), "{said}");
}

fn interrupt_when_a_call_is_up(place: &Place) {
    let mut demo = place.demo(Path::new(".tools")).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("talking to")));
    let id = Pid::from_raw(i32::try_from(demo.id()).unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(demo.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("Interrupted")), "{rest:?}");
}
