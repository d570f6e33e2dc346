//! What a person sees: a line per event, then a table. At most 100 columns;
//! colours only in a terminal.

use std::cmp::Ordering;
use std::io::IsTerminal;

use capconduit_entity::{AttemptResult, CallStatus};
use chrono::TimeDelta;

use super::answers::{Attempt, CallLog};
use super::sample::{CAMPAIGNS, SELLER, Sample, short_name};
use super::summary::{Row, Summary};
use super::watch::{Event, What};
use super::{Options, Watched, plan};
use crate::clock::{self, Timestamp};

pub struct Screen {
    begun: Timestamp,
    paint: Paint,
    /// Events wait a moment, so that one that is heard of late still comes in its turn.
    waiting: Vec<Event>,
}

/// How long an event may wait for an earlier one.
const LATE: TimeDelta = TimeDelta::milliseconds(400);
const BAR_CELLS: u32 = 6;

// === impl Screen ===

impl Screen {
    pub fn new(begun: Timestamp) -> Self {
        Self { begun, paint: Paint::for_stdout(), waiting: Vec::new() }
    }

    /// Who is there, and what will happen.
    pub fn opening(&self) {
        let paint = self.paint;
        println!();
        println!(
            "  {}",
            paint.bold(&format!("{} calls, three campaigns, five call centres", plan::calls()))
        );
        println!();
        println!("  Alpha, Bravo and Charlie answer. Delta is always busy. Echo never answers.");
        println!();
        for campaign in &CAMPAIGNS {
            let name = format!("{:<9}", campaign.short);
            println!("  {}  {}  {}", campaign.number, paint.bold(&name), campaign.story);
        }
        println!();
        let heading = format!(
            "  {:>7}  {:>4}  {:<12}  {:<9}  {}",
            "time", "call", "number", "campaign", "what happens"
        );
        println!("{}", paint.dim(&heading));
    }

    /// Prints what has waited long enough.
    pub fn show(&mut self, events: Vec<Event>) {
        self.waiting.extend(events);
        self.print_until(clock::now() - LATE);
    }

    /// Prints the rest.
    pub fn flush(&mut self) {
        self.print_until(Timestamp::MAX_UTC);
    }

    fn print_until(&mut self, until: Timestamp) {
        self.waiting.sort_by_key(|event| event.at);
        let later = self.waiting.split_off(self.waiting.partition_point(|event| event.at <= until));
        for event in std::mem::replace(&mut self.waiting, later) {
            println!("{}", self.line(&event));
        }
    }

    fn line(&self, event: &Event) -> String {
        let seconds = (event.at - self.begun).as_seconds_f32().max(0.0);
        let call = event.call.map_or_else(|| "-".to_owned(), |call| format!("#{call}"));
        let place = format!(
            "  {seconds:>5.1} s  {call:>4}  {:<12}  {:<9}",
            event.dialled,
            short_name(&event.dialled)
        );
        format!("{}  {}", self.paint.dim(&place), self.what(&event.what))
    }

    fn what(&self, what: &What) -> String {
        match what {
            What::Rings { client, before: None } => format!("ringing {client}"),
            What::Rings { client, before: Some(before) } => {
                format!("not taken by {before} -> ringing {client}")
            }
            What::Talks { client } => self.paint.cyan(&format!("talking to {client}")),
            What::Ended(log) => self.ending(log),
        }
    }

    fn ending(&self, log: &CallLog) -> String {
        let way = way(&log.attempts);
        match log.call_status {
            CallStatus::Answered => {
                let by = log.attempts.last().map_or("?", |attempt| attempt.client.name.as_str());
                let seconds = log.billsec_seconds;
                self.paint.green("ANSWERED") + &format!(" {seconds} s by {by}{way}")
            }
            CallStatus::Canceled => self.paint.yellow("CANCELED") + " by the caller" + &way,
            status => self.paint.red(word(status)) + " " + reason(status) + &way,
        }
    }

    /// What each client got, and whether every promise was kept.
    pub fn summary(&self, summary: &Summary, watched: &Watched) {
        println!();
        let heading = format!(
            "  {:<9}  {:<7} {:>7} {:>8} {:>5} {:>8} {:>5} {:>8}  {:<14}  {:<14}",
            "campaign",
            "client",
            "offered",
            "answered",
            "busy",
            "rang out",
            "left",
            "refused",
            "most at once",
            "in all"
        );
        println!("{}", self.paint.dim(heading.trim_end()));
        let mut last = "";
        for row in &summary.rows {
            let campaign = if row.campaign == last { "" } else { row.campaign };
            last = row.campaign;
            println!("{}", self.row(campaign, row));
        }
        println!();
        self.verdict(summary, watched);
    }

    fn row(&self, campaign: &str, row: &Row) -> String {
        let line = format!(
            "  {campaign:<9}  {:<7} {:>7} {:>8} {:>5} {:>8} {:>5} {:>8}  {}  {}",
            row.client,
            row.offered,
            row.answered,
            row.busy,
            row.no_answer,
            row.left,
            row.refused,
            self.gauge(row.peak, Some(row.max_concurrency)),
            self.gauge(row.counted, row.total_allowed),
        );
        match row.failed {
            0 => line.trim_end().to_owned(),
            failed => format!("{}\n{:>13}{failed} not reached", line.trim_end(), ""),
        }
    }

