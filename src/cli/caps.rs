//! `capconduit caps`: is what the ledger believes what the call logs say?

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::config::{Config, ConfigError};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Ask the running service to compare its ledger with the call logs.
    ///
    /// It exits with 0 where they agree, or agree now, and with 2 where they differ.
    Verify {
        /// Mend the ledger where it differs.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the service runs.
#[derive(Args, Debug)]
pub struct Place {
    /// The data folder of `capconduit run`; .run where neither is given.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data: Option<PathBuf>,
    /// The HTTP port of `capconduit run`.
    #[arg(long, value_name = "PORT", default_value_t = 8080, conflicts_with = "config")]
    http_port: u16,
    /// Settings of `capconduit serve`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why it can't be said: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("setting `internal.token` is empty: the service lets nobody ask")]
    NoToken,
    #[error(
        "{file} can't be read ({source}): does `capconduit run` use this folder? Give its --data, or --config of `capconduit serve`"
    )]
    NoData { file: PathBuf, source: std::io::Error },
    #[error("the service at {address} can't be asked: {source}")]
    Away { address: String, source: reqwest::Error },
    #[error("the service at {address} answered {status}: {detail}")]
    Refused { address: String, status: u16, detail: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    scopes: u64,
    holds: u64,
    differences: Vec<Different>,
    holds_without_call: u64,
    repaired: bool,
}

#[derive(Debug, Deserialize)]
struct Different {
    scope: String,
    id: i64,
    calls: i64,
}

/// A comparison reads every call log of the last weeks.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a difference exits with.
const DIFFERENT: u8 = 2;

impl Command {
    pub async fn run(self) -> Result<ExitCode, CapsError> {
        let Self::Verify { repair, place } = self;
        let (address, token) = place.find()?;
        let verified = ask(&address, &token, repair).await?;
        print!("{}", verified.told());
        let agrees = verified.differences.is_empty() || verified.repaired;
        Ok(if agrees { ExitCode::SUCCESS } else { DIFFERENT.into() })
    }
}

async fn ask(address: &str, token: &SecretString, repair: bool) -> Result<Verified, CapsError> {
    let away = |source| CapsError::Away { address: address.to_owned(), source };
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(away)?;
    let answer = client
        .post(format!("http://{address}/api/internal/caps/verify"))
        .header("X-Internal-API-Token", token.expose_secret())
        .json(&json!({"repair": repair}))
        .send()
        .await
        .map_err(away)?;
    let status = answer.status();
    if !status.is_success() {
        let problem: serde_json::Value = answer.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("without a reason").to_owned();
        let (address, status) = (address.to_owned(), status.as_u16());
        return Err(CapsError::Refused { address, status, detail });
    }
    answer.json().await.map_err(away)
}

impl Place {
    fn find(&self) -> Result<(String, SecretString), CapsError> {
        if let Some(file) = &self.config {
            let config = Config::load(Some(file))?;
            if config.internal.token.expose_secret().is_empty() {
                return Err(CapsError::NoToken);
            }
            return Ok((config.http.address, config.internal.token));
        }
        let data = self.data.clone().unwrap_or_else(|| PathBuf::from(".run"));
        let file = data.join("internal-token");
        let token =
            std::fs::read_to_string(&file).map_err(|source| CapsError::NoData { file, source })?;
        Ok((format!("127.0.0.1:{}", self.http_port), token.trim().to_owned().into()))
    }
}

impl Verified {
    fn told(&self) -> String {
        let mut told = String::new();
        for Different { scope, id, calls } in &self.differences {
            let side = if *calls > 0 { "too few" } else { "too many" };
            told += &format!("{scope} {id}: the ledger counts {} calls {side}\n", calls.abs());
        }
        if self.holds_without_call > 0 {
            told += &format!("{} holds without a call were given back\n", self.holds_without_call);
        }
        told += &format!("{} scopes and {} holds compared: ", self.scopes, self.holds);
        told += match (self.differences.is_empty(), self.repaired) {
            (true, _) => "the ledger agrees with the call logs.\n",
            (false, true) => "the ledger was mended.\n",
            (false, false) => "mend the ledger with --repair.\n",
        };
        told
    }
}
