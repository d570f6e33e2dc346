//! What if: past calls led once more by a changed configuration.

use capconduit_entity::{CampaignStatus, Status, Strategy, campaign, client, link};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use sea_orm::{DatabaseConnection, DbErr, IntoActiveModel, TryIntoModel};
use serde_json::{Value, json};
use tracing::error;

use super::Tag;
use super::access::Operator;
use super::caps::VolumeChange;
use super::input::{Body, Clearable, Given, Moment, Request, Word, patch, patch_clearable};
use super::problem::{Ask, FieldErrors, Problem, Refusal, bad_input, broken, busy};
use crate::clock::Timestamp;
use crate::db::begin_long_read;
use crate::replay::{self, Counts, WhatIf};
use crate::store;
use crate::store::past::Unread;
use crate::store::routing::Rows;

pub struct ReplayApi;

/// A stretch of the past, and what is to be different.
#[derive(Object)]
#[oai(deny_unknown_fields, rename = "ReplayRequest", rename_all = "camelCase")]
struct Asked {
    /// Calls that came in at or after this ...
    from: Moment,
    /// ... and before this: 31 days at most, and 20,000 calls.
    to: Moment,
    patch: Patch,
}

impl Request for Asked {
    fn example() -> Value {
        json!({
            "from": "2026-11-22T00:00:00Z",
            "to": "2026-11-23T00:00:00Z",
            "patch": Patch::example(),
        })
    }
}

/// Changes of the configuration, which aren't written anywhere.
#[derive(Object)]
#[oai(deny_unknown_fields, rename = "ConfigurationPatch", rename_all = "camelCase")]
pub struct Patch {
    #[oai(validator(max_items = 1000))]
    campaigns: Given<Vec<CampaignPatch>>,
    #[oai(validator(max_items = 1000))]
    links: Given<Vec<LinkPatch>>,
    #[oai(validator(max_items = 1000))]
    clients: Given<Vec<ClientPatch>>,
}

impl Request for Patch {
    fn example() -> Value {
        json!({
            "campaigns": [{"id": 1, "routingStrategy": "weighted"}],
            "links": [{"id": 1, "dailyCap": 80, "hourlyCap": null}],
            "clients": [{"id": 1, "status": "inactive"}],
        })
    }
}

/// What is to be different of a campaign.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CampaignPatch {
    id: i64,
    routing_strategy: Given<Word<Strategy>>,
    #[oai(validator(minimum(value = "1"), maximum(value = "600")))]
    dial_timeout_seconds: Given<i32>,
    status: Given<Word<CampaignStatus>>,
    /// Live calls at once over all links; `null` = no cap.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Clearable<i32>,
    #[oai(flatten)]
    volume: VolumeChange,
}

/// What is to be different of a link.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct LinkPatch {
    id: i64,
    #[oai(validator(minimum(value = "1")))]
    max_concurrency: Given<i32>,
    #[oai(validator(minimum(value = "0")))]
    forwarding_priority: Given<i32>,
    #[oai(validator(minimum(value = "1")))]
    weight: Given<i32>,
    status: Given<Word<Status>>,
    #[oai(flatten)]
    volume: VolumeChange,
}

/// What is to be different of a client.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct ClientPatch {
    id: i64,
    status: Given<Word<Status>>,
    /// Live calls at once over all campaigns; `null` = no cap.
    #[oai(validator(minimum(value = "1")), nullable)]
    max_concurrency: Clearable<i32>,
    #[oai(flatten)]
    volume: VolumeChange,
}

/// What became of the calls, what would become of them by the configuration as it is, and
/// what by the changed one.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
pub struct Replayed {
    /// Which state of the configuration it was compared with.
    pub revision: i64,
    /// Calls that came in the time asked for.
    pub calls: u32,
    /// Those of which the replay by the configuration as it is gave what the log says. What
    /// isn't so has been changed since, or wasn't known.
    pub as_recorded: u32,
    /// Calls of which the change makes something else.
    pub changed: u32,
    pub totals: Comparison,
    /// Those that something came to or passed by.
    pub clients: Vec<ClientComparison>,
    /// What the replay of the changed configuration rests on, beside what is known.
    pub assumptions: Vec<String>,
}

/// The same calls three times.
#[derive(Object)]
#[oai(rename = "ReplayComparison", rename_all = "camelCase")]
pub struct Comparison {
    /// As the logs say.
    pub recorded: Outcomes,
    /// By the configuration as it is.
    pub current: Outcomes,
    /// By the changed one.
    pub patched: Outcomes,
}

/// Calls, of all or of one client.
#[derive(Object)]
#[oai(rename = "CallOutcomes", rename_all = "camelCase")]
pub struct Outcomes {
    /// Answered.
    pub delivered: u32,
    /// By reason: calls for which nobody was dialled; of a client, calls that passed it over.
    pub refused: Vec<Refused>,
    /// Calls that nobody took although somebody was dialled; of a client, although it was.
    pub lost: u32,
}

