//! The event socket: what breaks it, and how soon that is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capconduit::ari::{AriClient, AriSettings, Signal, Socket};
use capconduit::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::scripted::{Door, Fault, Flow, ScriptedSwitch};
use crate::support::wait::{eventually, ms, seconds};

/// A socket of the library, and what it tells.
struct Listener {
    signals: mpsc::Receiver<Signal>,
    _stop: DropGuard,
}

/// Within this time a connection that is no good must be known to be so.
const NOTICED: Duration = seconds(3);
/// What a loaded machine may add.
const SLACK: Duration = ms(700);
const PATIENCE: Duration = seconds(15);

// === impl Listener ===

impl Listener {
    fn start(switch: &ScriptedSwitch, room: usize) -> Self {
        let settings = AriSettings {
            address: format!("127.0.0.1:{}", switch.port),
            username: "capconduit".to_owned(),
            password: "x".into(),
            application: "capconduit".to_owned(),
        };
        let client = Arc::new(AriClient::new(settings, Arc::new(Metrics::default())).unwrap());
        let (signals_in, signals) = mpsc::channel(room);
        let cancel = CancellationToken::new();
        let socket = Socket { client, signals: signals_in, cancel: cancel.clone() };
        tokio::spawn(socket.run());
        Self { signals, _stop: cancel.drop_guard() }
    }

    /// The next signal that is no event, and how long it took.
    async fn change(&mut self) -> (Signal, Duration) {
        let asked = Instant::now();
        loop {
            let signal = timeout(PATIENCE, self.signals.recv()).await;
            match signal.expect("a signal in time").expect("the socket lives") {
                Signal::Event(_) | Signal::Restarted => {}
                signal => return (signal, asked.elapsed()),
            }
        }
    }

    async fn up(&mut self) -> Duration {
        let (signal, after) = self.change().await;
        assert!(matches!(signal, Signal::Up), "{signal:?}");
        after
    }

    async fn down(&mut self) -> Duration {
        let (signal, after) = self.change().await;
        assert!(matches!(signal, Signal::Down { .. }), "{signal:?}");
        after
    }

