//! The event socket: connected, probed, watched, and connected again.
//!
//! The reader does nothing but read, decode and hand on: Asterisk closes the
//! socket of a slow reader. A probe of our own travels through Asterisk and
//! back once a second; when none has come back for a while the connection is
//! given up, however healthy it looks: it may be half open, or one that Asterisk
//! sends nothing to. A pause of our own is no such while: what came meanwhile is
//! still there, and is read. One probe is under way at a time, so that a switch that
//! doesn't answer isn't asked by ever more of them.
//!
//! Asterisk can't tell either whether we are still there: a machine that lost its
//! power closes no connection. So it is told, by its own clock, when its newest event
//! came to us, and its dialplan keeps callers from an application that is silent.

mod retry;
mod silence;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use rand::RngExt;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header::AUTHORIZATION};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, trace, warn};

use self::retry::{Ending, Next, Retry};
use self::silence::{LOOK_INTERVAL, Silence};
use super::client::{AriClient, AriSettings};
use super::events::{Event, EventKind, decode};
use crate::clock::Timestamp;

/// What the socket tells.
#[derive(Debug)]
pub enum Signal {
    /// Events flow: a probe has come back. Events may have been missed before.
    Up,
    Event(Event),
    /// Events no longer flow, and the last sign of life was then; the socket
    /// connects again by itself.
    Down {
        heard: Timestamp,
    },
    /// The Asterisk that answers now isn't the one that answered before: nothing that
    /// was on that one is there any more. Comes before any event of the new one.
    Restarted,
    /// Another instance has taken our application's name: we don't fight for it.
    Replaced,
}

/// Keeps the event socket connected until it is cancelled.
pub struct Socket {
    pub client: Arc<AriClient>,
    /// Bounded: when it is full the connection is given up and made anew, so
    /// that what was missed gets reconciled, rather than dropped in silence.
    pub signals: mpsc::Sender<Signal>,
    pub cancel: CancellationToken,
}

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection was not made: {0}")]
    NotConnected(#[source] tungstenite::Error),
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error("Asterisk closed it")]
    Closed,
    #[error("it broke: {0}")]
    Broken(#[source] tungstenite::Error),
    #[error("no probe came back for {} ms", PROBE_DEADLINE.as_millis())]
    Silent,
    #[error("events came faster than they could be handled")]
    Overflow,
    #[error("another instance uses the application's name")]
    Replaced,
    #[error("the service is stopping")]
    Cancelled,
}

/// What was heard of one connection.
#[derive(Debug)]
struct Heard {
    /// When Asterisk sent the newest probe back; none = events never flowed.
    echo: watch::Sender<Option<Timestamp>>,
    /// When the newest event happened.
    event: Option<Timestamp>,
    /// When the first probe came back.
    up: Option<Instant>,
    /// Since the newest probe came back, or else since the connection was made.
    silence: Silence,
}

/// TCP's and the WebSocket's handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Its echo is what counts: an answer that is missing holds up the next probe no longer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);
const PROBE_DEADLINE: Duration = Duration::from_millis(2_800);
/// Events that wait for longer would fill Asterisk's side of the connection.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(1);
/// The same, for a listener who is behind.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
const FILTER_AGAIN: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_millis(200);
/// Asterisk's events have a few kilobytes; what is larger isn't from it.
const FRAME_MOST_BYTES: usize = 1 << 20;
const PROBE_NAME: &str = "capconduit-probe";
/// What `asterisk-conf/extensions.conf` compares with the time before a caller enters.
const HEARD_VARIABLE: &str = "CAPCONDUIT_HEARD";
/// Event types that carry nothing that we act on.
const IGNORED: [&str; 5] = [
    "ChannelVarset",
    "ChannelDialplan",
    "ChannelCallerId",
    "ChannelConnectedLine",
    "DeviceStateChanged",
];

// === impl Socket ===