#[derive(Object)]
#[oai(rename = "RefusedCalls", rename_all = "camelCase")]
pub struct Refused {
    pub reason: String,
    pub calls: u32,
}

#[derive(Object)]
#[oai(rename = "ReplayedClient", rename_all = "camelCase")]
pub struct ClientComparison {
    pub id: i64,
    pub client_identifier: String,
    pub name: String,
    #[oai(flatten)]
    pub comparison: Comparison,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    #[error("{0}")]
    Asked(FieldErrors),
    #[error("the database can't be read: {0}")]
    Database(#[from] DbErr),
    #[error("the replay was cut off")]
    CutOff,
}

/// Seconds after which one who was sent away may ask again.
const TRY_AGAIN: u64 = 5;
/// Days that may be replayed at once.
const LONGEST_DAYS: i64 = 31;
/// Calls that may be replayed at once: they are all in memory.
const MOST_CALLS: u64 = 20_000;

#[OpenApi(prefix_path = "/api/admin/routing", tag = "Tag::Routing")]
impl ReplayApi {
    /// Try a change on past calls
    ///
    /// Leads the calls of a stretch of the past once more, by the code of live calls, in a
    /// time of their own: once by the configuration as it is, once by the changed one.
    /// Nothing is written, dialled or held. Of a client that wasn't asked at the time it is
    /// assumed that it behaves as it did with another of its calls; `assumptions` says so.
    #[oai(path = "/replay", method = "post", operation_id = "replayCalls")]
    async fn replay(
        &self,
        caller: Operator,
        Body(asked): Body<Asked>,
    ) -> Result<Json<Replayed>, Refusal<Ask>> {
        let from = asked.from.instant().ok_or_else(broken)?;
        let to = asked.to.instant().ok_or_else(broken)?;
        // One takes memory and a processor for itself, also when nobody waits for it any more.
        let turn = caller.backend.replays.try_acquire();
        let _turn = turn.map_err(|_| busy("Another replay is running: try again.", TRY_AGAIN))?;
        let replayed = replay(&caller.backend.db, from, to, asked.patch).await;
        Ok(Json(replayed.map_err(Problem::from)?))
    }
}

/// Tries a patch on the calls from `from` until before `to`.
///
/// # Errors
/// When what is asked for is wrong or too much, or the database can't be read.
pub async fn replay(
    db: &DatabaseConnection,
    from: Timestamp,
    to: Timestamp,
    patch: Patch,
) -> Result<Replayed, NotReplayed> {
    judge_range(from, to)?;
    let rows = Rows::load(db).await?;
    let mut patched = rows.clone();
    patch.apply(&mut patched)?;
    let (current, patched) = (rows.compile(), patched.compile());
    let txn = begin_long_read(db).await?;
    let records =
        store::past::between(&txn, from, to, MOST_CALLS).await.map_err(|err| match err {
            Unread::TooMany => refused(
                "to",
                format!("must be earlier: more than {MOST_CALLS} calls came in that time"),
            ),
            Unread::Database(err) => err.into(),
        })?;
    let in_use = store::past::before(&txn, from, &records, [&current, &patched]).await?;
    txn.commit().await?;
    let revision = current.revision();
    let what_if =
        tokio::task::spawn_blocking(move || replay::what_if(&records, &current, &patched, &in_use))
            .await
            .map_err(|_| NotReplayed::CutOff)?;
    Ok(Replayed::new(what_if, revision))
}

fn judge_range(from: Timestamp, to: Timestamp) -> Result<(), NotReplayed> {
    if to <= from {
        return Err(refused("to", "must be after from".to_owned()));
    }
    if to - from > chrono::TimeDelta::days(LONGEST_DAYS) {
        return Err(refused("to", format!("must be at most {LONGEST_DAYS} days after from")));
    }
    Ok(())
}

fn refused(field: &str, message: String) -> NotReplayed {
    let mut errors = FieldErrors::default();
    errors.add(field, message);
    NotReplayed::Asked(errors)
}

impl From<NotReplayed> for Problem {
    fn from(error: NotReplayed) -> Self {
        match error {
            NotReplayed::Asked(errors) => bad_input(errors),
            NotReplayed::Database(err) => err.into(),
            NotReplayed::CutOff => {
                error!("a replay was cut off by a defect");
                broken()
            }
        }
    }
}

// === impl Patch ===

impl Patch {
    /// Reads a patch that isn't part of a request.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn read(value: Value) -> Result<Self, FieldErrors> {
        Body::<Self>::judged(value)
    }

