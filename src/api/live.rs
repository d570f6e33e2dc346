//! Calls that are up now: as a list, and as a stream of what happens to them.

mod events;
mod stream;
mod streams;

use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use self::events::LiveEvents;
use self::stream::LastEventId;
pub use self::streams::{StreamSettings, Streams};
use super::access::{Caller, Operator, Seller};
use super::audit::{CALL, Change};
use super::auth::Gone;
use super::callers::Callers;
use super::input::Asked;
use super::input::query::{IdFilter, PageNumber, Parameter, PerPage};
use super::input::text::LINE_PATTERN;
use super::page::{Page, Paging, Slice};
use super::problem::{FieldErrors, Follow, List, Refusal, Remove, busy, not_found};
use super::stamp::Stamp;
use super::{NotHungUp, Tag};
use crate::ids::CallId;
use crate::live;

pub struct SellerLiveApi;
pub struct AdminLiveApi;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum LiveState {
    /// Nobody is being rung yet.
    Routing,
    /// A client is being rung.
    Ringing,
    /// Caller and client talk.
    Talking,
    /// Legs are being hung up.
    Ending,
}

/// A call that is up.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
struct LiveCall {
    call_id: Uuid,
    state: LiveState,
    /// When the call came to this state.
    since: Stamp,
    started_at: Stamp,
    incoming_did_number: String,
    /// Without its last digits where staff ask.
    #[oai(nullable)]
    caller_id_num: Option<String>,
    /// The seller.
    #[oai(nullable)]
    user_id: Option<i64>,
    #[oai(nullable)]
    did_id: Option<i64>,
    #[oai(nullable)]
    campaign: Option<LiveCampaign>,
    /// The client that is rung or talked to; while the call ends, the one that had it, or whose
    /// leg is still there.
    #[oai(nullable)]
    client: Option<LiveClient>,
    /// Clients dialled so far.
    attempts: u32,
}

#[derive(Debug, Object)]
struct LiveCampaign {
    id: i64,
    name: String,
}

#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
struct LiveClient {
    id: i64,
    name: String,
    client_identifier: String,
    campaign_client_setting_id: i64,
}

/// Why an operator hangs up.
struct HangUpReason(String);

/// What the record of a call says that an operator hung up.
const HUNG_UP: &str = "Hung up by staff";
/// Seconds after which wishes that are waiting now are fulfilled, or the service is no more.
const RETRY_AFTER: u64 = 1;
/// With the words before it, it fits into the record.
const LONGEST_REASON: usize = 60;

/// Which calls are asked for; none = any.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    seller: Option<i64>,
    campaign: Option<i64>,
    client: Option<i64>,
}

#[OpenApi(prefix_path = "/api/seller/live", tag = "Tag::Live")]
impl SellerLiveApi {
    /// List my live calls
    ///
    /// Those that the instance that answers leads, oldest first. With `client_id`, those
    /// that ring that client or talk to it.
    #[oai(path = "/", method = "get", operation_id = "listMyLiveCalls")]
    async fn list(
        &self,
        caller: Seller,
        campaign_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<LiveCall>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let wanted = Wanted::asked(campaign_id.0, client_id.0, &mut errors);
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        Ok(Json(wanted.of_seller(caller.user.id).list(&caller, paging)))
    }