impl Socket {
    /// Runs until cancelled, or until another instance takes the application's name.
    pub async fn run(self) {
        let mut retry = Retry::default();
        let mut started = None;
        loop {
            let (heard, ended) = self.connection(&mut started).await;
            let flowed_for = heard.up.map(|up| up.elapsed());
            // An early call counts too: it began on a connection that was never up.
            if let Some(heard) = heard.newest_sign() {
                self.tell(Signal::Down { heard }).await;
            }
            let ending = match ended {
                Ended::Cancelled => return,
                Ended::Replaced => Ending::Replaced,
                Ended::ConnectTimeout | Ended::Silent => Ending::GivenUp,
                _ => Ending::Broken,
            };
            if ending == Ending::GivenUp {
                self.client.forget_connections();
            }
            if retry.after(ending, flowed_for.unwrap_or_default()) == Next::StepDown {
                return self.step_down().await;
            }
            match ended {
                Ended::Replaced => {
                    warn!("a connection that was given up has come late: connecting once more");
                }
                reason if flowed_for.is_some() => warn!(%reason, "the event socket went down"),
                reason => debug!(%reason, "the event socket isn't up yet"),
            }
            let pause = retry.pause(&mut rand::rng());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cancel.cancelled() => return,
            }
        }
    }

    async fn step_down(&self) {
        error!(
            "another instance uses the ARI application's name: this one takes no calls any \
             more; give each instance a name of its own and start it again"
        );
        self.tell(Signal::Replaced).await;
    }

    /// One connection, from its start to its end, and what was heard of it.
    async fn connection(&self, started: &mut Option<String>) -> (Heard, Ended) {
        let connecting = connect(self.client.settings());
        let mut heard = Heard::nothing();
        let mut stream = match self.cancel.run_until_cancelled(connecting).await {
            Some(Ok(stream)) => stream,
            Some(Err(ended)) => return (heard, ended),
            None => return (heard, Ended::Cancelled),
        };
        let ended = self.follow(&mut stream, started, &mut heard).await;
        // A farewell to a switch that is there; what is broken is dropped at once.
        if matches!(ended, Ended::Cancelled | Ended::Replaced) {
            drop(timeout(GOODBYE, stream.close(None)).await);
        }
        (heard, ended)
    }

    /// Events of the new connection wait in it until it is known whose they are.
    async fn follow(
        &self,
        stream: &mut Stream,
        started: &mut Option<String>,
        heard: &mut Heard,
    ) -> Ended {
        let connected = Instant::now();
        let now = self.startup_time().await;
        heard.silence = Silence::of(connected.elapsed().min(STARTUP_TIMEOUT), Instant::now());
        let is_another = started.is_some() && now.is_some() && *started != now;
        if is_another && !self.tell_soon(Signal::Restarted).await {
            // It isn't told yet that it is another: the next connection tells.
            return Ended::Overflow;
        }
        // Where it isn't known, nor will it be next time whether it is still the same.
        *started = now;
        self.read(stream, heard).await
    }

    /// When this Asterisk started, if it says so in time.
    async fn startup_time(&self) -> Option<String> {
        match timeout(STARTUP_TIMEOUT, self.client.startup_time()).await {
            Ok(Ok(now)) => return Some(now),
            Ok(Err(error)) => debug!(%error, "Asterisk didn't say when it started"),
            Err(_) => debug!("Asterisk didn't say in time when it started"),
        }
        None
    }

    async fn read(&self, stream: &mut Stream, heard: &mut Heard) -> Ended {
        let token = format!("{:016x}", rand::rng().random::<u64>());
        // Beside the reading, which waits for no answer to a command.
        let echoes = heard.echo.subscribe();
        let asking =
            async { tokio::join!(self.probe(&token), self.tell_heard(echoes), self.filter()) };
        tokio::pin!(asking);
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = stream.next() => match frame {
                    None => return Ended::Closed,
                    Some(Err(error)) => return Ended::Broken(error),
                    Some(Ok(Message::Close(_))) => return Ended::Closed,
                    Some(Ok(Message::Text(text))) => {
                        if let Err(ended) = self.on_frame(&text, &token, heard) {
                            return ended;
                        }
                    }
                    Some(Ok(_)) => {}
                },
                _ = &mut asking => {}
                _ = look.tick() => {
                    if heard.silence.look(Instant::now()) >= PROBE_DEADLINE {
                        return Ended::Silent;
                    }
                }
                () = self.cancel.cancelled() => return Ended::Cancelled,
            }
        }
    }

    fn on_frame(&self, text: &str, token: &str, heard: &mut Heard) -> Result<(), Ended> {
        trace!(frame = text, "an event");
        let event = match decode(text) {
            Ok(event) => event,
            Err(error) => {
                warn!(%error, "an event could not be read");
                self.client.metrics().ari_event_unreadable();
                return Ok(());
            }
        };
        match &event.kind {
            EventKind::Other => Ok(()),
            EventKind::ApplicationReplaced {} => Err(Ended::Replaced),
            EventKind::ChannelUserevent { eventname, userevent } => {
                if eventname == PROBE_NAME && userevent["token"] == token {
                    let now = Instant::now();
                    heard.silence = Silence::of(Duration::ZERO, now);
                    if heard.echo.send_replace(Some(event.at)).is_none() {
                        heard.up = Some(now);
                        info!("events flow from Asterisk");
                        return self.hand_on(Signal::Up);
                    }
                }
                Ok(())
            }
            // Events from before the first echo count too: an early call waits for nobody.
            _ => {
                heard.event = heard.event.max(Some(event.at));
                self.hand_on(Signal::Event(event))
            }
        }
    }

    fn hand_on(&self, signal: Signal) -> Result<(), Ended> {
        self.signals.try_send(signal).map_err(|_| Ended::Overflow)
    }

    /// Sends probes for as long as it is asked to, one at a time.
    async fn probe(&self, token: &str) -> Infallible {
        let mut probes = tokio::time::interval(PROBE_INTERVAL);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            probes.tick().await;
            match timeout(PROBE_TIMEOUT, self.client.send_probe(PROBE_NAME, token)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a probe was not sent"),
                Err(_) => debug!("a probe was not answered in time"),
            }
        }
    }

    /// Tells Asterisk when it was last heard, for as long as there are echoes: in whole
    /// seconds of its own clock, so at most once in each.
    async fn tell_heard(&self, mut echoes: watch::Receiver<Option<Timestamp>>) {
        let mut told = None;
        while echoes.changed().await.is_ok() {
            let echo = *echoes.borrow_and_update();
            let Some(heard) = echo.map(|at| at.timestamp()).filter(|at| told != Some(*at)) else {
                continue;
            };
            told = Some(heard);
            let heard = heard.to_string();
            let telling = self.client.set_variable(HEARD_VARIABLE, &heard);
            match timeout(PROBE_TIMEOUT, telling).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "Asterisk wasn't told that it is heard"),
                Err(_) => debug!("Asterisk wasn't told in time that it is heard"),
            }
        }
    }

    /// Has Asterisk leave out what we would ignore; without it, events only cost more.
    async fn filter(&self) {
        while let Err(error) = self.client.ignore_events(&IGNORED).await {
            debug!(%error, "the event filter was not set");
            tokio::time::sleep(FILTER_AGAIN).await;
        }
    }

    /// Tells what must not be missed; whether it could, or the listener is too far behind.
    async fn tell_soon(&self, signal: Signal) -> bool {
        timeout(TELL_TIMEOUT, self.tell(signal)).await.is_ok()
    }

    /// Tells what must not be missed, even if the listener is behind.
    async fn tell(&self, signal: Signal) {
        match self.cancel.run_until_cancelled(self.signals.send(signal)).await {
            Some(Ok(())) | None => {}
            Some(Err(_)) => debug!("nobody listens to the event socket any more"),
        }
    }
}

