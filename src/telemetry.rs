//! What the service says of itself: log lines, human in a terminal and JSON
//! elsewhere, and [`Metrics`] for the monitoring.

mod metrics;
mod process;

use std::io::IsTerminal;

use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogFormat, LogSettings};
use crate::ids::CallId;

pub use metrics::{AriFailure, Drift, Metrics, Moment};

/// The target of calls' spans.
const CALL: &str = "call";

/// What is said for one call is said in its span: every line of it carries its id.
pub fn call_span(call: CallId) -> Span {
    tracing::error_span!(target: CALL, parent: None, "call", id = %call)
}

/// Where log lines go.
#[derive(Debug)]
pub enum Destination {
    Stderr,
    /// Appended to; the terminal stays free for what a person wants to read.
    File(std::fs::File),
}

/// Starts logging. Later calls do nothing.
pub fn start(settings: &LogSettings, destination: Destination) {
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // No filter takes the id from the lines that pass it.
    let filter = match format!("{CALL}=error").parse() {
        Ok(spans) => filter.add_directive(spans),
        Err(_) => filter,
    };
    let to_terminal = matches!(destination, Destination::Stderr) && std::io::stderr().is_terminal();
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !to_terminal,
    };
    let writer = match destination {
        Destination::Stderr => BoxMakeWriter::new(std::io::stderr),
        Destination::File(file) => BoxMakeWriter::new(file),
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(writer)
        .with_ansi(to_terminal);
    // A test may have started logging before: its choice stays.
    let started = if json {
        lines.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        lines.try_init()
    };
    drop(started);
}
