//! A call's decision as prose, for a terminal at three in the morning.

use std::fmt::Write;

use capconduit_entity::{AttemptResult, CallReason, Strategy};
use chrono::TimeDelta;

use super::{Explained, Today};
use crate::call::CallRecord;
use crate::call::outcome::cause;
use crate::call::record::Attempt;
use crate::capacity::ScopeKind;
use crate::clock::Timestamp;
use crate::replay::Choice;
use crate::replay::differences::cap_name;
use crate::routing::trace::{LinkTrace, RefusedBy};

/// All that there is to say, in lines.
pub fn tell(explained: &Explained) -> String {
    let mut told = String::new();
    write(&mut told, explained).expect("a text takes all that is written");
    told
}

fn write(out: &mut String, explained: &Explained) -> std::fmt::Result {
    let Explained { record, today } = explained;
    write_what_came(out, record)?;
    let Some(today) = today else { return writeln!(out, "{}", reported(record)) };
    writeln!(out, "{}", ending(record))?;
    write_decision(out, record)?;
    write_what_happened(out, record)?;
    write_today(out, record, today)
}

fn write_what_came(out: &mut String, record: &CallRecord) -> std::fmt::Result {
    let caller = match (&record.caller_name, &record.caller_number) {
        (Some(name), Some(number)) => format!("{name} <{number}>"),
        (Some(known), None) | (None, Some(known)) => known.clone(),
        (None, None) => "a caller without a number".to_owned(),
    };
    writeln!(out, "Call {}", record.call)?;
    writeln!(
        out,
        "{caller} called {} on {} UTC.",
        record.dialled,
        record.started_at.format("%A, %-d %B %Y, at %H:%M:%S%.3f")
    )
}

/// What the dialplan said of a call that it led: what it meant by it isn't known.
fn reported(record: &CallRecord) -> String {
    let status = record.end.map(|end| format!(" as {}", end.outcome.status)).unwrap_or_default();
    let over = record.attempts.first().map(|attempt| {
        let Attempt { client_name, link, .. } = attempt;
        format!(", dialled over link {link} ({client_name})")
    });
    format!(
        "The dialplan led this call by itself and reported it{status}{}: no decision of the service is known that could be explained.",
        over.unwrap_or_default()
    )
}

/// How it ended and why, in a sentence or two.
fn ending(record: &CallRecord) -> String {
    let Some(end) = record.end else { return "It isn't over.".to_owned() };
    let waited = seconds(end.at - record.started_at);
    let why = match end.outcome.reason {
        CallReason::Answered => {
            let talked = record.answered_at.map(|at| seconds(end.at - at)).unwrap_or_default();
            let who = record.answered_attempt().map_or("A client", |by| &by.client_name);
            format!("{who} took it, and they talked for {talked}")
        }
        CallReason::AllNoAnswer => "Nobody who was dialled took it".to_owned(),
        CallReason::AllBusy => "Everybody who was dialled was busy".to_owned(),
        CallReason::AllFailed => "Nobody could be reached, or all refused".to_owned(),
        CallReason::CallerAbandoned => format!("The caller hung up after {waited}, unanswered"),
        CallReason::DidNotFound => "No DID has this number".to_owned(),
        CallReason::DidInactive => "The DID was inactive".to_owned(),
        CallReason::OwnerInactive => "The account of the DID's seller wasn't active".to_owned(),
        CallReason::NoActiveCampaignForDid => "The DID had no active campaign".to_owned(),
        CallReason::NoActiveClientsInCampaign => {
            "No link of the campaign could be dialled at all".to_owned()
        }
        CallReason::NoEligibleClientsAvailable => {
            "No cap had room: nobody was dialled".to_owned()
        }
        CallReason::CapacityUnavailable => {
            "It went no further: the ledger was away, or the service had too much to do or was about to end"
                .to_owned()
        }
        CallReason::SystemError => "It was ended by an operator or an error".to_owned(),
        CallReason::Interrupted => {
            "Its end was not witnessed: its times are the last that are known".to_owned()
        }
    };
    let operator = record.hung_up.as_ref().map(|told| format!(" ({told})")).unwrap_or_default();
    format!("{why}{operator}. Recorded as {}, {}.", end.outcome.status, end.outcome.reason)
}