    /// Follow my live calls
    ///
    /// Server-sent events: first a `snapshot` of all my live calls, then what
    /// happens to them, as `call` (it came or changed) and `gone` (it ended, or
    /// isn't one of those asked for any more). The data of each event is the
    /// JSON of `LiveEvent`, whose `type` is the name of the event.
    ///
    /// Each event has an id. Whoever comes back with `Last-Event-ID` gets what
    /// they missed, and no snapshot; a new one if too much was missed. Who
    /// reads too slowly is told to `resync`, and a new `snapshot` follows. A
    /// `heartbeat` comes every 15 seconds. The stream ends soon after the
    /// session or token that it was opened with.
    #[oai(path = "/events", method = "get", operation_id = "followMyLiveCalls")]
    async fn follow(
        &self,
        caller: Seller,
        campaign_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        #[oai(name = "Last-Event-ID")] last_event_id: Header<Asked<LastEventId>>,
    ) -> Result<LiveEvents, Refusal<Follow>> {
        let mut errors = FieldErrors::default();
        let wanted = Wanted::asked(campaign_id.0, client_id.0, &mut errors);
        errors.into_result()?;
        let wanted = wanted.of_seller(caller.user.id);
        Ok(stream::open(caller, wanted, last_event_id.0)?)
    }
}

#[OpenApi(prefix_path = "/api/admin/live", tag = "Tag::Live")]
impl AdminLiveApi {
    /// List live calls of all sellers
    ///
    /// Those that the instance that answers leads, oldest first; also of one seller,
    /// by `user_id`. With `client_id`, those that ring that client or talk to it.
    #[oai(path = "/", method = "get", operation_id = "listLiveCalls")]
    async fn list(
        &self,
        caller: Operator,
        user_id: Query<Asked<IdFilter>>,
        campaign_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<LiveCall>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let wanted = Wanted::asked(campaign_id.0, client_id.0, &mut errors);
        let wanted = wanted.of_asked_seller(user_id.0, &mut errors);
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        Ok(Json(wanted.list(&caller, paging)))
    }

    /// Follow live calls of all sellers
    ///
    /// Server-sent events, as sellers follow their own calls; also of one
    /// seller, by `user_id`. First a `snapshot`, then `call` (it came or
    /// changed) and `gone` (it ended, or isn't one of those asked for any
    /// more). The data of each event is the JSON of `LiveEvent`, whose `type`
    /// is the name of the event.
    ///
    /// Each event has an id. Whoever comes back with `Last-Event-ID` gets what
    /// they missed, and no snapshot; a new one if too much was missed. Who
    /// reads too slowly is told to `resync`, and a new `snapshot` follows. A
    /// `heartbeat` comes every 15 seconds. The stream ends soon after the
    /// session or token that it was opened with.
    #[oai(path = "/events", method = "get", operation_id = "followLiveCalls")]
    async fn follow(
        &self,
        caller: Operator,
        user_id: Query<Asked<IdFilter>>,
        campaign_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        #[oai(name = "Last-Event-ID")] last_event_id: Header<Asked<LastEventId>>,
    ) -> Result<LiveEvents, Refusal<Follow>> {
        let mut errors = FieldErrors::default();
        let wanted = Wanted::asked(campaign_id.0, client_id.0, &mut errors);
        let wanted = wanted.of_asked_seller(user_id.0, &mut errors);
        errors.into_result()?;
        Ok(stream::open(caller, wanted, last_event_id.0)?)
    }

    /// Hang up a live call
    ///
    /// Both legs end, and the call is recorded as any other. The `reason` is kept in the
    /// audit log, and in the call's record as its `hangupCauseText`. A call that another
    /// instance leads isn't there.
    #[oai(path = "/:callId", method = "delete", operation_id = "hangUpLiveCall")]
    async fn hang_up(
        &self,
        caller: Operator,
        #[oai(name = "callId")] call_id: Path<String>,
        reason: Query<Asked<HangUpReason>>,
    ) -> Result<Gone, Refusal<Remove>> {
        let mut errors = FieldErrors::default();
        let reason = reason.0.or_complain("reason", &mut errors).map(|reason| reason.0);
        errors.into_result()?;
        let absent = || not_found("live call", &call_id.0);
        let call = CallId::parse(&call_id.0).ok_or_else(absent)?;
        let told = match &reason {
            Some(reason) => format!("{HUNG_UP}: {reason}"),
            None => HUNG_UP.to_owned(),
        };
        let write = caller.begin_write().await?;
        let hang_up = || {
            caller.backend.switch.hang_up(call, told).map_err(|why| match why {
                NotHungUp::Absent => absent(),
                NotHungUp::Busy => busy(
                    "The service has too much to do: nothing was done, try again.",
                    RETRY_AFTER,
                ),
            })
        };
        write.commit_after(Change::to(CALL, call).because(reason), hang_up).await?;
        Ok(Gone::Gone)
    }
}