// === impl Heard ===

impl Heard {
    fn nothing() -> Self {
        let silence = Silence::of(Duration::ZERO, Instant::now());
        Self { echo: watch::Sender::new(None), event: None, up: None, silence }
    }

    /// When Asterisk is known to have been heard last.
    fn newest_sign(&self) -> Option<Timestamp> {
        self.echo.borrow().or(self.event)
    }
}

async fn connect(settings: &AriSettings) -> Result<Stream, Ended> {
    let url = format!(
        "ws://{}/ari/events?app={}&subscribeAll=false",
        settings.address, settings.application
    );
    let mut request = url.into_client_request().map_err(Ended::NotConnected)?;
    let credentials = format!("{}:{}", settings.username, settings.password.expose_secret());
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)))
        .map_err(|error| Ended::NotConnected(tungstenite::Error::HttpFormat(error.into())))?;
    request.headers_mut().insert(AUTHORIZATION, value);
    let limits = WebSocketConfig::default()
        .max_message_size(Some(FRAME_MOST_BYTES))
        .max_frame_size(Some(FRAME_MOST_BYTES));
    let (stream, _) =
        timeout(CONNECT_TIMEOUT, connect_async_with_config(request, Some(limits), true))
            .await
            .map_err(|_| Ended::ConnectTimeout)?
            .map_err(Ended::NotConnected)?;
    Ok(stream)
}
