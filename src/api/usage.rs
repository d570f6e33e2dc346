//! Every link with all caps that its calls count in, and what is used of them
//! now: what a console draws as bars.
//!
//! Of sellers' links, what others sold the client is left out: a seller learns that only
//! where it refused a call of theirs.

use std::collections::HashMap;

use capconduit_entity::{Status, campaign, client, link, user};
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use super::access::{Operator, Seller};
use super::caps::{CapUse, InUse};
use super::input::query::{IdFilter, PageNumber, PerPage};
use super::input::{Asked, Word};
use super::page::{Page, Paging, Slice};
use super::problem::{FieldErrors, List, Problem, Refusal};
use super::{Backend, Tag};
use crate::store::caps::Capped;
use crate::store::links::Filter;
use crate::store::{campaigns, clients, users};

pub struct AdminUsageApi;
pub struct SellerUsageApi;

/// A link, with every cap that is set of it and above it.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct LinkCaps {
    campaign_client_setting_id: i64,
    status: Word<Status>,
    client: CappedClient,
    campaign: CappedCampaign,
    /// The seller.
    user: CappedSeller,
    /// Calls of this link that are up or being set up.
    live_calls: u32,
    /// With what is used of them now. A cap of the client, the campaign or the seller is
    /// shown with each of its links.
    caps: Vec<CapUse>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct CappedClient {
    id: i64,
    name: String,
    client_identifier: String,
}

#[derive(Object)]
struct CappedCampaign {
    id: i64,
    name: String,
}

#[derive(Object)]
struct CappedSeller {
    id: i64,
    username: String,
}

/// Rows that links point at, by id.
struct Above {
    clients: HashMap<i64, client::Model>,
    campaigns: HashMap<i64, campaign::Model>,
    sellers: HashMap<i64, user::Model>,
}

#[OpenApi(prefix_path = "/api/admin/caps", tag = "Tag::Caps")]
impl AdminUsageApi {
    /// List links with what is used of their caps
    ///
    /// By client, then by link: each with the caps of the link, of its client, of its
    /// campaign and of its seller.
    #[oai(path = "/", method = "get", operation_id = "listCaps")]
    async fn list(
        &self,
        caller: Operator,
        user_id: Query<Asked<IdFilter>>,
        campaign_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<LinkCaps>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let seller = user_id.0.or_complain("user_id", &mut errors).map(|id| id.0);
        let filter = Filter { seller, ..asked(campaign_id.0, client_id.0, &mut errors) };
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        Ok(Json(answer(&caller.backend, filter, paging, Audience::Operators).await?))
    }
}

#[OpenApi(prefix_path = "/api/seller/caps", tag = "Tag::Caps")]
impl SellerUsageApi {
    /// List my links with what is used of their caps
    ///
    /// By client, then by link: each with the caps of the link, of its campaign and of
    /// my account.
    #[oai(path = "/", method = "get", operation_id = "listMyCaps")]
    async fn list(
        &self,
        caller: Seller,
        campaign_id: Query<Asked<IdFilter>>,
        client_id: Query<Asked<IdFilter>>,
        page: Query<Asked<PageNumber>>,
        per_page: Query<Asked<PerPage>>,
    ) -> Result<Json<Page<LinkCaps>>, Refusal<List>> {
        let mut errors = FieldErrors::default();
        let seller = Some(caller.user.id);
        let filter = Filter { seller, ..asked(campaign_id.0, client_id.0, &mut errors) };
        let paging = Paging::asked(page.0, per_page.0, &mut errors);
        errors.into_result()?;
        Ok(Json(answer(&caller.backend, filter, paging, Audience::Seller).await?))
    }
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Operators,
    /// The one whose links they are.
    Seller,
}

fn asked(campaign: Asked<IdFilter>, client: Asked<IdFilter>, errors: &mut FieldErrors) -> Filter {
    Filter {
        seller: None,
        campaign: campaign.or_complain("campaign_id", errors).map(|id| id.0),
        client: client.or_complain("client_id", errors).map(|id| id.0),
    }
}

async fn answer(
    backend: &Backend,
    filter: Filter,
    paging: Paging,
    audience: Audience,
) -> Result<Page<LinkCaps>, Problem> {
    let Slice { items: rows, total } = paging.select(filter.query(), &backend.db).await?;
    let above = Above::of(backend, &rows).await?;
    let in_use = InUse::ask(&*backend.ledger, above.capped(&rows, audience)).await?;
    let shown = rows.into_iter().filter_map(|row| above.show(row, &in_use)).collect();
    Ok(paging.page(Slice { items: shown, total }, |item| item))
}

impl Above {
    async fn of(backend: &Backend, rows: &[link::Model]) -> Result<Self, Problem> {
        let ids = |id: fn(&link::Model) -> i64| rows.iter().map(id).collect();
        let campaigns = campaigns::find_many(&backend.db, ids(|row| row.campaign_id)).await?;
        let sellers = campaigns.values().map(|campaign| campaign.user_id).collect();
        Ok(Self {
            clients: clients::find_many(&backend.db, ids(|row| row.client_id)).await?,
            sellers: users::find_many(&backend.db, sellers).await?,
            campaigns,
        })
    }

    /// Whatever has caps that this audience may know of.
    fn capped<'a>(
        &'a self,
        links: &'a [link::Model],
        audience: Audience,
    ) -> impl Iterator<Item = &'a dyn Capped> {
        let clients = self.clients.values().filter(move |_| audience == Audience::Operators);
        let links = links.iter().map(|row| row as &dyn Capped);
        links
            .chain(clients.map(|row| row as &dyn Capped))
            .chain(self.campaigns.values().map(|row| row as &dyn Capped))
            .chain(self.sellers.values().map(|row| row as &dyn Capped))
    }

    /// None for a link of which something was deleted between two reads.
    fn show(&self, row: link::Model, in_use: &InUse) -> Option<LinkCaps> {
        let client = self.clients.get(&row.client_id)?;
        let campaign = self.campaigns.get(&row.campaign_id)?;
        let seller = self.sellers.get(&campaign.user_id)?;
        let scopes = [row.scope(), client.scope(), campaign.scope(), seller.scope()];
        Some(LinkCaps {
            campaign_client_setting_id: row.id,
            status: Word(row.status),
            live_calls: in_use.usage(row.scope()).live,
            caps: in_use.of(scopes),
            client: CappedClient {
                id: client.id,
                name: client.name.clone(),
                client_identifier: client.client_identifier.clone(),
            },
            campaign: CappedCampaign { id: campaign.id, name: campaign.name.clone() },
            user: CappedSeller { id: seller.id, username: seller.username.clone() },
        })
    }
}
