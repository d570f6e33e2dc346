//! The event socket: what breaks it, and how soon that is known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use capconduit::ari::{AriClient, AriSettings, Signal, Socket, Switch};
use capconduit::clock;
use capconduit::telemetry::{Metrics, Moment};
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::metrics::Metrics as Figures;
use crate::support::ports::Ports;
use crate::support::proxy::Proxy;
use crate::support::scripted::{Door, Fault, Flow, ScriptedSwitch};
use crate::support::wait::{eventually, holds_for, ms, seconds};

/// A socket of the library, and what it tells.
struct Listener {
    client: Arc<AriClient>,
    metrics: Arc<Metrics>,
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
        Self::start_at(switch.port, room)
    }

    fn start_at(port: u16, room: usize) -> Self {
        let settings = AriSettings {
            address: format!("127.0.0.1:{port}"),
            username: "capconduit".to_owned(),
            password: "x".into(),
            application: "capconduit".to_owned(),
        };
        let metrics = Arc::new(Metrics::default());
        let client = Arc::new(AriClient::new(settings, metrics.clone()).unwrap());
        let (signals_in, signals) = mpsc::channel(room);
        let cancel = CancellationToken::new();
        let socket = Socket { client: client.clone(), signals: signals_in, cancel: cancel.clone() };
        tokio::spawn(socket.run());
        Self { client, metrics, signals, _stop: cancel.drop_guard() }
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
                capconduit::ari::EventKind::StasisStart { channel, .. } => channel.id.0,
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
    assert!(noticed < NOTICED, "{noticed:?}");
    // Packets flow again; what connected meanwhile was never answered.
    switch.set_door(Door::Open);
    let again = listener.up().await;
    assert!(again < NOTICED + seconds(1) + SLACK, "{again:?}");
}

