//! Settings: the defaults compiled in, then a file, then the environment.
//!
//! They are validated whole before anything starts, and what is wrong is said
//! in one sentence that names the setting. Numbers and secrets from the
//! environment are taken as they are written: nothing guesses their type.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::ari::AriSettings;
use crate::call::LEDGER_TIMEOUT;
use crate::call::registry::CallSettings;
use crate::capacity::recount::{GRACE, RecountSettings};
use crate::capacity::{LeaseClock, Leases, RedisSettings};
use crate::journal::JournalSettings;

/// The defaults, with a comment for every setting.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: HttpSettings,
    pub database: DatabaseSettings,
    pub ari: AriSettings,
    pub internal: InternalSettings,
    pub calls: CallSettings,
    pub journal: JournalSettings,
    pub capacity: CapacitySettings,
    pub shutdown: ShutdownSettings,
    pub metrics: MetricsSettings,
    pub log: LogSettings,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// `address:port` on which the API listens.
    pub address: String,
    /// Whether session cookies travel over HTTPS only.
    pub secure_cookies: bool,
    /// Hours after which a sign-in ends.
    pub session_hours: u32,
    /// Failed sign-ins of one account within 15 minutes that are borne; 0 = any number.
    pub failed_sign_ins_per_account: u32,
    /// The same from one address.
    pub failed_sign_ins_per_address: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    pub url: String,
    /// Asterisk's own account there, for an Asterisk that we start; empty = that of `url`.
    pub realtime_url: String,
}

/// For a dialplan that routes without the Stasis application.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalSettings {
    /// What the dialplan proves itself with; empty = it isn't let in.
    pub token: SecretString,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacitySettings {
    pub store: LedgerStore,
    pub redis_url: String,
    /// What the names of all keys begin with.
    pub key_prefix: String,
    /// How long an answer is waited for.
    pub patience_ms: u64,
    /// How long a hold is believed in of which nobody speaks.
    pub lease_seconds: u64,
    /// How often the ledger is compared with the records.
    pub verify_minutes: u64,
    pub when_away: WhenAway,
    /// Instances that share calls.
    pub instances: u32,
}

/// The ledger's own patience ends before its caller's, which isn't counted.
const PATIENCE_MOST_MS: u64 = 400;
const _: () =
    assert!(Duration::from_millis(PATIENCE_MOST_MS).as_millis() < LEDGER_TIMEOUT.as_millis());

/// What becomes of new calls while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenAway {
    Refuse,
    /// They are held against a share of each limit: see `capacity::share`.
    Share,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LedgerStore {
    /// In process: for a single instance.
    Memory,
    /// For several instances.
    Redis,
}

impl CapacitySettings {
    pub fn leases(&self) -> Leases {
        Leases { held: Duration::from_secs(self.lease_seconds), ..Leases::default() }
    }

    /// How `instance` uses Redis.
    pub fn redis(&self, instance: &str) -> RedisSettings {
        RedisSettings {
            url: self.redis_url.clone(),
            prefix: self.key_prefix.clone(),
            node: instance.to_owned(),
            leases: self.leases(),
            clock: LeaseClock::Own,
            patience: Duration::from_millis(self.patience_ms),
        }
    }

    pub fn recount(&self) -> RecountSettings {
        RecountSettings {
            grace: match self.store {
                LedgerStore::Memory => Duration::ZERO,
                LedgerStore::Redis => GRACE,
            },
            interval: Duration::from_secs(60 * self.verify_minutes),
        }
    }
}

/// What becomes of calls when the service is asked to end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    pub calls: CallsAtShutdown,
    /// The longest wait for their end.
    pub wait_seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallsAtShutdown {
    /// The next start takes them up.
    Leave,
    Wait,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// `address:port` at which Prometheus reads `/metrics`; empty = nowhere.
    pub address: String,
}