impl Wanted {
    fn asked(campaign: Asked<IdFilter>, client: Asked<IdFilter>, errors: &mut FieldErrors) -> Self {
        Self {
            seller: None,
            campaign: campaign.or_complain("campaign_id", errors).map(|id| id.0),
            client: client.or_complain("client_id", errors).map(|id| id.0),
        }
    }

    fn of_asked_seller(self, seller: Asked<IdFilter>, errors: &mut FieldErrors) -> Self {
        Self { seller: seller.or_complain("user_id", errors).map(|id| id.0), ..self }
    }

    fn of_seller(self, seller: i64) -> Self {
        Self { seller: Some(seller), ..self }
    }

    fn admits(&self, call: &live::LiveCall) -> bool {
        let is = |wanted: Option<i64>, found: Option<i64>| wanted.is_none() || wanted == found;
        is(self.seller, call.seller.map(|seller| seller.0))
            && is(self.campaign, call.campaign.as_ref().map(|(id, _)| id.0))
            && is(self.client, call.client.as_ref().map(|client| client.id.0))
    }

    fn list<K>(&self, caller: &Caller<K>, paging: Paging) -> Page<LiveCall> {
        let callers = Callers::shown_to(caller.user.role);
        let mut calls = caller.backend.live.list();
        calls.retain(|call| self.admits(call));
        let total = calls.len() as u64;
        let window = calls
            .into_iter()
            .skip(usize::try_from(paging.offset()).unwrap_or(usize::MAX))
            .take(usize::try_from(paging.per_page).unwrap_or(usize::MAX));
        let items = window.collect::<Vec<_>>();
        paging.page(Slice { items, total }, |call| LiveCall::shown(&call, callers))
    }
}

impl Parameter for HangUpReason {
    fn schema() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("Why, in a few words."),
            min_length: Some(1),
            max_length: Some(LONGEST_REASON),
            pattern: Some(LINE_PATTERN.to_owned()),
            ..MetaSchema::new("string")
        }))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let length = text.chars().count();
        if !(1..=LONGEST_REASON).contains(&length) || text.chars().any(char::is_control) {
            return Err(format!("must have 1 to {LONGEST_REASON} characters, none of control"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<live::LiveState> for LiveState {
    fn from(state: live::LiveState) -> Self {
        match state {
            live::LiveState::Routing => Self::Routing,
            live::LiveState::Ringing => Self::Ringing,
            live::LiveState::Talking => Self::Talking,
            live::LiveState::Ending => Self::Ending,
        }
    }
}

impl LiveCall {
    fn shown(call: &live::LiveCall, callers: Callers) -> Self {
        Self {
            call_id: call.call.0,
            state: call.state.into(),
            since: call.since.into(),
            started_at: call.started_at.into(),
            incoming_did_number: call.dialled.clone(),
            caller_id_num: callers.number(call.caller_number.clone()),
            user_id: call.seller.map(|seller| seller.0),
            did_id: call.did.map(|did| did.0),
            campaign: call
                .campaign
                .as_ref()
                .map(|(id, name)| LiveCampaign { id: id.0, name: name.clone() }),
            client: call.client.as_ref().map(LiveClient::from),
            attempts: call.attempts,
        }
    }
}

impl From<&live::LiveClient> for LiveClient {
    fn from(client: &live::LiveClient) -> Self {
        Self {
            id: client.id.0,
            name: client.name.clone(),
            client_identifier: client.identifier.clone(),
            campaign_client_setting_id: client.link.0,
        }
    }
}
