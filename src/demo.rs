//! `capconduit demo`: the product at work, in half a minute, for someone new.
//!
//! Beside a running `capconduit run` (or one that it starts itself, and ends
//! again) it loads sample data through the HTTP API ([`sample`]), plays call
//! centres and callers with SIPp ([`sipp`]) on a fixed [`plan`], and shows each
//! call's way as the API tells it ([`watch`], [`screen`]). At the end the
//! [`summary`] recomputes from the records what each client was offered and
//! took, and whether any cap was exceeded. It knows nothing that another
//! program couldn't know: all it sees comes through the API.
//!
//! Nothing that it starts outlives it, also after Ctrl-C; the sample data stays,
//! and the next run finds it again.

mod answers;
mod plan;
mod sample;
mod screen;
mod service;
mod session;
mod sipp;
mod summary;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock;
use answers::CallLog;
use plan::PLAN;
use sample::{CAMPAIGNS, Sample};
use screen::Screen;
use service::Service;
use session::{ApiError, Session};
use sipp::Stage;
use summary::Summary;
use watch::Watcher;

/// Where the service is, or how to start it: as for `run`.
pub type Options = crate::embedded::Options;

/// How a demo ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every promise was kept.
    Kept,
    /// A cap was exceeded, or a call left no record.
    Broken,
    /// Ctrl-C.
    Interrupted,
}

/// Why there is no demo: one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Service(#[from] service::ServiceError),
    #[error(
        "a service runs on port {port}, but there is no admin password in {file}: name its folder with --data (make demo DATA=...), or set {}",
        service::PASSWORD_VARIABLE
    )]
    NoPassword { port: u16, file: PathBuf },
    #[error(
        "the service on port {port} doesn't take the admin password in {file}: if you changed it, set {variable}; if another folder's service runs there, name that folder with --data (make demo DATA=...)",
        variable = service::PASSWORD_VARIABLE
    )]
    WrongPassword { port: u16, file: PathBuf },
    #[error(transparent)]
    Sample(#[from] sample::SampleError),
    #[error(transparent)]
    Sipp(#[from] sipp::SippError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

const TICK: Duration = Duration::from_millis(100);
/// How long the last calls may take, ring timeouts and talk together.
const PATIENCE: Duration = Duration::from_secs(15);
/// When nothing was seen of any call by then, none will arrive.
const SILENCE: Duration = Duration::from_secs(6);

/// Shows the product at work.
///
/// # Errors
/// One sentence for the person in front of the terminal.
pub async fn run(options: Options, ended: CancellationToken) -> Result<Ending, DemoError> {
    let program = sipp::find(&options.tools)?;
    let mut service = Service::find_or_start(&options).await?;
    let ending = match ended.run_until_cancelled(service.ready()).await {
        None => Ok(Ending::Interrupted),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(())) => with_service(&options, program, &service, &ended).await,
    };
    service.end().await;
    ending
}

/// The exit code that says how it ended.
impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Kept => Self::SUCCESS,
            Ending::Broken => Self::FAILURE,
            Ending::Interrupted => Self::from(130),
        }
    }
}

async fn with_service(
    options: &Options,
    program: PathBuf,
    service: &Service,
    ended: &CancellationToken,
) -> Result<Ending, DemoError> {
    let admin = sign_in(options, service).await?;
    let ending = tokio::select! {
        ending = play(options, program, service, &admin) => ending,
        () = ended.cancelled() => {
            println!("\nInterrupted: the demo's calls are hung up; its sample data stays.");
            sample::hang_up_calls(&admin).await.map(|()| Ending::Interrupted).map_err(Into::into)
        }
    };
    admin.sign_out().await;
    ending
}

async fn sign_in(options: &Options, service: &Service) -> Result<Session, DemoError> {
    let file = options.data.join("admin-password");
    let port = options.http_port;
    let Some(password) = service::admin_password(&file) else {
        return Err(DemoError::NoPassword { port, file });
    };
    match Session::sign_in(&service.address, "admin", &password).await {
        Err(ApiError::Refused { status: 401, .. }) => Err(DemoError::WrongPassword { port, file }),
        signed_in => Ok(signed_in?),
    }
}

/// From the sample data to the summary.
async fn play(
    options: &Options,
    program: PathBuf,
    service: &Service,
    admin: &Session,
) -> Result<Ending, DemoError> {
    sample::hang_up_calls(admin).await?;
    let mut stage = Stage::set(program, options.sip_port)?;
    let ports = stage.seat_callees().await?;
    let sample = Sample::load(admin, &ports).await?;
    let mut screen = Screen::new(clock::now());
    screen.opening();
    let watched = watch_calls(admin, &sample, &mut stage, &mut screen).await?;
    let summary = Summary::of(&sample.links().await?, &watched.logs, &watched.talking);
    screen.summary(&summary, &watched);
    screen.where_to_look(options, &sample, service.stays());
    stage.end().await;
    sample.seller.sign_out().await;
    Ok(if summary.breaches.is_empty() && watched.recorded == plan::calls() {
        Ending::Kept
    } else {
        Ending::Broken
    })
}

/// What was seen of the calls.
pub struct Watched {
    /// Of the demo seller, since the demo began.
    logs: Vec<CallLog>,
    /// The most calls seen talking at once, per link.
    talking: watch::Peaks,
    /// How often the live calls were looked at.
    looks: u32,
    /// How many records there are of the calls that were placed.
    recorded: u32,
    sip_port: u16,
}

/// Places the planned calls and shows what becomes of them, until all have a record.
async fn watch_calls(
    admin: &Session,
    sample: &Sample,
    stage: &mut Stage,
    screen: &mut Screen,
) -> Result<Watched, DemoError> {
    let begun = Instant::now();
    let deadline = begun + plan::length() + PATIENCE;
    let mut watcher = Watcher::begin(&sample.seller).await?;
    let mut waves = PLAN.iter().peekable();
    let mut placed = 0;
    let mut tick = begun;
    loop {
        while let Some(wave) = waves.next_if(|wave| begun.elapsed() >= wave.after()) {
            stage.call(wave, placed + 1, CAMPAIGNS[wave.campaign].number)?;
            placed += wave.calls;
        }
        screen.show(watcher.look(admin, &sample.seller).await?);
        let recorded = watcher.recorded();
        let is_over = waves.peek().is_none() && recorded >= placed;
        let is_in_vain = watcher.is_silent() && begun.elapsed() > SILENCE;
        if is_over || is_in_vain || tick > deadline {
            screen.flush();
            let (logs, talking, looks) = watcher.into_seen();
            return Ok(Watched { logs, talking, looks, recorded, sip_port: stage.sip_port() });
        }
        tick += TICK;
        tick = tick.max(Instant::now());
        sleep_until(tick).await;
    }
}
