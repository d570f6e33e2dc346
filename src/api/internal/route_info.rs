//! Who may get a call, in the order in which they are to be dialled.

use std::collections::HashMap;
use std::sync::Arc;

use capconduit_entity::{CallReason, Strategy};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use rand::RngExt;

use super::Dialplan;
use crate::api::input::Word;
use crate::api::problem::{Lookup, Problem, Refusal};
use crate::api::{AdminTag, Backend};
use crate::call::rehearsal::with_room;
use crate::clock;
use crate::routing::{self, Decision, Link, Offer};
use crate::store::clients::{self, Realtime};

pub struct RouteInfoApi;

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Proceed {
    /// `proceed`
    status: String,
    routing_info: RoutingInfo,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct RoutingInfo {
    /// The seller.
    user_id: i64,
    campaign_id: i64,
    did_id: i64,
    routing_strategy: Word<Strategy>,
    /// How long each target is rung.
    dial_timeout_seconds: u32,
    /// In the order in which they are to be dialled; none of them is at a cap now.
    targets: Vec<Target>,
}

/// A client that may be dialled.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Target {
    campaign_client_setting_id: i64,
    client_id: i64,
    client_identifier: String,
    client_name: String,
    /// The contact of the client's AOR.
    sip_uri: String,
    /// Live calls that the link allows at once.
    max_concurrency: u32,
    weight: u32,
    priority: i32,
    #[oai(nullable)]
    outbound_auth: Option<String>,
    #[oai(nullable)]
    callerid_override: Option<String>,
    context: String,
    #[oai(nullable)]
    transport: Option<String>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Reject {
    /// `reject`
    status: String,
    reject_reason: Word<CallReason>,
}

#[derive(ApiResponse)]
enum RouteInfo {
    /// Dial these.
    #[oai(status = 200)]
    Proceed(Json<Proceed>),
    /// Nobody can have the call.
    #[oai(status = 404)]
    Reject(Json<Reject>),
}

#[OpenApi(prefix_path = "/api/internal", tag = "AdminTag::Internal")]
impl RouteInfoApi {
    /// Ask who may get a call
    ///
    /// For a dialplan that routes without the Stasis application. Nothing is
    /// held for the call: tell what became of it at `/api/internal/log_call`.
    #[oai(path = "/route_info", method = "get", operation_id = "getRouteInfo")]
    async fn route_info(
        &self,
        dialplan: Dialplan,
        /// The number that was dialled, with or without its `+`.
        #[oai(validator(min_length = 1, max_length = 64))]
        did: Query<String>,
    ) -> Result<RouteInfo, Refusal<Lookup>> {
        let backend = &dialplan.backend;
        // A `+` that wasn't encoded came as a space.
        let plan = routing::plan(&backend.routing.get(), did.0.trim(), rand::rng().random());
        let (did, offer) = match (plan.did, plan.decision) {
            (Some(did), Decision::Offer(offer)) => (did, offer),
            (_, Decision::Refuse(reason)) => return Ok(reject(reason)),
            (None, Decision::Offer(_)) => return Ok(reject(CallReason::DidNotFound)),
        };
        let links = with_room(&offer, clock::now(), &backend.keeper).await?;
        let targets = describe(backend, links).await?;
        if targets.is_empty() {
            return Ok(reject(CallReason::NoEligibleClientsAvailable));
        }
        let Offer { campaign, .. } = offer;
        let routing_info = RoutingInfo {
            user_id: did.seller.0,
            campaign_id: campaign.id.0,
            did_id: did.id.0,
            routing_strategy: Word(campaign.strategy),
            dial_timeout_seconds: campaign.dial_timeout_seconds,
            targets,
        };
        let proceed = Proceed { status: "proceed".to_owned(), routing_info };
        Ok(RouteInfo::Proceed(Json(proceed)))
    }
}

fn reject(reason: CallReason) -> RouteInfo {
    let status = "reject".to_owned();
    RouteInfo::Reject(Json(Reject { status, reject_reason: Word(reason) }))
}

async fn describe(backend: &Backend, links: Vec<Arc<Link>>) -> Result<Vec<Target>, Problem> {
    let ids = links.iter().map(|link| link.client.id.0).collect();
    let rows: Vec<_> = clients::find_many(&backend.db, ids).await?.into_values().collect();
    let realtime: HashMap<i64, Realtime> = clients::realtime_rows(&backend.db, &rows).await?;
    let target = |link: &Arc<Link>| {
        // A client that was deleted just now has no endpoint any more.
        realtime.get(&link.client.id.0).map(|rows| Target::new(link, rows))
    };
    Ok(links.iter().filter_map(target).collect())
}

impl Target {
    fn new(link: &Link, rows: &Realtime) -> Self {
        let or_null = |column: &String| (!column.is_empty()).then(|| column.clone());
        Self {
            campaign_client_setting_id: link.id.0,
            client_id: link.client.id.0,
            client_identifier: link.client.identifier.clone(),
            client_name: link.client.name.clone(),
            sip_uri: rows.aor.contact.clone(),
            max_concurrency: link.caps.concurrency.unwrap_or(u32::MAX),
            weight: link.weight,
            priority: link.priority,
            outbound_auth: or_null(&rows.endpoint.outbound_auth),
            callerid_override: or_null(&rows.endpoint.callerid),
            context: rows.endpoint.context.clone(),
            transport: or_null(&rows.endpoint.transport),
        }
    }
}
