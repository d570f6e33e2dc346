//! `capconduit replay`: what another configuration would have made of past calls.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use chrono::{NaiveDate, NaiveTime};
use clap::Args;
use poem_openapi::types::ToJSON;
use serde_json::Value;

use super::place::{NoPlace, Place};
use crate::api::replay::{Comparison, NotReplayed, Outcomes, Patch, Replayed, replay};
use crate::clock::Timestamp;

#[derive(Args, Debug)]
pub struct Replay {
    /// Calls that came in at or after this: a date (UTC), or an instant in RFC 3339.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Calls that came in before this. At most 31 days and 20,000 calls are replayed.
    #[arg(long, value_name = "TIME")]
    to: String,
    /// What is to be different: TOML, or JSON if its name ends in .json.
    ///
    /// Lists of campaigns, links and clients by their id, with the fields that differ, named
    /// as in the API: [[links]] id = 7, dailyCap = 80. "none" takes a cap away.
    #[arg(long, value_name = "FILE")]
    patch: PathBuf,
    /// Print it as JSON, as the API has it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Place,
}

/// Why nothing was replayed: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unplayed {
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error("{option}: {text:?} must be a date, such as 2026-11-22, or an instant in RFC 3339")]
    Time { option: &'static str, text: String },
    #[error("{file} can't be read: {reason}")]
    File { file: PathBuf, reason: String },
    #[error("{file} isn't a patch: {reason}")]
    Patch { file: PathBuf, reason: String },
    #[error(transparent)]
    Replay(#[from] NotReplayed),
}

impl Replay {
    /// Prints the comparison.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub async fn run(self) -> Result<(), Unplayed> {
        let from = instant("--from", &self.from)?;
        let to = instant("--to", &self.to)?;
        let patch = read(&self.patch)?;
        let db = self.database.open_to_read().await?;
        let replayed = replay(&db, from, to, patch).await?;
        if self.json {
            println!("{:#}", replayed.to_json().unwrap_or_default());
        } else {
            print!("{}", told(&replayed));
        }
        Ok(())
    }
}

fn instant(option: &'static str, text: &str) -> Result<Timestamp, Unplayed> {
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(NaiveTime::MIN).and_utc());
    }
    text.parse().map_err(|_| Unplayed::Time { option, text: text.to_owned() })
}

fn read(file: &Path) -> Result<Patch, Unplayed> {
    let unread = |reason: String| Unplayed::File { file: file.to_owned(), reason };
    let text = std::fs::read_to_string(file).map_err(|err| unread(err.to_string()))?;
    let is_json = file.extension().is_some_and(|extension| extension == "json");
    let mut value: Value = if is_json {
        serde_json::from_str(&text).map_err(|err| unread(err.to_string()))?
    } else {
        toml::from_str(&text).map_err(|err| unread(err.message().to_owned()))?
    };
    clear(&mut value);
    Patch::read(value)
        .map_err(|errors| Unplayed::Patch { file: file.to_owned(), reason: errors.to_string() })
}

/// TOML has no null: there a cap is taken away by the word `none`.
fn clear(value: &mut Value) {
    match value {
        Value::String(text) if text == "none" => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(clear),
        Value::Object(fields) => fields.values_mut().for_each(clear),
        _ => {}
    }
}

fn told(replayed: &Replayed) -> String {
    let mut told = String::new();
    write(&mut told, replayed).expect("a text takes all that is written");
    told
}

fn write(out: &mut String, replayed: &Replayed) -> std::fmt::Result {
    let Replayed { revision, calls, as_recorded, changed, .. } = replayed;
    writeln!(out, "{calls} calls; the change makes something else of {changed} of them.")?;
    writeln!(
        out,
        "By the configuration as it is (revision {revision}), {as_recorded} come out as their logs say."
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "{:<28} {:<10} {:>9} {:>8} {:>6}  REFUSED BY",
        "", "", "DELIVERED", "REFUSED", "LOST"
    )?;
    write_rows(out, "all calls", &replayed.totals)?;
    for client in &replayed.clients {
        let name: String = format!("{} ({})", client.name, client.client_identifier);
        write_rows(out, &shortened(&name), &client.comparison)?;
    }
    writeln!(out, "\nAssumed:")?;
    for assumption in &replayed.assumptions {
        writeln!(out, "- {assumption}")?;
    }
    Ok(())
}

fn write_rows(out: &mut String, of: &str, comparison: &Comparison) -> std::fmt::Result {
    let Comparison { recorded, current, patched } = comparison;
    for (name, which, outcomes) in
        [(of, "then", recorded), ("", "as it is", current), ("", "changed", patched)]
    {
        let Outcomes { delivered, refused, lost } = outcomes;
        let all: u32 = refused.iter().map(|refused| refused.calls).sum();
        let reasons: Vec<_> =
            refused.iter().map(|by| format!("{} {}", by.reason, by.calls)).collect();
        let line = format!(
            "{name:<28} {which:<10} {delivered:>9} {all:>8} {lost:>6}  {}",
            reasons.join(", ")
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    const MOST: usize = 28;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['…']).collect()
}
