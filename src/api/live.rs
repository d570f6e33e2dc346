//! Calls that are up now.

use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::access::{Operator, Seller};
use super::audit::Change;
use super::auth::Gone;
use super::input::Asked;
use super::input::query::{PageNumber, PerPage};
use super::page::{Page, Paging, Slice};
use super::problem::{FieldErrors, List, Refusal, Remove, not_found};
use super::stamp::Stamp;
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
    #[oai(nullable)]
    caller_id_num: Option<String>,
    /// The seller.
    #[oai(nullable)]
    user_id: Option<i64>,
    #[oai(nullable)]
    did_id: Option<i64>,
    #[oai(nullable)]
    campaign: Option<LiveCampaign>,
    /// The client that is rung or talked to.
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

#[OpenApi(prefix_path = "/api/seller/live", tag = "Tag::Live")]
impl SellerLiveApi {
    /// List my live calls
    ///
    /// Oldest first.
    #[oai(path = "/", method = "get", operation_id = "listMyLiveCalls")]
    async fn list(
        &self,
        caller: Seller,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<LiveCall>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        let mut calls = caller.backend.live.list();
        calls.retain(|call| call.seller.is_some_and(|seller| seller.0 == caller.user.id));
        Ok(Json(page_of(paging, calls)))
    }
}

#[OpenApi(prefix_path = "/api/admin/live", tag = "Tag::Live")]
impl AdminLiveApi {
    /// List live calls of all sellers
    ///
    /// Oldest first.
    #[oai(path = "/", method = "get", operation_id = "listLiveCalls")]
    async fn list(
        &self,
        caller: Operator,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<LiveCall>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        Ok(Json(page_of(paging, caller.backend.live.list())))
    }

    /// Hang up a live call
    ///
    /// Both legs end, and the call is recorded as any other.
    #[oai(path = "/:callId", method = "delete", operation_id = "hangUpLiveCall")]
    async fn hang_up(
        &self,
        caller: Operator,
        #[oai(name = "callId")] call_id: Path<String>,
    ) -> Result<Gone, Refusal<Remove>> {
        let absent = || not_found("live call", &call_id.0);
        let call = CallId::parse(&call_id.0).ok_or_else(absent)?;
        let write = caller.begin_write().await?;
        let hang_up = || caller.backend.switch.hang_up(call).then_some(()).ok_or_else(absent);
        write.commit_after(Change::to("call", call), hang_up).await?;
        Ok(Gone::Gone)
    }
}

fn page_of(paging: Paging, calls: Vec<live::LiveCall>) -> Page<LiveCall> {
    let total = calls.len() as u64;
    let window = calls
        .into_iter()
        .skip(usize::try_from(paging.offset()).unwrap_or(usize::MAX))
        .take(usize::try_from(paging.per_page).unwrap_or(usize::MAX));
    paging.page(Slice { items: window.collect(), total }, LiveCall::from)
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

impl From<live::LiveCall> for LiveCall {
    fn from(call: live::LiveCall) -> Self {
        Self {
            call_id: call.call.0,
            state: call.state.into(),
            since: call.since.into(),
            started_at: call.started_at.into(),
            incoming_did_number: call.dialled,
            caller_id_num: call.caller_number,
            user_id: call.seller.map(|seller| seller.0),
            did_id: call.did.map(|did| did.0),
            campaign: call.campaign.map(|(id, name)| LiveCampaign { id: id.0, name }),
            client: call.client.map(LiveClient::from),
            attempts: call.attempts,
        }
    }
}

impl From<live::LiveClient> for LiveClient {
    fn from(client: live::LiveClient) -> Self {
        Self {
            id: client.id.0,
            name: client.name,
            client_identifier: client.identifier,
            campaign_client_setting_id: client.link.0,
        }
    }
}