    fn apply(self, rows: &mut Rows) -> Result<(), NotReplayed> {
        let mut errors = FieldErrors::default();
        for (place, change) in self.campaigns.into_iter().flatten().enumerate() {
            match rows.campaigns.get(&change.id).cloned() {
                Some(row) => keep(change.apply(row), |row| rows.campaigns.insert(row.id, row)),
                None => unknown(&mut errors, "campaign", place, change.id),
            }
        }
        for (place, change) in self.links.into_iter().flatten().enumerate() {
            match rows.links.iter_mut().find(|row| row.id == change.id) {
                Some(row) => keep(change.apply(row.clone()), |changed| *row = changed),
                None => unknown(&mut errors, "link", place, change.id),
            }
        }
        for (place, change) in self.clients.into_iter().flatten().enumerate() {
            match rows.clients.iter_mut().find(|row| row.id == change.id) {
                Some(row) => keep(change.apply(row.clone()), |changed| *row = changed),
                None => unknown(&mut errors, "client", place, change.id),
            }
        }
        for did in rows.claim_dids() {
            errors.add("patch.campaigns", format!("would give DID {did} two active campaigns"));
        }
        if errors.is_empty() { Ok(()) } else { Err(NotReplayed::Asked(errors)) }
    }
}

/// Takes a changed row, which has all of its columns.
fn keep<R, A: TryIntoModel<R>, T>(row: A, take: impl FnOnce(R) -> T)
where
    R: sea_orm::ModelTrait,
{
    if let Ok(row) = row.try_into_model() {
        take(row);
    }
}

fn unknown(errors: &mut FieldErrors, what: &str, place: usize, id: i64) {
    let field = format!("patch.{what}s[{place}].id");
    errors.add(field, format!("is {id}: there is no such {what}"));
}

impl CampaignPatch {
    fn apply(self, row: campaign::Model) -> campaign::ActiveModel {
        let mut row = row.into_active_model();
        patch(self.routing_strategy, &mut row.routing_strategy);
        patch(self.dial_timeout_seconds, &mut row.dial_timeout_seconds);
        patch(self.status, &mut row.status);
        patch_clearable(self.max_concurrency, &mut row.max_concurrency);
        self.volume.apply(&mut row);
        row
    }
}

impl LinkPatch {
    fn apply(self, row: link::Model) -> link::ActiveModel {
        let mut row = row.into_active_model();
        patch(self.max_concurrency, &mut row.max_concurrency);
        patch(self.forwarding_priority, &mut row.forwarding_priority);
        patch(self.weight, &mut row.weight);
        patch(self.status, &mut row.status);
        self.volume.apply(&mut row);
        row
    }
}

impl ClientPatch {
    fn apply(self, row: client::Model) -> client::ActiveModel {
        let mut row = row.into_active_model();
        patch(self.status, &mut row.status);
        patch_clearable(self.max_concurrency, &mut row.max_concurrency);
        self.volume.apply(&mut row);
        row
    }
}

// === impl Replayed ===

impl Replayed {
    fn new(what_if: WhatIf, revision: i64) -> Self {
        let WhatIf { recorded, current, patched, .. } = what_if;
        let none = Counts::default();
        let mut clients = Vec::new();
        let mut names = recorded.names.clone();
        names.extend(current.names.clone());
        names.extend(patched.names.clone());
        for (id, (client_identifier, name)) in names {
            let of = |tally: &replay::Tally| tally.clients.get(&id).unwrap_or(&none).into();
            let comparison = Comparison {
                recorded: of(&recorded),
                current: of(&current),
                patched: of(&patched),
            };
            clients.push(ClientComparison { id: id.0, client_identifier, name, comparison });
        }
        let totals = Comparison {
            recorded: (&recorded.calls).into(),
            current: (&current.calls).into(),
            patched: (&patched.calls).into(),
        };
        let count = |calls: usize| u32::try_from(calls).unwrap_or(u32::MAX);
        Self {
            revision,
            calls: count(what_if.calls),
            as_recorded: count(what_if.as_recorded),
            changed: count(what_if.changed),
            totals,
            clients,
            assumptions: assumptions(what_if.played),
        }
    }
}

/// What the figures rest on.
fn assumptions(patched: replay::Played) -> Vec<String> {
    vec![
        format!(
            "Of {} of {} clients dialled by the changed configuration it isn't known what they would have done: each behaves as with another of its calls of this time, drawn by the call's id.",
            patched.drawn, patched.dialled
        ),
        "A client that had no call in this time behaves as any client did.".to_owned(),
        "Callers talk for as long as they did; those who weren't connected then, as long as another call of that client lasted."
            .to_owned(),
        "A caller who hung up unanswered does so at the same time; all others wait for as long as it takes."
            .to_owned(),
        "Calls that are still up aren't counted.".to_owned(),
    ]
}

impl From<&Counts> for Outcomes {
    fn from(counts: &Counts) -> Self {
        let refused = counts.refused.iter();
        let refused =
            refused.map(|(reason, calls)| Refused { reason: reason.clone(), calls: *calls });
        Self { delivered: counts.delivered, refused: refused.collect(), lost: counts.lost }
    }
}