/// As after a firewall that lost its memory: whatever was connected is dead for good.
#[tokio::test]
async fn commands_after_a_black_hole_use_none_of_the_connections_that_it_swallowed() {
    let switch = ScriptedSwitch::start().await;
    let ports = Ports::claim();
    let network = Proxy::start(ports.single(), switch.port);
    let mut listener = Listener::start_at(network.port, 1_024);
    listener.up().await;
    let client = listener.client.clone();
    let ask = || join_all((0..20).map(|_| client.channels()));
    assert!(ask().await.iter().all(Result::is_ok));

    network.forget();
    listener.down().await;
    let again = listener.up().await;
    assert!(again < seconds(1), "{again:?}");
    let asked = Instant::now();
    for answer in ask().await {
        answer.unwrap();
    }
    assert!(asked.elapsed() < seconds(1), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_connection_without_events_is_noticed_within_three_seconds() {
    let (switch, mut listener) = connected().await;
    switch.set_flow(Flow::Nothing);
    let noticed = listener.down().await;
    assert!(noticed < NOTICED, "{noticed:?}");
    listener.up().await;
    assert_eq!(switch.connections(), 2, "a new connection, which has events");
}

/// That there is always something to read doesn't keep it from being noticed.
#[tokio::test]
async fn a_connection_that_babbles_and_never_echoes_is_noticed_within_three_seconds() {
    let (switch, mut listener) = connected().await;
    switch.fail("probe", 0, u32::MAX, Fault::Lost);
    let babbling = async {
        loop {
            switch.babble(10);
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::select! {
        noticed = listener.down() => assert!(noticed < NOTICED, "{noticed:?}"),
        () = babbling => {}
    }
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
    assert!(hung.elapsed() < NOTICED, "{:?}", hung.elapsed());
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
    // The socket, a command's connection, a word that events are heard, and each probe
    // that is still waited for.
    assert!(switch.most_open() <= 5, "{} at once", switch.most_open());
    let caller = switch.call("+15550109001");
    assert_eq!(listener.caller().await, caller);
}

/// Asterisk compares it with its own clock, whatever ours says.
#[tokio::test]
async fn the_switch_is_told_by_its_own_clock_when_it_was_last_heard() {
    let switch = ScriptedSwitch::start().await;
    let ahead = chrono::TimeDelta::hours(2);
    switch.set_clock_ahead(ahead);
    let mut listener = Listener::start(&switch, 1_024);
    listener.up().await;
    let age = || Some((clock::now() + ahead).timestamp() - switch.heard()?);
    eventually("it is told", seconds(1), async || age()).await;
    holds_for("it is told again and again", seconds(4), async || age() <= Some(3)).await;
    assert!(switch.asked("set variable") <= 7, "once a second");

    // What it says is heard no more.
    switch.set_flow(Flow::Nothing);
    listener.down().await;
    assert!(age() >= Some(2), "{:?} s", age());
}

/// Nor does it hold anything else up that this can't be told.
#[tokio::test]
async fn a_switch_that_cannot_be_told_that_it_is_heard_is_heard_all_the_same() {
    let switch = ScriptedSwitch::start().await;
    switch.fail("set variable", 0, u32::MAX, Fault::Unanswered);
    let mut listener = Listener::start(&switch, 1_024);
    listener.up().await;
    eventually("it is tried again and again", PATIENCE, async || {
        (switch.asked("set variable") >= 4).then_some(())
    })
    .await;
    assert_eq!(switch.connections(), 1);
    let caller = switch.call("+15550109005");
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

/// A connection that was given up as silent, and the next one is up.
async fn given_up() -> (ScriptedSwitch, Listener) {
    let (switch, mut listener) = connected().await;
    switch.set_flow(Flow::Nothing);
    listener.down().await;
    listener.up().await;
    (switch, listener)
}

/// What was given up may yet arrive, and take the name; whoever takes it again is another.
#[tokio::test]
async fn who_is_replaced_right_after_a_silent_connection_connects_once_more() {
    let (switch, mut listener) = given_up().await;
    switch.replace_application();
    listener.down().await;
    listener.up().await;
    assert_eq!(switch.connections(), 3);
    switch.replace_application();
    listener.down().await;
    let (signal, _) = listener.change().await;
    assert!(matches!(signal, Signal::Replaced), "{signal:?}");
    assert_eq!(switch.connections(), 3);
}

#[tokio::test]
async fn who_is_replaced_long_after_a_silent_connection_steps_down_at_once() {
    let (switch, mut listener) = given_up().await;
    // Longer than what was given up may take to arrive.
    holds_for("it stays up", ms(5_200), async || switch.is_connected()).await;
    switch.replace_application();
    listener.down().await;
    let (signal, _) = listener.change().await;
    assert!(matches!(signal, Signal::Replaced), "{signal:?}");
    assert_eq!(switch.connections(), 2);
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
    let (before, since) = (switch.refused_connections(), Instant::now());
    eventually("it tries again and again", seconds(12), async || {
        (switch.refused_connections() - before >= 10).then_some(())
    })
    .await;
    let took = since.elapsed();
    assert!(took > seconds(3), "ten attempts in {took:?}");
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

/// Nor does a new Asterisk wait, with its events, for a listener who takes nothing.
#[tokio::test]
async fn a_new_switch_that_nobody_can_be_told_of_is_connected_again_until_it_is() {
    let switch = ScriptedSwitch::start().await;
    let mut listener = Listener::start(&switch, 1);
    listener.up().await;
    switch.reboot();
    // There is room for the news of the break alone.
    switch.connected(4).await;
    listener.down().await;
    let told = timeout(PATIENCE, listener.signals.recv()).await.unwrap();
    assert!(matches!(told, Some(Signal::Restarted)), "{told:?}");
    listener.up().await;
}

#[tokio::test]
async fn frames_that_make_no_sense_are_skipped() {
    let (switch, mut listener) = connected().await;
    let nonsense = ["", "{", "[]", "null", "\u{0}", "{\"type\":7}", "{\"type\":\"StasisStart\"}"];
    for frame in nonsense {
        switch.send_raw(frame);
    }
    switch.send_raw(
        r#"{"type":"InventedLater","timestamp":"2026-11-22T18:42:37.984+0000","new":[1]}"#,
    );
    let caller = switch.call("+15550109004");
    assert_eq!(listener.caller().await, caller);
    assert_eq!(switch.connections(), 1);
    let figures = Figures::parse(&listener.metrics.text(&Moment::default()));
    let counted = figures.known("capconduit_ari_unreadable_events_total");
    assert_eq!(counted, nonsense.len() as f64);
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
