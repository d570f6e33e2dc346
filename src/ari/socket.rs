//! The event socket: connected, probed, watched, and connected again.
//!
//! The reader does nothing but read, decode and hand on: Asterisk closes the
//! socket of a slow reader. A probe of our own travels through Asterisk and
//! back once a second; when none has come back for a while the connection is
//! given up, however healthy it looks: it may be half open, or one that Asterisk
//! sends nothing to. One probe is under way at a time, so that a switch that
//! doesn't answer isn't asked by ever more of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use rand::RngExt;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header::AUTHORIZATION};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, trace, warn};

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
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When Asterisk sent the newest probe back; none = events never flowed.
    echo: Option<Timestamp>,
    /// When the newest event happened.
    event: Option<Timestamp>,
    /// When the newest probe came back, or else when the connection was made.
    last: Instant,
}

/// TCP's and the WebSocket's handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Its echo is what counts: an answer that is missing holds up the next probe no longer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);
const PROBE_DEADLINE: Duration = Duration::from_millis(2_800);
/// Events that wait for longer would fill Asterisk's side of the connection.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(1);
const FILTER_AGAIN: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_millis(200);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// A connection that broke sooner than this is no reason to hurry with the next.
const STABLE: Duration = Duration::from_secs(5);
/// Asterisk's events have a few kilobytes; what is larger isn't from it.
const FRAME_MOST_BYTES: usize = 1 << 20;
const PROBE_NAME: &str = "capconduit-probe";
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
        let mut backoff = BACKOFF_FIRST;
        // A connection that we gave up may yet arrive at Asterisk, and take our name.
        let mut gave_up = false;
        let mut started = None;
        loop {
            let begun = Instant::now();
            let (Heard { echo: heard, event, .. }, ended) = self.connection(&mut started).await;
            // An early call counts too: it began on a connection that was never up.
            if let Some(heard) = heard.or(event) {
                self.tell(Signal::Down { heard }).await;
            }
            let gives_up = matches!(ended, Ended::ConnectTimeout | Ended::Silent);
            match ended {
                Ended::Cancelled => return,
                Ended::Replaced if std::mem::take(&mut gave_up) => {
                    warn!("a connection that was given up has come late: connecting once more");
                }
                Ended::Replaced => {
                    error!(
                        "another instance uses the ARI application's name: this one takes no \
                         calls any more; give each instance a name of its own and start it again"
                    );
                    self.tell(Signal::Replaced).await;
                    return;
                }
                reason if heard.is_some() => warn!(%reason, "the event socket went down"),
                reason => debug!(%reason, "the event socket isn't up yet"),
            }
            if heard.is_some() && begun.elapsed() >= STABLE {
                backoff = BACKOFF_FIRST;
                gave_up = false;
            }
            gave_up |= gives_up;
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::select! {
                () = tokio::time::sleep(backoff.mul_f64(jitter)) => {}
                () = self.cancel.cancelled() => return,
            }
            backoff = (backoff * 2).min(BACKOFF_MOST);
        }
    }

    /// One connection, from its start to its end, and what was heard of it.
    async fn connection(&self, started: &mut Option<String>) -> (Heard, Ended) {
        let connecting = connect(self.client.settings());
        let mut heard = Heard { echo: None, event: None, last: Instant::now() };
        let mut stream = match self.cancel.run_until_cancelled(connecting).await {
            Some(Ok(stream)) => stream,
            Some(Err(ended)) => return (heard, ended),
            None => return (heard, Ended::Cancelled),
        };
        heard.last = Instant::now();
        // Events of the new connection wait in it meanwhile, but not for long.
        match timeout(STARTUP_TIMEOUT, self.client.startup_time()).await {
            Ok(Ok(now)) => {
                if started.replace(now.clone()).is_some_and(|before| before != now) {
                    self.tell(Signal::Restarted).await;
                }
            }
            // Nor will it be known next time whether it is still the one of last time.
            Ok(Err(error)) => {
                debug!(%error, "Asterisk didn't say when it started");
                *started = None;
            }
            Err(_) => {
                debug!("Asterisk didn't say in time when it started");
                *started = None;
            }
        }
        let ended = self.read(&mut stream, &mut heard).await;
        // A farewell to a switch that is there; what is broken is dropped at once.
        if matches!(ended, Ended::Cancelled | Ended::Replaced) {
            drop(timeout(GOODBYE, stream.close(None)).await);
        }
        (heard, ended)
    }

    async fn read(&self, stream: &mut Stream, heard: &mut Heard) -> Ended {
        let token = format!("{:016x}", rand::rng().random::<u64>());
        // Beside the reading, which waits for no answer to a command.
        let asking = async { tokio::join!(self.probe(&token), self.filter()) };
        tokio::pin!(asking);
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
                () = tokio::time::sleep_until(heard.last + PROBE_DEADLINE) => return Ended::Silent,
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
                return Ok(());
            }
        };
        match &event.kind {
            EventKind::Other => Ok(()),
            EventKind::ApplicationReplaced {} => Err(Ended::Replaced),
            EventKind::ChannelUserevent { eventname, userevent } => {
                if eventname == PROBE_NAME && userevent["token"] == token {
                    heard.last = Instant::now();
                    if heard.echo.replace(event.at).is_none() {
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

    /// Has Asterisk leave out what we would ignore; without it, events only cost more.
    async fn filter(&self) {
        while let Err(error) = self.client.ignore_events(&IGNORED).await {
            debug!(%error, "the event filter was not set");
            tokio::time::sleep(FILTER_AGAIN).await;
        }
    }

    /// Tells what must not be missed, even if the listener is behind.
    async fn tell(&self, signal: Signal) {
        match self.cancel.run_until_cancelled(self.signals.send(signal)).await {
            Some(Ok(())) | None => {}
            Some(Err(_)) => debug!("nobody listens to the event socket any more"),
        }
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