    /// `2 of 3 #####...`
    fn gauge(&self, used: u32, limit: Option<u32>) -> String {
        let Some(limit) = limit else { return format!("{used:>2}, no cap") };
        let filled = (used * BAR_CELLS).checked_div(limit).unwrap_or(BAR_CELLS).min(BAR_CELLS);
        let bar = |cell: &str, cells| cell.repeat(usize::try_from(cells).unwrap_or_default());
        let full = bar("\u{2588}", filled);
        let full = if used > limit { self.paint.red(&full) } else { self.paint.green(&full) };
        let empty = self.paint.dim(&bar("\u{2591}", BAR_CELLS - filled));
        format!("{used:>2} of {limit} {full}{empty}")
    }

    fn verdict(&self, summary: &Summary, watched: &Watched) {
        let paint = self.paint;
        let (placed, recorded) = (plan::calls(), watched.recorded);
        match recorded.cmp(&placed) {
            Ordering::Equal => println!("  Each of the {placed} calls left exactly one record."),
            Ordering::Greater => {
                println!("  {}", paint.alarm(&format!("{recorded} RECORDS OF {placed} CALLS")));
            }
            Ordering::Less => {
                let missing = placed - recorded;
                let text = format!("{missing} OF {placed} CALLS LEFT NO RECORD");
                println!("  {}", paint.alarm(&text));
                println!("  Is {} this service's SIP port (--sip-port)?", watched.sip_port);
            }
        }
        if summary.breaches.is_empty() {
            self.caps_held(summary, watched.looks);
        } else {
            println!("  {}", paint.alarm("A CAP WAS EXCEEDED"));
            for breach in &summary.breaches {
                println!("  {}", paint.red(&breach.to_string()));
            }
        }
        println!();
    }

    fn caps_held(&self, summary: &Summary, looks: u32) {
        let (at_once, in_all) = summary.caps();
        let (full_at_once, full_in_all) = summary.full();
        let (caps, full) = (at_once + in_all, full_at_once + full_in_all);
        let text = format!("No cap was exceeded: {caps} of {caps} held, and {full} were full.");
        println!("  {}", self.paint.green(&text));
        let text = format!(
            "Computed from {} attempts to ring a client and {looks} looks at the live calls.",
            summary.attempts
        );
        println!("  {}", self.paint.dim(&text));
    }

    /// Where the same can be read.
    pub fn where_to_look(&self, options: &Options, sample: &Sample, stays: bool) {
        let page = format!("http://127.0.0.1:{}/console", options.http_port);
        if stays {
            println!("  See for yourself: {page}");
        } else {
            let folder = options.data.display();
            println!(
                "  The sample data stays in {folder}. See for yourself: make run, then {page}"
            );
        }
        println!("  Sign in as {SELLER}, password {}", sample.seller_password);
        println!();
    }
}

/// ` (Delta busy, Echo rang out)`: the clients that were tried in vain.
fn way(attempts: &[Attempt]) -> String {
    let in_vain = attempts.iter().filter_map(|attempt| {
        let result = match attempt.result {
            AttemptResult::Answered => return None,
            AttemptResult::Busy => "busy",
            AttemptResult::NoAnswer => "rang out",
            AttemptResult::Canceled => "was ringing",
            AttemptResult::Rejected => "refused",
            AttemptResult::Unreachable => "not reached",
            AttemptResult::Congestion => "congested",
        };
        Some(format!("{} {result}", attempt.client.name))
    });
    let in_vain: Vec<String> = in_vain.collect();
    if in_vain.is_empty() { String::new() } else { format!(" ({})", in_vain.join(", ")) }
}

const fn word(status: CallStatus) -> &'static str {
    match status {
        CallStatus::RejectedCc
        | CallStatus::RejectedTotal
        | CallStatus::RejectedDid
        | CallStatus::Rejected => "REFUSED",
        other => other.as_str(),
    }
}

/// With the SIP answer that the caller gets.
const fn reason(status: CallStatus) -> &'static str {
    match status {
        CallStatus::RejectedCc => "every client is at its concurrency cap (503)",
        CallStatus::RejectedTotal => "every client has all the calls it bought (503)",
        CallStatus::RejectedDid => "nobody has this number (404)",
        CallStatus::Rejected => "no client may have it now (503)",
        CallStatus::Busy => "every client was busy (486)",
        CallStatus::NoAnswer => "nobody took it (480)",
        CallStatus::Failed => "no client could be reached",
        CallStatus::Answered | CallStatus::Canceled => "",
    }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

// === impl Paint ===

impl Paint {
    fn for_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none();
        Self { on: wanted && std::io::stdout().is_terminal() }
    }

    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn alarm(self, text: &str) -> String {
        self.wrap("1;97;41", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
