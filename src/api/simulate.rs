//! What would happen to a call now: by the code of real calls, without any effect.

use capconduit_entity::{CallReason, CallStatus, E164};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use rand::RngExt;
use serde_json::{Value, json};
use tracing::error;

use super::access::{Operator, Seller};
use super::input::{Body, E164Text, Line, Moment, Request, Word};
use super::logs::NamedClient;
use super::problem::{Ask, Problem, Refusal, bad_field, broken, not_found};
use super::trace::DecisionTrace;
use super::{Backend, Tag};
use crate::call::record::Attempt;
use crate::call::rehearsal::{Arrival, Rehearsal, rehearse};
use crate::clock;
use crate::ids::SellerId;
use crate::routing;

pub struct AdminSimulateApi;
pub struct SellerSimulateApi;

/// A call that might arrive.
#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
struct Simulated {
    /// The number that is called, in E.164 form.
    did: E164Text,
    /// Routing doesn't ask who calls; it may be given all the same.
    #[oai(validator(max_length = 64), nullable)]
    caller_number: Option<Line>,
    /// When the call arrives; now if left away, or in the past.
    ///
    /// Decides the windows of volume caps. The configuration and the calls that
    /// are up are those of this moment.
    #[oai(nullable)]
    at: Option<Moment>,
}

impl Request for Simulated {
    fn example() -> Value {
        json!({"did": "+442071838750", "callerNumber": "+441134960000"})
    }
}

/// What would become of the call.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Simulation {
    /// How the call would be recorded if nobody would be dialled; `null` if somebody would.
    #[oai(nullable)]
    call_status: Option<Word<CallStatus>>,
    /// Why nobody would be dialled; `null` if somebody would.
    #[oai(nullable)]
    reason: Option<Word<CallReason>>,
    /// Who would be dialled first.
    #[oai(nullable)]
    first: Option<Dialled>,
    /// Ids of links in the order in which they would be tried, as long as none answers.
    ///
    /// Caps of those after the first are looked at when it is their turn.
    order: Vec<i64>,
    /// What routing and capacity decided, step by step, as a call log has it.
    trace: DecisionTrace,
}

/// A link that would be dialled.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Dialled {
    campaign_client_setting_id: i64,
    client: NamedClient,
}

#[OpenApi(prefix_path = "/api/admin/routing", tag = "Tag::Routing")]
impl AdminSimulateApi {
    /// Say what would happen to a call
    ///
    /// By the code that routes real calls, and without any effect: nothing is
    /// held, dialled, counted or recorded.
    #[oai(path = "/simulate", method = "post", operation_id = "simulateCall")]
    async fn simulate(
        &self,
        caller: Operator,
        Body(asked): Body<Simulated>,
    ) -> Result<Json<Simulation>, Refusal<Ask>> {
        Ok(Json(simulate(&caller.backend, asked, None).await?))
    }
}

#[OpenApi(prefix_path = "/api/seller/routing", tag = "Tag::Routing")]
impl SellerSimulateApi {
    /// Say what would happen to a call to one of my DIDs
    ///
    /// By the code that routes real calls, and without any effect: nothing is
    /// held, dialled, counted or recorded.
    #[oai(path = "/simulate", method = "post", operation_id = "simulateMyCall")]
    async fn simulate(
        &self,
        caller: Seller,
        Body(asked): Body<Simulated>,
    ) -> Result<Json<Simulation>, Refusal<Ask>> {
        let seller = SellerId(caller.user.id);
        Ok(Json(simulate(&caller.backend, asked, Some(seller)).await?))
    }
}

/// Rehearses a call, to DIDs of `seller` only if one is given.
async fn simulate(
    backend: &Backend,
    asked: Simulated,
    seller: Option<SellerId>,
) -> Result<Simulation, Problem> {
    let number = E164::parse(&asked.did).map_err(|err| bad_field("did", err.to_string()))?;
    let now = clock::now();
    let at = match &asked.at {
        Some(at) => now.max(at.instant().ok_or_else(broken)?),
        None => now,
    };
    let plan = routing::plan(&backend.routing.get(), number.as_str(), rand::rng().random());
    let owner = plan.did.as_ref().map(|did| did.seller);
    if seller.is_some() && owner != seller {
        return Err(not_found("DID", number));
    }
    let arrival =
        Arrival { dialled: number.into(), caller_number: asked.caller_number.map(Into::into), at };
    Simulation::new(rehearse(arrival, plan, &backend.keeper).await?)
}

impl Simulation {
    fn new(rehearsal: Rehearsal) -> Result<Self, Problem> {
        let trace = DecisionTrace::try_from(&rehearsal.trace).map_err(|reason| {
            error!(reason, "a trace can't be shown");
            broken()
        })?;
        Ok(Self {
            call_status: rehearsal.outcome.map(|outcome| Word(outcome.status)),
            reason: rehearsal.outcome.map(|outcome| Word(outcome.reason)),
            first: rehearsal.first.map(Dialled::from),
            order: rehearsal.order.into_iter().map(|link| link.0).collect(),
            trace,
        })
    }
}

impl From<Attempt> for Dialled {
    fn from(attempt: Attempt) -> Self {
        Self {
            campaign_client_setting_id: attempt.link.0,
            client: NamedClient {
                id: attempt.client.0,
                name: Some(attempt.client_name),
                client_identifier: Some(attempt.client_identifier),
            },
        }
    }
}
