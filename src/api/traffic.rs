//! How many calls came in each of the last minutes, and what became of them.

use capconduit_entity::{CallReason, CallStatus};
use chrono::{DurationRound, TimeDelta};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::{Object, OpenApi};

use super::access::{Operator, Seller};
use super::input::query::{IdFilter, Parameter, whole, whole_number};
use super::input::{Asked, Word};
use super::problem::{FieldErrors, List, Problem, Refusal, broken};
use super::stamp::Stamp;
use super::{Backend, Tag};
use crate::clock::{self, Timestamp};
use crate::store::call_logs::{self, Came};

pub struct AdminTrafficApi;
pub struct SellerTrafficApi;

/// The calls of the last minutes, by the minute in which they came.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Traffic {
    /// Oldest first; the last is the minute that runs.
    minutes: Vec<MinuteOfTraffic>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct MinuteOfTraffic {
    start: Stamp,
    /// Calls that are up yet, on the instance that answers.
    live: u64,
    /// Calls that are over; a status that no call has is left out.
    ended: Vec<CallsOfStatus>,
    /// Of those that are over, calls for which no cap had room: `no_eligible_clients_available`,
    /// which is `REJECTED` where caps of either kind refused. What a dialplan reports as
    /// `REJECTED` doesn't count: it may have been refused for any reason.
    refused_by_caps: u64,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CallsOfStatus {
    call_status: Word<CallStatus>,
    calls: u64,
}

/// How many minutes are asked for.
struct Minutes(i64);

const LONGEST: u64 = 180;
const DEFAULT: i64 = 60;

#[OpenApi(prefix_path = "/api/admin/traffic", tag = "Tag::Logs")]
impl AdminTrafficApi {
    /// Count the calls of the last minutes
    ///
    /// By the minute in which they came, and by what became of them; also of one
    /// seller, by `user_id`.
    #[oai(path = "/", method = "get", operation_id = "getTraffic")]
    async fn get(
        &self,
        caller: Operator,
        user_id: Query<Asked<IdFilter>>,
        minutes: Query<Asked<Minutes>>,
    ) -> Result<Json<Traffic>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let seller = user_id.0.or_complain("user_id", &mut errors).map(|id| id.0);
        let minutes = minutes.0.or_complain("minutes", &mut errors);
        errors.into_result()?;
        Ok(Json(traffic(&caller.backend, seller, minutes).await?))
    }
}

#[OpenApi(prefix_path = "/api/seller/traffic", tag = "Tag::Logs")]
impl SellerTrafficApi {
    /// Count my calls of the last minutes
    ///
    /// By the minute in which they came, and by what became of them.
    #[oai(path = "/", method = "get", operation_id = "getMyTraffic")]
    async fn get(
        &self,
        caller: Seller,
        minutes: Query<Asked<Minutes>>,
    ) -> Result<Json<Traffic>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let minutes = minutes.0.or_complain("minutes", &mut errors);
        errors.into_result()?;
        Ok(Json(traffic(&caller.backend, Some(caller.user.id), minutes).await?))
    }
}

/// The calls of a seller, or of all.
async fn traffic(
    backend: &Backend,
    seller: Option<i64>,
    minutes: Option<Minutes>,
) -> Result<Traffic, Problem> {
    let minute = TimeDelta::minutes(1);
    let count = minutes.map_or(DEFAULT, |minutes| minutes.0);
    let running = clock::now().duration_trunc(minute).map_err(|_| broken())?;
    let first = running - minute * i32::try_from(count - 1).map_err(|_| broken())?;
    let live: Vec<Timestamp> = backend
        .live
        .list()
        .iter()
        .filter(|call| seller.is_none() || seller == call.seller.map(|seller| seller.0))
        .map(|call| call.started_at)
        .collect();
    let came = call_logs::came(&backend.db, seller, first).await?;
    let of_minute = |start: Timestamp| {
        let is_in = |at: Timestamp| (start..start + minute).contains(&at);
        let ended: Vec<&Came> = came.iter().filter(|came| is_in(came.minute)).collect();
        // A dialplan reports as `REJECTED` whatever refused a call.
        let is_refused = |came: &&&Came| {
            came.reason == CallReason::NoEligibleClientsAvailable
                && !(came.reported && came.status == CallStatus::Rejected)
        };
        MinuteOfTraffic {
            start: start.into(),
            live: live.iter().filter(|at| is_in(**at)).count() as u64,
            refused_by_caps: ended.iter().filter(is_refused).map(|came| came.calls).sum(),
            ended: of_each_status(&ended),
        }
    };
    let starts = (0..count).map(|index| first + TimeDelta::minutes(index));
    Ok(Traffic { minutes: starts.map(of_minute).collect() })
}

/// `came` is in the order of its statuses.
fn of_each_status(came: &[&Came]) -> Vec<CallsOfStatus> {
    let alike = came.chunk_by(|one, next| one.status == next.status);
    let count = |alike: &[&Came]| CallsOfStatus {
        call_status: Word(alike[0].status),
        calls: alike.iter().map(|came| came.calls).sum(),
    };
    alike.map(count).collect()
}

impl Parameter for Minutes {
    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            minimum: Some(1.0),
            maximum: Some(180.0),
            default: Some(DEFAULT.into()),
            description: Some("How many minutes back, with the one that runs."),
            ..whole_number()
        }))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let count = whole(text, 1, LONGEST)?;
        i64::try_from(count).map(Self).map_err(|err| err.to_string())
    }
}
