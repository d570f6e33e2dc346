//! What became of many calls, counted.

use std::collections::{BTreeMap, BTreeSet};

use capconduit_entity::CallStatus;

use crate::call::CallRecord;
use crate::ids::ClientId;

/// Calls, of all or of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered.
    pub delivered: u32,
    /// Nobody was dialled, by reason; of a client: it was passed over, by reason.
    pub refused: BTreeMap<String, u32>,
    /// Somebody was dialled and nobody took the call; of a client: it was among those dialled.
    pub lost: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub calls: Counts,
    pub clients: BTreeMap<ClientId, Counts>,
    /// Identifier and name, as the newest of the records has them.
    pub names: BTreeMap<ClientId, (String, String)>,
}

/// What became of one call, as far as two replays are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    pub status: CallStatus,
    pub reason: String,
    pub taker: Option<ClientId>,
}

impl Fate {
    pub fn of(record: &CallRecord) -> Option<Self> {
        let outcome = record.end?.outcome;
        let taker = record.answered_attempt().map(|attempt| attempt.client);
        Some(Self { status: outcome.status, reason: outcome.reason.to_string(), taker })
    }
}

impl Tally {
    pub fn add(&mut self, record: &CallRecord) {
        let Some(end) = record.end else { return };
        let is_delivered = end.outcome.status == CallStatus::Answered;
        match (is_delivered, record.attempts.is_empty()) {
            (true, _) => self.calls.delivered += 1,
            (false, true) => refuse(&mut self.calls, end.outcome.reason.as_str()),
            (false, false) => self.calls.lost += 1,
        }
        for link in &record.trace.links {
            let name = (link.client_identifier.clone(), link.client_name.clone());
            self.names.insert(link.client_id, name);
            if link.attempt.is_none() && !link.is_not_reached() {
                refuse(self.clients.entry(link.client_id).or_default(), &link.verdict);
            }
        }
        if is_delivered {
            if let Some(taker) = record.answered_attempt() {
                self.clients.entry(taker.client).or_default().delivered += 1;
            }
            return;
        }
        let dialled: BTreeSet<_> = record.attempts.iter().map(|attempt| attempt.client).collect();
        for client in dialled {
            self.clients.entry(client).or_default().lost += 1;
        }
    }
}

fn refuse(counts: &mut Counts, reason: &str) {
    *counts.refused.entry(reason.to_owned()).or_default() += 1;
}
