//! The command line.

mod caps;
mod explain;
mod place;
mod replay;
mod users;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::App;
use crate::config::{CallsAtShutdown, Config};
use crate::telemetry::{self, Destination};
use crate::vital::BROKEN_DOWN;
use crate::{api, db, demo, embedded};

/// Sells inbound phone calls under caps that are never exceeded.
#[derive(Parser, Debug)]
#[command(name = "capconduit", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run everything on this machine: Asterisk, the database and the service.
    Run(embedded::Options),
    /// Show it at work: sample data, call centres and a few dozen calls.
    ///
    /// Beside a running `capconduit run` with the same options, or starting one
    /// itself.
    Demo(demo::Options),
    /// Run the service alone, beside an Asterisk that is there already.
    Serve(ConfigFile),
    /// Bring the database's schema up to date.
    Migrate(ConfigFile),
    /// Say whether the settings are right, and start nothing.
    CheckConfig(ConfigFile),
    /// Create, list and rescue accounts.
    #[command(subcommand)]
    User(users::Command),
    /// Tell what became of a call and why, and whether it would be decided the same today.
    ///
    /// Reads the call's log from the database, also beside a running service: the one that
    /// --data or --config names, else that of the environment, else that of `capconduit run`
    /// in this folder.
    Explain(explain::Explain),
    /// Tell what a changed configuration would have made of past calls.
    ///
    /// Leads them once more by the code of live calls, in a time of their own, and shows per
    /// client what would have been different. Nothing is written. Reads the same database as
    /// `explain`.
    Replay(replay::Replay),
    /// Look after the capacity ledger.
    #[command(subcommand)]
    Caps(caps::Command),
    /// Print an OpenAPI document.
    Openapi {
        /// Whose document.
        #[arg(value_enum)]
        audience: Audience,
    },
}

#[derive(clap::Args, Debug)]
struct ConfigFile {
    /// Settings that differ from the defaults (TOML). The environment comes
    /// after it: CAPCONDUIT__SECTION__NAME.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Audience {
    Admin,
    Seller,
}

/// What a wrong command line or setting exits with (sysexits' `EX_USAGE`).
const BAD_USAGE: u8 = 64;
/// What a second Ctrl-C exits with.
const CUT_OFF: u8 = 130;

impl Cli {
    /// Does what was asked for.
    pub async fn run(self) -> ExitCode {
        match self.command {
            Command::Run(options) => {
                match until_ended(async |ended| embedded::run(options, ended).await).await {
                    Some(Ok(())) => ExitCode::SUCCESS,
                    Some(Err(error)) => {
                        embedded::report(&error);
                        fail(&error)
                    }
                    None => CUT_OFF.into(),
                }
            }
            Command::Demo(options) => {
                match until_ended(async |ended| demo::run(options, ended).await).await {
                    Some(Ok(ending)) => ending.into(),
                    Some(Err(error)) => fail(&error),
                    None => CUT_OFF.into(),
                }
            }
            Command::Serve(file) => until_ended(async |ended| {
                with_config(&file, async |config| serve(config, ended).await).await
            })
            .await
            .unwrap_or_else(|| CUT_OFF.into()),
            Command::Migrate(file) => with_config(&file, migrate).await,
            Command::CheckConfig(file) => {
                with_config(&file, async |_| {
                    println!("The settings are right.");
                    ExitCode::SUCCESS
                })
                .await
            }
            Command::User(command) => match command.run().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
            Command::Explain(command) => match command.run().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
            Command::Replay(command) => match command.run().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
            Command::Caps(command) => match command.run().await {
                Ok(code) => code,
                Err(error) => fail(&error),
            },
            Command::Openapi { audience } => {
                let document = match audience {
                    Audience::Admin => api::admin_document(),
                    Audience::Seller => api::seller_document(),
                };
                print!("{document}");
                ExitCode::SUCCESS
            }
        }
    }
}

async fn with_config(file: &ConfigFile, then: impl AsyncFnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(file.config.as_deref()) {
        Ok(config) => {
            for warning in config.warnings() {
                eprintln!("capconduit: warning: {warning}");
            }
            then(config).await
        }
        Err(error) => {
            eprintln!("capconduit: {error}");
            ExitCode::from(BAD_USAGE)
        }
    }
}

async fn serve(config: Config, ended: CancellationToken) -> ExitCode {
    telemetry::start(&config.log, Destination::Stderr);
    let address = config.http.address.clone();
    let shutdown = config.shutdown.clone();
    let app = match ended.run_until_cancelled(App::start(config)).await {
        Some(Ok(app)) => app,
        Some(Err(error)) => return fail(&error),
        None => return ExitCode::SUCCESS,
    };
    info!(address, "the API listens");
    tokio::select! {
        () = ended.cancelled() => {}
        // At once, as a crash: whoever waits for a part that is no more waits for long.
        () = app.broken() => std::process::exit(i32::from(BROKEN_DOWN)),
    }
    match shutdown.calls {
        CallsAtShutdown::Leave => info!("stopping; calls that are up stay up"),
        CallsAtShutdown::Wait => {
            app.wait_for_calls(Duration::from_secs(shutdown.wait_seconds)).await;
        }
    }
    app.stop().await;
    ExitCode::SUCCESS
}

async fn migrate(config: Config) -> ExitCode {
    let migrated = async {
        let db = db::connect(&config.database.url).await?;
        db::migrate(&db).await
    };
    match migrated.await {
        Ok(()) => {
            println!("The database is up to date.");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("capconduit: {error}");
    ExitCode::FAILURE
}

/// Does `work`, whose token is cancelled at the first Ctrl-C, SIGTERM or SIGHUP. At the
/// second, `work` is dropped as it stands, and with it what it started.
///
/// Signals are caught from the first moment on: nothing that `work` starts can
/// be left behind by one that comes early.
pub async fn until_ended<T>(work: impl AsyncFnOnce(CancellationToken) -> T) -> Option<T> {
    let ended = CancellationToken::new();
    let work = work(ended.clone());
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            warn!(%error, "signals can't be received; end the process by killing it");
            return Some(work.await);
        }
    };
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return Some(done),
        () = signals.next() => ended.cancel(),
    }
    tokio::select! {
        done = work => Some(done),
        () = signals.next() => {
            // The terminal may be what was closed.
            drop(writeln!(std::io::stderr(), "capconduit: ended at once"));
            None
        }
    }
}

/// What asks a process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed; None where that is to be borne (`nohup`).
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if bears_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = received(&mut self.hang_up) => {}
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process was started so that it ignores SIGHUP, the first signal.
fn bears_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
}