    /// The next event's channel.
    async fn caller(&mut self) -> String {
        let signal = timeout(PATIENCE, self.signals.recv()).await.unwrap();
        match signal {
            Some(Signal::Event(event)) => match event.kind {
                capconduit::ari::EventKind::StasisStart { channel } => channel.id.0,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

async fn connected() -> (ScriptedSwitch, Listener) {
    let switch = ScriptedSwitch::start().await;
    let mut listener = Listener::start(&switch, 1_024);
    listener.up().await;
    (switch, listener)
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_anew_at_once() {
    let (switch, mut listener) = connected().await;
    switch.break_socket();
    listener.down().await;
    assert!(listener.up().await < seconds(1));
    assert_eq!(switch.connections(), 2);
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_within_three_seconds() {
    let (switch, mut listener) = connected().await;
    switch.set_door(Door::Silent);
    let noticed = listener.down().await;
    assert!(noticed < NOTICED + SLACK, "{noticed:?}");
    // Packets flow again; what connected meanwhile was never answered.
    switch.set_door(Door::Open);
    let again = listener.up().await;
    assert!(again < NOTICED + seconds(1) + SLACK, "{again:?}");
}

#[tokio::test]
async fn a_connection_without_events_is_noticed_within_three_seconds() {
    let (switch, mut listener) = connected().await;
    switch.set_flow(Flow::Nothing);
    let noticed = listener.down().await;
    assert!(noticed < NOTICED + SLACK, "{noticed:?}");
    listener.up().await;
    assert_eq!(switch.connections(), 2, "a new connection, which has events");
}

#[tokio::test]
async fn a_connection_that_hangs_while_it_is_made_is_given_up_within_three_seconds() {
    let switch = ScriptedSwitch::start().await;
    switch.set_door(Door::Silent);
    let mut listener = Listener::start(&switch, 1_024);
    eventually("a connection hangs", PATIENCE, async || (switch.most_open() >= 1).then_some(()))
        .await;
    let hung = Instant::now();
    eventually("another is tried", PATIENCE, async || (switch.most_open() >= 2).then_some(()))
        .await;
    assert!(hung.elapsed() < NOTICED + SLACK, "{:?}", hung.elapsed());
    switch.set_door(Door::Open);
    listener.up().await;
}

/// Its HTTP server hangs, so no answer to a probe ever comes, while events do.
#[tokio::test]
async fn answers_to_probes_that_are_lost_neither_pile_up_nor_end_the_connection() {
    let (switch, mut listener) = connected().await;
    switch.fail("probe", 0, u32::MAX, Fault::Unanswered);
    let asked = switch.asked("probe");
    eventually("six more probes", PATIENCE, async || {
        (switch.asked("probe") >= asked + 6).then_some(())
    })
    .await;
    assert!(switch.is_connected());
    assert_eq!(switch.connections(), 1, "their echoes came back");
    // The socket, and each probe that is still waited for.
    assert!(switch.most_open() <= 4, "{} at once", switch.most_open());
    let caller = switch.call("+15550109001");
    assert_eq!(listener.caller().await, caller);
}

/// Setting the filter is a command like any other: it may hang. Reading doesn't.
#[tokio::test]
async fn events_are_read_while_the_filter_cannot_be_set() {
    let switch = ScriptedSwitch::start().await;
    switch.fail("filter events", 0, u32::MAX, Fault::Unanswered);
    let mut listener = Listener::start(&switch, 1_024);
    switch.connected(1).await;
    let caller = switch.call("+15550109002");
    let started = Instant::now();
    let (signal, _) = (listener.signals.recv().await.unwrap(), ());
    match signal {
        Signal::Event(_) => {}
        Signal::Up => assert_eq!(listener.caller().await, caller),
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_is_replaced_says_so_and_never_connects_again() {
    let (switch, mut listener) = connected().await;
    switch.replace_application();
    let (signal, _) = listener.change().await;
    assert!(matches!(signal, Signal::Down { .. }), "{signal:?}");
    let (signal, _) = listener.change().await;
    assert!(matches!(signal, Signal::Replaced), "{signal:?}");
    let end = timeout(PATIENCE, listener.signals.recv()).await.unwrap();
    assert!(end.is_none(), "the socket ended: {end:?}");
    assert_eq!(switch.connections(), 1);
}

/// 503 "not booted", then 404 while modules load, then a server that shuts the door.
#[tokio::test]
async fn a_switch_that_boots_is_connected_as_soon_as_it_has_booted() {
    let (switch, mut listener) = connected().await;
    for door in [Door::Closed, Door::Answers(503), Door::Answers(404)] {
        switch.set_door(door);
        if switch.is_connected() {
            switch.reboot();
            listener.down().await;
        }
        let told = timeout(ms(500), listener.signals.recv()).await;
        assert!(told.is_err(), "{door:?}: {told:?}");
    }
    switch.set_door(Door::Open);
    let after = listener.up().await;
    assert!(after < seconds(2), "{after:?}");
}

/// However often it fails, attempts are spread: soon at first, then about one a second.
#[tokio::test]
async fn attempts_to_connect_are_spread() {
    let (switch, mut listener) = connected().await;
    switch.set_door(Door::Closed);
    switch.reboot();
    listener.down().await;
    let before = switch.refused_connections();
    tokio::time::sleep(seconds(5)).await;
    let attempts = switch.refused_connections() - before;
    assert!((5..=14).contains(&attempts), "{attempts} in five seconds");
    switch.set_door(Door::Open);
    listener.up().await;
}

/// Connections that break as soon as they are up don't end in a storm.
#[tokio::test]
async fn a_connection_that_keeps_breaking_is_not_made_anew_ever_faster() {
    let (switch, mut listener) = connected().await;
    let started = Instant::now();
    for _ in 0..6 {
        switch.break_socket();
        listener.down().await;
        listener.up().await;
    }
    // 50, 100, 200, 400, 800 and 1,000 ms, each halved at worst.
    assert!(started.elapsed() > ms(1_200), "{:?}", started.elapsed());
}

/// The listener is behind: the connection is given up rather than events dropped.
#[tokio::test]
async fn events_that_nobody_takes_end_the_connection_and_are_not_dropped_in_silence() {
    let switch = ScriptedSwitch::start().await;
    let mut listener = Listener::start(&switch, 8);
    listener.up().await;
    for _ in 0..20 {
        switch.call("+15550109003");
    }
    // The eight that had room, then the news that some are missing.
    let (signal, _) = listener.change().await;
    assert!(matches!(signal, Signal::Down { .. }), "{signal:?}");
    listener.up().await;
    assert_eq!(switch.connections(), 2);
}

#[tokio::test]
async fn frames_that_make_no_sense_are_skipped() {
    let (switch, mut listener) = connected().await;
    for nonsense in ["", "{", "[]", "null", "\u{0}", "{\"type\":7}", "{\"type\":\"StasisStart\"}"] {
        switch.send_raw(nonsense);
    }
    switch.send_raw(
        r#"{"type":"InventedLater","timestamp":"2026-11-22T18:42:37.984+0000","new":[1]}"#,
    );
    let caller = switch.call("+15550109004");
    assert_eq!(listener.caller().await, caller);
    assert_eq!(switch.connections(), 1);
}

/// What wasn't said at one connection is not made up for at the next: nothing was lost since.
#[tokio::test]
async fn a_switch_that_once_did_not_say_when_it_started_is_not_taken_for_a_new_one() {
    let (switch, mut listener) = connected().await;
    switch.fail("ask for the startup time", 0, 1, Fault::Refused(503));
    switch.reboot();
    listener.down().await;
    listener.up().await;
    switch.break_socket();
    listener.down().await;
    let signal = timeout(PATIENCE, listener.signals.recv()).await.unwrap();
    assert!(matches!(signal, Some(Signal::Up)), "{signal:?}");
    switch.reboot();
    listener.down().await;
    let signal = timeout(PATIENCE, listener.signals.recv()).await.unwrap();
    assert!(matches!(signal, Some(Signal::Restarted)), "{signal:?}");
}

/// A call may begin before the first probe has come back.
#[tokio::test]
async fn what_was_heard_on_a_connection_that_was_never_up_counts_as_heard() {
    let switch = ScriptedSwitch::start().await;
    switch.fail("probe", 0, 100, Fault::Refused(503));
    let mut listener = Listener::start(&switch, 1_024);
    switch.connected(1).await;
    let caller = switch.call("100");
    assert_eq!(listener.caller().await, caller);
    let after = listener.down().await;
    assert!(after < NOTICED + SLACK, "{after:?}");
}