fn write_decision(out: &mut String, record: &CallRecord) -> std::fmt::Result {
    let trace = &record.trace;
    let revision = trace.revision.map(|r| format!(" (configuration revision {r})"));
    writeln!(out, "\nHow it was decided{}", revision.unwrap_or_default())?;
    let Some(did) = trace.did_id else {
        return writeln!(out, "  No DID has the number {}.", record.dialled);
    };
    let seller = trace.seller_id.map(|id| format!(" of seller {id}")).unwrap_or_default();
    let Some(campaign) = trace.campaign_id else {
        return writeln!(out, "  {} is DID {did}{seller}. No campaign was asked.", record.dialled);
    };
    let name = trace.campaign_name.as_deref().unwrap_or_default();
    writeln!(
        out,
        "  {} is DID {did}{seller}; campaign {campaign} ({name}) answers it.",
        record.dialled
    )?;
    let strategy = trace.strategy.map(|strategy| order(record, strategy)).unwrap_or_default();
    let ring = trace.dial_timeout_seconds.unwrap_or_default();
    writeln!(out, "  {strategy} Each client is rung for at most {ring} s.")?;
    if trace.is_within_share() {
        writeln!(
            out,
            "  The ledger was away: one instance decided alone, within its share of each cap."
        )?;
    }
    for (place, link) in trace.links.iter().enumerate() {
        let LinkTrace { client_name, client_identifier, link_id, priority, weight, .. } = link;
        writeln!(
            out,
            "  {}. {client_name} ({client_identifier}), link {link_id}, priority {priority}, weight {weight}:",
            place + 1
        )?;
        writeln!(out, "     {}.", verdict(link))?;
    }
    Ok(())
}

/// How the order came about.
fn order(record: &CallRecord, strategy: Strategy) -> String {
    let trace = &record.trace;
    let seed = trace.seed.map(|seed| format!(" (seed {seed})")).unwrap_or_default();
    match strategy {
        Strategy::Priority => {
            format!("priority: the lower number first, among equals by lot and weight{seed}.")
        }
        Strategy::Weighted => format!("weighted: by lot and weight{seed}."),
        Strategy::RoundRobin => match trace.cursor {
            Some(link) => format!("round_robin: in turn, beginning after link {link}."),
            None => "round_robin: in turn, beginning with the first.".to_owned(),
        },
    }
}

/// What became of a link, without a full stop.
fn verdict(link: &LinkTrace) -> String {
    let said = match link.verdict.as_str() {
        "dialled" => {
            return link.attempt.map_or("dialled".to_owned(), |n| format!("dialled, attempt {n}"));
        }
        "not_reached" => return "not reached: its turn didn't come".to_owned(),
        "link_inactive" => return "left out: the link was inactive".to_owned(),
        "client_inactive" => return "left out: the client was inactive".to_owned(),
        "no_endpoint" => return "left out: the client had no endpoint".to_owned(),
        cap => cap,
    };
    match &link.refused_by {
        Some(refused_by) => format!("passed over, {said}: {}", full(refused_by, link.within_share)),
        None => format!("passed over, {said}"),
    }
}

/// The numbers that were compared: a cap's, or those of one instance's part of it.
fn full(refused_by: &RefusedBy, is_within_share: bool) -> String {
    let RefusedBy { scope, window, used, held, limit } = refused_by;
    let whose = match scope {
        ScopeKind::Link => "the link's",
        ScopeKind::Client => "the client's",
        ScopeKind::Campaign => "the campaign's",
        ScopeKind::Seller => "the seller's",
    };
    let cap = cap_name(*window);
    let cap = if is_within_share {
        format!("the instance's share of {whose} {cap}, {limit},")
    } else {
        format!("{whose} {cap} of {limit}")
    };
    let counted = match window {
        None => format!("{} ringing or up", calls(*used)),
        Some(_) => format!("{} used and {held} held", calls(*used)),
    };
    format!("{cap} had no room, {counted}")
}

fn calls(count: u32) -> String {
    if count == 1 { "1 call was".to_owned() } else { format!("{count} calls were") }
}

fn write_what_happened(out: &mut String, record: &CallRecord) -> std::fmt::Result {
    writeln!(out, "\nWhat happened (UTC)")?;
    let mut steps = vec![(record.started_at, "the call came in".to_owned())];
    for attempt in &record.attempts {
        let Attempt { client_name, position, link, held_at, .. } = attempt;
        let dialled = format!("attempt {position}: {client_name} (link {link}) is dialled");
        steps.push((*held_at, dialled));
        if let Some(at) = attempt.ringing_at {
            steps.push((at, format!("{client_name} rings")));
        }
        if let Some(at) = attempt.answered_at {
            let after = seconds(at - *held_at);
            steps.push((at, format!("{client_name} answers, {after} after it was dialled")));
        }
        if let Some(at) = attempt.ended_at {
            steps.push((at, left(attempt, at)));
        }
    }
    if let Some(end) = record.end {
        let cause = format!("the call is over: {} (cause {})", cause::text(end.cause), end.cause);
        // The last leg is gone after the call, if the caller hung up.
        let last = record.attempts.last().and_then(|attempt| attempt.ended_at);
        let place = steps.len() - usize::from(last.is_some_and(|gone| gone > end.at));
        steps.insert(place, (end.at, cause));
    }
    for (at, what) in steps {
        writeln!(out, "  {}  {what}", at.format("%H:%M:%S%.3f"))?;
    }
    Ok(())
}

