//! Commands to Asterisk: one method for each that we use.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::model::{Bridge, Channel, Info};
use super::switch::{Done, NO_CIRCUIT, Switch};
use tracing::{debug, warn};

use crate::telemetry::{AriFailure, Metrics};

/// Where Asterisk's ARI is, and who we are there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AriSettings {
    /// `host:port` of Asterisk's HTTP server.
    pub address: String,
    pub username: String,
    pub password: SecretString,
    /// The Stasis application that the dialplan hands calls to.
    pub application: String,
}

/// Sends commands. Never repeats one by itself.
pub struct AriClient {
    /// With its connections; see [`Self::forget_connections`].
    http: ArcSwap<reqwest::Client>,
    /// Keeps no connection: what one probe met says nothing of the next.
    probes: reqwest::Client,
    settings: AriSettings,
    metrics: Arc<Metrics>,
    /// Asterisk serves each connection with a thread and closes those over its limit.
    lanes: Semaphore,
}

/// Why a command has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum AriError {
    /// 404: the channel or bridge is no more.
    #[error("{operation}: not there")]
    NotFound { operation: &'static str },
    /// Asterisk refused: nothing was done.
    #[error("{operation}: refused with {status}: {detail}")]
    Refused { operation: &'static str, status: u16, detail: String },
    /// The command never left: nothing was done.
    #[error("{operation}: Asterisk can't be reached")]
    NotSent {
        operation: &'static str,
        #[source]
        source: Source,
    },
    /// The answer was lost: it may have been done.
    #[error("{operation}: no answer, it may have been done")]
    OutcomeUnknown {
        operation: &'static str,
        #[source]
        source: Source,
    },
}

/// What went wrong on the way.
type Source = Box<dyn std::error::Error + Send + Sync>;

/// Requests under way at once: well below Asterisk's limit of HTTP sessions.
const LANES: usize = 64;
/// For as long as this, a command waits for one of those that are under way to end.
const LANE_TIMEOUT: Duration = Duration::from_secs(2);
/// The label in `asterisk-conf/extensions.conf` at which callers wait for the application.
const WAITING_ROOM: &str = "away";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Shorter than a call waits for a leg: what got no answer is looked up within that time.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Below Asterisk's `session_keep_alive`, so a command never meets a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Everything but what RFC 3986 leaves unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

// === impl AriClient ===

impl AriClient {
    /// # Errors
    /// When the HTTP client can't be set up.
    pub fn new(settings: AriSettings, metrics: Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let http = ArcSwap::from_pointee(http_client(LANES)?);
        let probes = http_client(0)?;
        Ok(Self { http, probes, settings, metrics, lanes: Semaphore::new(LANES) })
    }

    pub fn settings(&self) -> &AriSettings {
        &self.settings
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Uses none of the connections any more that commands have used so far: they may be as
    /// dead as the event socket's, which a command learns only by waiting in vain.
    pub fn forget_connections(&self) {
        match http_client(LANES) {
            Ok(fresh) => self.http.store(Arc::new(fresh)),
            Err(error) => warn!(%error, "commands go on over the connections that there are"),
        }
    }

    /// When this Asterisk started, as it writes times: another one says something else.
    pub async fn startup_time(&self) -> Result<String, AriError> {
        let operation = "ask for the startup time";
        let answer = self.send(operation, Method::GET, "asterisk/info?only=status", None).await?;
        let info: Info = decode(operation, answer).await?;
        Ok(info.status.startup_time)
    }

    /// Has Asterisk send an event of ours back over the socket.
    pub async fn send_probe(&self, name: &str, token: &str) -> Done {
        let path = format!(
            "events/user/{}?application={}",
            segment(name),
            segment(&self.settings.application)
        );
        self.probe("probe", &path, Some(json!({"variables": {"token": token}}))).await
    }

    /// Sets a global variable of Asterisk's dialplan, as promptly as a probe goes out.
    pub async fn set_variable(&self, name: &str, value: &str) -> Done {
        let path = format!("asterisk/variable?variable={}&value={}", segment(name), segment(value));
        self.probe("set variable", &path, None).await
    }

    /// Waits for no lane: that commands are slow is no sign of a broken socket.
    async fn probe(&self, operation: &'static str, path: &str, body: Option<Value>) -> Done {
        let asked = Instant::now();
        let answer = self.exchange(&self.probes, operation, Method::POST, path, body).await;
        self.note(operation, asked, &answer);
        answer.map(drop)
    }

    /// Keeps event types that we ignore off the socket. They are named one by
    /// one: a list of allowed types would swallow what a newer Asterisk needs.
    pub async fn ignore_events(&self, types: &[&str]) -> Done {
        let path = format!("applications/{}/eventFilter", segment(&self.settings.application));
        let types: Vec<Value> = types.iter().map(|name| json!({"type": name})).collect();
        let body = json!({"disallowed": types});
        self.send("filter events", Method::PUT, &path, Some(body)).await.map(drop)
    }

    /// Has Asterisk read a module's configuration again.
    pub async fn reload_module(&self, module: &str) -> Done {
        let path = format!("asterisk/modules/{}", segment(module));
        self.send("reload module", Method::PUT, &path, None).await.map(drop)
    }

    async fn post(&self, operation: &'static str, path: &str, body: Value) -> Done {
        self.send(operation, Method::POST, path, Some(body)).await.map(drop)
    }

    async fn send(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<reqwest::Response, AriError> {
        let asked = Instant::now();
        debug!(operation, path, "asking Asterisk");
        let answer = match timeout(LANE_TIMEOUT, self.lanes.acquire()).await {
            Ok(_lane) => {
                let http = self.http.load_full();
                self.exchange(&http, operation, method, path, body).await
            }
            Err(_) => Err(AriError::NotSent { operation, source: "every lane is taken".into() }),
        };
        self.note(operation, asked, &answer);
        answer
    }

    fn note(
        &self,
        operation: &'static str,
        asked: Instant,
        answer: &Result<reqwest::Response, AriError>,
    ) {
        let failure = answer.as_ref().err().and_then(AriError::kind);
        self.metrics.ari_asked(operation, asked.elapsed(), failure);
    }

    async fn exchange(
        &self,
        http: &reqwest::Client,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<reqwest::Response, AriError> {
        let url = format!("http://{}/ari/{path}", self.settings.address);
        let mut request = http
            .request(method, url)
            .basic_auth(&self.settings.username, Some(self.settings.password.expose_secret()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|source| {
            let never_left = source.is_connect() || source.is_builder();
            let source = source.without_url().into();
            if never_left {
                AriError::NotSent { operation, source }
            } else {
                AriError::OutcomeUnknown { operation, source }
            }
        })?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(AriError::NotFound { operation }),
            status => {
                let detail = response.text().await.unwrap_or_default();
                let detail = detail.chars().filter(|c| !c.is_control()).take(200).collect();
                Err(AriError::Refused { operation, status: status.as_u16(), detail })
            }
        }
    }
}

#[async_trait::async_trait]
impl Switch for AriClient {
    fn application(&self) -> &str {
        &self.settings.application
    }

    async fn create_bridge(&self, bridge: &str) -> Done {
        let path = format!("bridges/{}", segment(bridge));
        match self.post("create bridge", &path, json!({"type": "mixing"})).await {
            // There is one: names are ours, and an earlier run may have made it.
            Err(AriError::Refused { status: 409, .. }) => Ok(()),
            result => result,
        }
    }

    async fn add_to_bridge(&self, bridge: &str, channel: &str) -> Done {
        let path = format!("bridges/{}/addChannel", segment(bridge));
        let body = json!({"channel": channel, "inhibitConnectedLineUpdates": true});
        self.post("add to bridge", &path, body).await
    }

    async fn remove_from_bridge(&self, bridge: &str, channel: &str) -> Done {
        let path = format!("bridges/{}/removeChannel", segment(bridge));
        match self.post("remove from bridge", &path, json!({"channel": channel})).await {
            Err(AriError::NotFound { .. } | AriError::Refused { status: 400 | 422, .. }) => Ok(()),
            result => result,
        }
    }

    async fn destroy_bridge(&self, bridge: &str) -> Done {
        let path = format!("bridges/{}", segment(bridge));
        gone_is_done(self.send("destroy bridge", Method::DELETE, &path, None).await)
    }

    async fn create_channel(&self, channel: &str, endpoint: &str, originator: &str) -> Done {
        let body = json!({
            "endpoint": endpoint,
            "app": self.settings.application,
            "channelId": channel,
            "originator": originator,
        });
        self.post("create channel", "channels/create", body).await
    }

    async fn dial(&self, channel: &str, caller: &str, timeout_seconds: u32) -> Done {
        let path = format!("channels/{}/dial", segment(channel));
        let body = json!({"caller": caller, "timeout": timeout_seconds});
        self.post("dial", &path, body).await
    }

    async fn answer(&self, channel: &str) -> Done {
        let path = format!("channels/{}/answer", segment(channel));
        self.post("answer", &path, json!({})).await
    }

    async fn hang_up(&self, channel: &str, cause: i32) -> Done {
        let path = format!("channels/{}?reason_code={cause}", segment(channel));
        gone_is_done(self.send("hang up", Method::DELETE, &path, None).await)
    }

    async fn send_back(&self, channel: &str) -> Done {
        let path = format!("channels/{}/continue", segment(channel));
        match self.post("send back", &path, json!({"label": WAITING_ROOM})).await {
            // It is on its way there, or waits there already.
            Err(error) if error.is_not_in_application() => Ok(()),
            // A dialplan without it, or a caller who has just left.
            Err(AriError::NotFound { .. }) => self.hang_up(channel, NO_CIRCUIT).await,
            result => result,
        }
    }

    async fn channel(&self, channel: &str) -> Result<Option<Channel>, AriError> {
        let path = format!("channels/{}", segment(channel));
        match self.send("look up channel", Method::GET, &path, None).await {
            Ok(response) => Ok(Some(decode("look up channel", response).await?)),
            Err(AriError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn channels(&self) -> Result<Vec<Channel>, AriError> {
        decode("list channels", self.send("list channels", Method::GET, "channels", None).await?)
            .await
    }

    async fn bridges(&self) -> Result<Vec<Bridge>, AriError> {
        decode("list bridges", self.send("list bridges", Method::GET, "bridges", None).await?).await
    }
}

impl fmt::Debug for AriClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AriClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

// === impl AriError ===

impl AriError {
    /// As the figures have it; that something is no more is no failure.
    const fn kind(&self) -> Option<AriFailure> {
        match self {
            Self::NotFound { .. } => None,
            Self::Refused { .. } => Some(AriFailure::Refused),
            Self::NotSent { .. } => Some(AriFailure::NotSent),
            Self::OutcomeUnknown { .. } => Some(AriFailure::NoAnswer),
        }
    }

    /// Whether the command may have been carried out all the same.
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }

    /// 409 or 422: the channel isn't (yet) in our application.
    pub const fn is_not_in_application(&self) -> bool {
        matches!(self, Self::Refused { status: 409 | 422, .. })
    }
}

/// One that keeps so many connections for later.
fn http_client(most_idle: usize) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(most_idle)
        .build()
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn gone_is_done(result: Result<reqwest::Response, AriError>) -> Done {
    match result {
        Ok(_) | Err(AriError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn decode<T: serde::de::DeserializeOwned>(
    operation: &'static str,
    response: reqwest::Response,
) -> Result<T, AriError> {
    response
        .json()
        .await
        .map_err(|source| AriError::OutcomeUnknown { operation, source: source.into() })
}