impl MetricsSettings {
    /// Where metrics are to be read, if they are.
    pub fn listens_at(&self) -> Option<&str> {
        Some(self.address.as_str()).filter(|address| !address.is_empty())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human in a terminal, JSON elsewhere.
    Auto,
    Human,
    Json,
}

/// What is wrong with the settings, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the settings can't be read: {}", one_sentence(.0))]
    Unreadable(#[from] config::ConfigError),
    #[error("the settings in {} can't be read: {problem}", file.display())]
    File { file: PathBuf, problem: String },
    #[error("setting `{name}` {problem}")]
    Invalid { name: &'static str, problem: String },
}

/// Without the picture of the place that parsers draw.
fn one_sentence(error: &config::ConfigError) -> String {
    let said = error.to_string();
    let is_drawn = |line: &&str| {
        line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim().starts_with('|')
    };
    let lines = said.lines().filter(|line| !is_drawn(line) && !line.trim().is_empty());
    let joined = lines.collect::<Vec<_>>().join(": ");
    joined.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SENTENCE_MOST).collect()
}

/// A setting of any length is no reason for an error of any length.
const SENTENCE_MOST: usize = 500;

/// A file of settings has a few kilobytes; what is larger isn't one.
const FILE_MOST_BYTES: u64 = 1 << 20;

fn read_file(file: &Path) -> io::Result<String> {
    // To open a pipe that nobody writes to would wait for ever.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it isn't a regular file"));
    }
    let mut text = String::new();
    File::open(file)?.take(FILE_MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MOST_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

type Builder = config::ConfigBuilder<config::builder::DefaultState>;

impl Config {
    /// Reads and validates the settings.
    ///
    /// # Errors
    /// One sentence that names the first setting that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::layers(file)?.build()?.try_deserialize::<Self>()?.validated()
    }

    /// The database's URL alone, for commands that need nothing else.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn database_url(file: Option<&Path>) -> Result<String, ConfigError> {
        Ok(Self::layers(file)?.build()?.get_string("database.url")?)
    }

    /// What the file or the environment says of a setting; None where the default holds.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn given(file: Option<&Path>, name: &str) -> Result<Option<String>, ConfigError> {
        let given =
            Self::layers_over(config::Config::builder(), file, Self::environment())?.build()?;
        match given.get_string(name) {
            Ok(value) => Ok(Some(value)),
            Err(config::ConfigError::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The settings with these in place of theirs: for profiles that know better.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn with(file: Option<&Path>, overrides: &[(&str, String)]) -> Result<Self, ConfigError> {
        let mut builder = Self::layers(file)?;
        for (name, value) in overrides {
            builder = builder.set_override(*name, value.clone())?;
        }
        builder.build()?.try_deserialize::<Self>()?.validated()
    }

    /// Settings that work and that an operator should know to be risky.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let loopback = |address: &str| {
            address.starts_with("127.")
                || address.starts_with("localhost:")
                || address.starts_with("[::1]")
        };
        if !loopback(&self.http.address) && !self.http.secure_cookies {
            warnings.push(format!(
                "http.address is {} and http.secure_cookies is off: put TLS in front and switch it on",
                self.http.address
            ));
        }
        if let Some(address) = self.metrics.listens_at().filter(|address| !loopback(address)) {
            warnings.push(format!(
                "metrics.address is {address}: whoever reaches it reads the figures, without signing in"
            ));
        }
        if !loopback(&self.ari.address) {
            warnings.push(format!(
                "ari.address is {}: ARI is full control of the switch and isn't encrypted",
                self.ari.address
            ));
        }
        if self.http.secure_cookies && self.http.failed_sign_ins_per_address > 0 {
            warnings.push(format!(
                "http.failed_sign_ins_per_address is {} and http.secure_cookies is on: behind a proxy everybody comes from its address, so {0} failed sign-ins of anybody shut all out; set it to 0 and let the proxy limit them",
                self.http.failed_sign_ins_per_address
            ));
        }
        warnings
    }

    /// Defaults, then the file, then the environment.
    fn layers(file: Option<&Path>) -> Result<Builder, ConfigError> {
        use config::{Config, File, FileFormat};
        let defaults = File::from_str(DEFAULTS, FileFormat::Toml);
        Self::layers_over(Config::builder().add_source(defaults), file, Self::environment())
    }

    fn layers_over(
        mut builder: Builder,
        file: Option<&Path>,
        environment: config::Environment,
    ) -> Result<Builder, ConfigError> {
        use config::{Config, File, FileFormat};
        if let Some(file) = file {
            let unreadable = |problem| ConfigError::File { file: file.to_owned(), problem };
            let text = read_file(file).map_err(|error| unreadable(error.to_string()))?;
            let settings = File::from_str(&text, FileFormat::Toml);
            // Alone first: whatever is wrong with it is said with its name.
            let alone = Config::builder().add_source(settings.clone()).build();
            alone.map_err(|error| unreadable(one_sentence(&error)))?;
            builder = builder.add_source(settings);
        }
        Ok(builder.add_source(environment))
    }