/// How a client's leg ended.
fn left(attempt: &Attempt, at: Timestamp) -> String {
    let name = &attempt.client_name;
    let said = match (attempt.sip, attempt.cause) {
        (Some(sip), _) => format!(" (SIP {sip})"),
        (None, Some(cause)) => format!(" (cause {cause})"),
        (None, None) => String::new(),
    };
    let after = seconds(at - attempt.held_at);
    match attempt.result.unwrap_or(AttemptResult::Canceled) {
        AttemptResult::Answered => format!("{name}'s leg is gone{said}"),
        AttemptResult::NoAnswer => format!("{name} didn't answer within {after}{said}"),
        AttemptResult::Busy => format!("{name} is busy{said}"),
        AttemptResult::Rejected => format!("{name} refuses the call{said}"),
        AttemptResult::Unreachable => format!("{name} can't be reached{said}"),
        AttemptResult::Congestion => format!("{name} or the way there is overloaded{said}"),
        AttemptResult::Canceled => format!("{name} is rung no more: the attempt was taken back"),
    }
}

fn write_today(out: &mut String, record: &CallRecord, today: &Today) -> std::fmt::Result {
    let Today { revision, again, differences } = today;
    writeln!(out, "\nToday (configuration revision {revision})")?;
    match &again.parting {
        None => writeln!(out, "  {}", same(record, today))?,
        Some(parting) => {
            let (then, now) = (choice(&parting.then), choice(&parting.now));
            let first = if again.agreed == 0 {
                "First".to_owned()
            } else {
                format!("After {} as before", attempts(again.agreed))
            };
            writeln!(out, "  It would be decided otherwise.")?;
            writeln!(out, "  {first}: then {then}, today {now}.")?;
            for link in refused_now(record, today) {
                let LinkTrace { link_id, client_name, .. } = link;
                writeln!(out, "  Link {link_id} ({client_name}): {}.", verdict(link))?;
            }
            if record.trace.is_within_share() {
                writeln!(
                    out,
                    "  Then there was one instance's share of each cap, today there is the whole."
                )?;
            }
        }
    }
    if differences.is_empty() {
        let is_explained =
            record.trace.is_within_share() || refused_now(record, today).next().is_some();
        if again.parting.is_some() && !is_explained {
            return writeln!(
                out,
                "  No setting that the record tells of differs: another version of the service decided it, or with capacity in use of which there is no log."
            );
        }
        if record.trace.revision == Some(*revision) {
            return writeln!(out, "  Nothing of the configuration has been changed since.");
        }
        return writeln!(out, "  No setting differs from what the record tells of it.");
    }
    writeln!(out, "  What is different since:")?;
    for difference in differences {
        writeln!(out, "  - {}", difference.told())?;
    }
    Ok(())
}

/// That nothing would be decided otherwise, and what would come next where the call was cut short.
fn same(record: &CallRecord, today: &Today) -> String {
    let next = today
        .again
        .trace
        .links
        .iter()
        .find(|link| link.attempt.is_some_and(|attempt| attempt as usize > today.again.agreed));
    match next {
        Some(next) if record.answered_at.is_none() => format!(
            "All that was decided would be decided the same; {} (link {}) would be dialled next.",
            next.client_name, next.link_id
        ),
        _ => "It would be decided the same.".to_owned(),
    }
}

/// Links that are passed over today, and weren't so then.
fn refused_now<'a>(
    record: &'a CallRecord,
    today: &'a Today,
) -> impl Iterator<Item = &'a LinkTrace> {
    today.again.trace.links.iter().filter(|now| {
        let then = record.trace.links.iter().find(|then| then.link_id == now.link_id);
        now.refused_by.is_some() && then.is_none_or(|then| then.verdict != now.verdict)
    })
}

fn choice(choice: &Choice) -> String {
    match choice {
        Choice::Dialled { link_id, client_name, .. } => {
            format!("{client_name} (link {link_id}) is dialled")
        }
        Choice::Nobody { call_status, reason } => {
            format!("nobody is dialled ({call_status}, {reason})")
        }
    }
}

fn attempts(count: usize) -> String {
    if count == 1 { "one attempt".to_owned() } else { format!("{count} attempts") }
}

fn seconds(time: TimeDelta) -> String {
    let millis = time.num_milliseconds().max(0);
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
