//! What each client was offered and took, against its caps, recomputed from the
//! records.
//!
//! An attempt takes one unit of its link's concurrency from its start to its
//! end; so the most attempts that overlap at one instant must not be more than
//! the link's cap. Answered attempts count against the link's total, and the
//! service's own count must be the same number.

use std::fmt;

use capconduit_entity::AttemptResult;

use super::answers::{Attempt, CallLog};
use super::sample::SampleLink;
use super::watch::Peaks;
use crate::ids::LinkId;

pub struct Summary {
    pub rows: Vec<Row>,
    pub attempts: usize,
    pub breaches: Vec<Breach>,
}

/// A link, and what became of its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub campaign: &'static str,
    pub client: String,
    pub offered: u32,
    pub answered: u32,
    pub busy: u32,
    pub no_answer: u32,
    /// The caller hung up first.
    pub left: u32,
    /// Unreachable, or refused by the client.
    pub failed: u32,
    /// Calls that a cap of this link had no room for.
    pub refused: u32,
    /// The most calls at one instant.
    pub peak: u32,
    pub max_concurrency: u32,
    /// What the service says it has counted.
    pub counted: u32,
    pub total_allowed: Option<u32>,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub campaign: &'static str,
    pub client: String,
    pub what: Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Concurrency { peak: u32, limit: u32 },
    Total { counted: u32, limit: u32 },
    Count { counted: u32, answered: u32 },
}

// === impl Summary ===

impl Summary {
    /// Of these links, from all records of their calls; `talking` is what was seen live.
    pub fn of(links: &[SampleLink], logs: &[CallLog], talking: &Peaks) -> Self {
        let rows: Vec<Row> = links.iter().map(|link| Row::of(link, logs, talking)).collect();
        let breaches = rows.iter().flat_map(Row::breaches).collect();
        let attempts = logs.iter().map(|log| log.attempts.len()).sum();
        Self { rows, attempts, breaches }
    }

    /// Caps on calls at once, and caps on calls in all.
    pub fn caps(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.iter().filter(|row| row.total_allowed.is_some()).count())
    }

    /// Links that were seen at their concurrency cap, and links that used up their total.
    pub fn full(&self) -> (usize, usize) {
        let at_once = self.rows.iter().filter(|row| row.peak == row.max_concurrency);
        let in_all = self.rows.iter().filter(|row| row.total_allowed == Some(row.counted));
        (at_once.count(), in_all.count())
    }
}

// === impl Row ===

impl Row {
    fn of(SampleLink { campaign, link }: &SampleLink, logs: &[CallLog], talking: &Peaks) -> Self {
        let attempts: Vec<&Attempt> = logs
            .iter()
            .flat_map(|log| &log.attempts)
            .filter(|attempt| attempt.campaign_client_setting_id == link.id)
            .collect();
        let mut row = Self {
            campaign,
            client: link.client.name.clone(),
            refused: count(logs.iter().filter(|log| was_full(log, link.id))),
            peak: peak(&attempts).max(talking.get(&link.id).copied().unwrap_or_default()),
            max_concurrency: link.max_concurrency,
            counted: link.current_total_calls,
            total_allowed: link.total_calls_allowed,
            ..Self::default()
        };
        for attempt in attempts {
            row.count(attempt.result);
        }
        row
    }

    fn count(&mut self, result: AttemptResult) {
        self.offered += 1;
        let number = match result {
            AttemptResult::Answered => &mut self.answered,
            AttemptResult::Busy => &mut self.busy,
            AttemptResult::NoAnswer => &mut self.no_answer,
            AttemptResult::Canceled => &mut self.left,
            AttemptResult::Rejected | AttemptResult::Unreachable | AttemptResult::Congestion => {
                &mut self.failed
            }
        };
        *number += 1;
    }

    fn breaches(&self) -> Vec<Breach> {
        let (counted, answered) = (self.counted, self.answered);
        let concurrency = (self.peak > self.max_concurrency)
            .then_some(Broken::Concurrency { peak: self.peak, limit: self.max_concurrency });
        let total = self
            .total_allowed
            .filter(|limit| counted.max(answered) > *limit)
            .map(|limit| Broken::Total { counted: counted.max(answered), limit });
        let count = (counted != answered).then_some(Broken::Count { counted, answered });
        let broken = [concurrency, total, count].into_iter().flatten();
        broken
            .map(|what| Breach { campaign: self.campaign, client: self.client.clone(), what })
            .collect()
    }
}

/// Whether one of the link's caps had no room for the call.
fn was_full(log: &CallLog, link: LinkId) -> bool {
    log.trace.links.iter().any(|trace| trace.link_id == link && trace.verdict.ends_with("_cap"))
}

/// The most attempts at one instant. One that ends as another starts doesn't overlap it.
fn peak(attempts: &[&Attempt]) -> u32 {
    let starts = attempts.iter().map(|attempt| (attempt.started_at, 1_i32));
    let ends = attempts.iter().map(|attempt| (attempt.ended_at, -1_i32));
    let mut steps: Vec<_> = starts.chain(ends).collect();
    // At the same instant, ends come first.
    steps.sort_unstable();
    let running = steps.iter().scan(0, |now, (_, step)| {
        *now += step;
        Some(*now)
    });
    running.max().unwrap_or_default().try_into().unwrap_or_default()
}

fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: ", self.campaign, self.client)?;
        match self.what {
            Broken::Concurrency { peak, limit } => {
                write!(f, "{peak} calls at once, but {limit} are allowed")
            }
            Broken::Total { counted, limit } => {
                write!(f, "{counted} calls in all, but {limit} are allowed")
            }
            Broken::Count { counted, answered } => {
                write!(f, "{counted} calls are counted, but {answered} were answered")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn link(max_concurrency: u32, total: Option<u32>, counted: u32) -> SampleLink {
        let link = json!({
            "id": 4, "client": { "name": "Alpha" }, "maxConcurrency": max_concurrency,
            "totalCallsAllowed": total, "currentTotalCalls": counted,
        });
        SampleLink { campaign: "weighted", link: serde_json::from_value(link).unwrap() }
    }

    /// A call that was offered to the link in these seconds of a minute, or to nobody.
    fn log(attempt: Option<(u32, u32, &str)>, verdict: &str) -> CallLog {
        let attempts: Vec<Value> = attempt
            .into_iter()
            .map(|(start, end, result)| {
                json!({
                    "campaignClientSettingId": 4, "client": { "name": "Alpha" }, "result": result,
                    "startedAt": format!("2026-11-22T18:42:{start:02}Z"),
                    "endedAt": format!("2026-11-22T18:42:{end:02}Z"),
                })
            })
            .collect();
        let trace = json!({ "links": [{
            "linkId": 4, "clientId": 1, "clientIdentifier": "demo-alpha", "clientName": "Alpha",
            "priority": 1, "weight": 1, "verdict": verdict, "attempt": null, "refusedBy": null,
        }]});
        let log = json!({
            "incomingDidNumber": "+15550100103", "callerIdNum": null, "billsecSeconds": 2,
            "timestampEnd": "2026-11-22T18:42:59Z", "callStatus": "ANSWERED",
            "attempts": attempts, "trace": trace,
        });
        serde_json::from_value(log).unwrap()
    }

    fn breaches(link: SampleLink, logs: &[CallLog]) -> Vec<Broken> {
        let summary = Summary::of(&[link], logs, &Peaks::new());
        summary.breaches.into_iter().map(|breach| breach.what).collect()
    }

    #[test]
    fn each_attempt_and_each_refusal_is_counted_for_its_link() {
        let logs = [
            log(Some((1, 5, "answered")), "dialled"),
            log(Some((1, 3, "busy")), "dialled"),
            log(Some((6, 8, "no_answer")), "dialled"),
            log(Some((8, 9, "canceled")), "dialled"),
            log(None, "concurrency_cap"),
            log(None, "total_cap"),
            log(None, "not_reached"),
        ];
        let summary = Summary::of(&[link(2, Some(1), 1)], &logs, &Peaks::new());
        let expected = Row {
            campaign: "weighted",
            client: "Alpha".to_owned(),
            offered: 4,
            answered: 1,
            busy: 1,
            no_answer: 1,
            left: 1,
            failed: 0,
            refused: 2,
            peak: 2,
            max_concurrency: 2,
            counted: 1,
            total_allowed: Some(1),
        };
        assert_eq!(summary.rows, [expected]);
        assert!(summary.breaches.is_empty());
        assert_eq!((summary.full(), summary.attempts), ((1, 1), 4));
    }

    #[test]
    fn a_call_that_begins_as_another_ends_is_not_at_once_with_it() {
        let logs =
            [log(Some((1, 5, "no_answer")), "dialled"), log(Some((5, 9, "no_answer")), "dialled")];
        assert_eq!(breaches(link(1, None, 0), &logs), []);
    }

    #[test]
    fn one_call_too_many_at_once_is_a_breach() {
        let logs =
            [log(Some((1, 5, "no_answer")), "dialled"), log(Some((4, 9, "no_answer")), "dialled")];
        let expected = Broken::Concurrency { peak: 2, limit: 1 };
        assert_eq!(breaches(link(1, None, 0), &logs), [expected]);
        let seen = Peaks::from([(LinkId(4), 3)]);
        let summary = Summary::of(&[link(2, None, 0)], &[], &seen);
        assert_eq!(summary.breaches[0].what, Broken::Concurrency { peak: 3, limit: 2 });
    }

    #[test]
    fn one_call_too_many_in_all_is_a_breach_and_so_is_a_wrong_count() {
        let logs =
            [log(Some((1, 2, "answered")), "dialled"), log(Some((3, 4, "answered")), "dialled")];
        let expected =
            [Broken::Total { counted: 2, limit: 1 }, Broken::Count { counted: 1, answered: 2 }];
        assert_eq!(breaches(link(1, Some(1), 1), &logs), expected);
    }
}