    fn environment() -> config::Environment {
        config::Environment::with_prefix("CAPCONDUIT").prefix_separator("__").separator("__")
    }

    fn validated(self) -> Result<Self, ConfigError> {
        self.validate()?;
        Ok(self)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        use secrecy::ExposeSecret;
        let invalid =
            |name, problem: &str| Err(ConfigError::Invalid { name, problem: problem.to_owned() });
        if self.http.address.parse::<std::net::SocketAddr>().is_err() {
            return invalid("http.address", "must be ADDRESS:PORT, such as 127.0.0.1:8080");
        }
        if !(1..=24 * 366).contains(&self.http.session_hours) {
            return invalid("http.session_hours", "must be from 1 to 8784");
        }
        let postgres =
            |url: &str| url.starts_with("postgres://") || url.starts_with("postgresql://");
        if !self.database.url.starts_with("sqlite:") && !postgres(&self.database.url) {
            return invalid("database.url", "must begin with sqlite: or postgres://");
        }
        let realtime_url = &self.database.realtime_url;
        if !realtime_url.is_empty() && !postgres(realtime_url) {
            return invalid("database.realtime_url", "must be empty or begin with postgres://");
        }
        if self.ari.password.expose_secret().is_empty() {
            return invalid("ari.password", "is missing: it is the one in Asterisk's ari.conf");
        }
        if !self.ari.address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }) {
            return invalid("ari.address", "must be HOST:PORT, such as 127.0.0.1:8088");
        }
        let word = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        if !word(&self.ari.application) {
            return invalid("ari.application", "may have letters, digits, - and _ only");
        }
        if (1..16).contains(&self.internal.token.expose_secret().len()) {
            return invalid("internal.token", "must be empty or have at least 16 characters");
        }
        if !(1..=10_000).contains(&self.calls.most_in_setup) {
            return invalid("calls.most_in_setup", "must be from 1 to 10000");
        }
        if !(1..=300).contains(&self.calls.audit_seconds) {
            return invalid("calls.audit_seconds", "must be from 1 to 300");
        }
        if !(1..=10_000).contains(&self.journal.sync_interval_ms) {
            return invalid("journal.sync_interval_ms", "must be from 1 to 10000");
        }
        if !(64..=65_536).contains(&self.journal.most_mb) {
            return invalid("journal.most_mb", "must be from 64 to 65536");
        }
        let capacity = &self.capacity;
        if capacity.store == LedgerStore::Redis
            && ::redis::Client::open(capacity.redis_url.as_str()).is_err()
        {
            return invalid(
                "capacity.redis_url",
                "must be redis://[USER:PASSWORD@]HOST[:PORT]/DATABASE",
            );
        }
        if !word(&capacity.key_prefix) {
            return invalid("capacity.key_prefix", "may have letters, digits, - and _ only");
        }
        if !(10..=PATIENCE_MOST_MS).contains(&capacity.patience_ms) {
            return invalid("capacity.patience_ms", "must be from 10 to 400");
        }
        if !(660..=86_400).contains(&capacity.lease_seconds) {
            return invalid("capacity.lease_seconds", "must be from 660 to 86400");
        }
        if !(1..=1_440).contains(&capacity.verify_minutes) {
            return invalid("capacity.verify_minutes", "must be from 1 to 1440");
        }
        if !(1..=64).contains(&capacity.instances) {
            return invalid("capacity.instances", "must be from 1 to 64");
        }
        if capacity.when_away == WhenAway::Share && capacity.instances < 2 {
            return invalid(
                "capacity.instances",
                "must be given, and at least 2, where capacity.when_away is share",
            );
        }
        if !(1..=86_400).contains(&self.shutdown.wait_seconds) {
            return invalid("shutdown.wait_seconds", "must be from 1 to 86400");
        }
        if let Some(address) = self.metrics.listens_at() {
            if address.parse::<std::net::SocketAddr>().is_err() {
                return invalid(
                    "metrics.address",
                    "must be empty or ADDRESS:PORT, such as 127.0.0.1:9464",
                );
            }
            if address == self.http.address {
                return invalid("metrics.address", "must not be that of http.address");
            }
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.filter).is_err() {
            return invalid("log.filter", "is not a filter, such as info or info,capconduit=debug");
        }
        Ok(())
    }
}
