//! Loads the routing snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use capconduit_entity::{
    CampaignStatus, E164, UserStatus, campaign, campaign_did, client, did, link, user,
};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QueryOrder};

use super::caps::{Capped, limit};
use crate::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};
use crate::routing::{Campaign, Client, Did, Link, Snapshot};

/// The rows that routing is compiled from.
#[derive(Clone, Debug)]
pub struct Rows {
    revision: i64,
    users: HashMap<i64, user::Model>,
    pub clients: Vec<client::Model>,
    pub campaigns: HashMap<i64, campaign::Model>,
    /// By id.
    pub links: Vec<link::Model>,
    campaign_dids: Vec<campaign_did::Model>,
    dids: Vec<did::Model>,
}

/// Reads the whole configuration that routing needs.
///
/// # Errors
/// When the database can't be read.
pub async fn load_snapshot(db: &impl ConnectionTrait) -> Result<Snapshot, DbErr> {
    Ok(Rows::load(db).await?.compile())
}

// === impl Rows ===

impl Rows {
    /// Reads them.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn load(db: &impl ConnectionTrait) -> Result<Self, DbErr> {
        // First, so that what is changed meanwhile is loaded again.
        let revision = super::configuration::revision(db).await?;
        let users = user::Entity::find().all(db).await?;
        let clients = client::Entity::find().all(db).await?;
        let campaigns = campaign::Entity::find().all(db).await?;
        let links = link::Entity::find().order_by_asc(link::COLUMN.id).all(db).await?;
        let campaign_dids = campaign_did::Entity::find().all(db).await?;
        let dids = did::Entity::find().all(db).await?;
        Ok(Self {
            revision,
            users: users.into_iter().map(|user| (user.id, user)).collect(),
            clients,
            campaigns: campaigns.into_iter().map(|row| (row.id, row)).collect(),
            links,
            campaign_dids,
            dids,
        })
    }

    /// Gives each campaign's DIDs to it as its status says, as a write would; the numbers of
    /// the DIDs that would have two active campaigns.
    pub fn claim_dids(&mut self) -> Vec<E164> {
        let mut claimed = HashSet::new();
        let mut twice = Vec::new();
        for row in &mut self.campaign_dids {
            let campaign = self.campaigns.get(&row.campaign_id);
            let is_active = campaign.is_some_and(|row| row.status == CampaignStatus::Active);
            row.active_did_id = is_active.then_some(row.did_id);
            if is_active && !claimed.insert(row.did_id) {
                let did = self.dids.iter().find(|did| did.id == row.did_id);
                twice.extend(did.map(|did| did.number.clone()));
            }
        }
        twice
    }

    pub fn compile(self) -> Snapshot {
        let Self { revision, users, clients, campaigns, links, campaign_dids, dids } = self;
        let clients: HashMap<i64, Arc<Client>> = clients
            .into_iter()
            .map(|client| (client.id, Arc::new(compile_client(client))))
            .collect();
        let mut links_of: HashMap<i64, Vec<Arc<Link>>> = HashMap::new();
        for row in links {
            let campaign = campaigns.get(&row.campaign_id);
            let seller = campaign.and_then(|campaign| users.get(&campaign.user_id));
            // One that was created or deleted between two reads: the next load has it or not.
            let (Some(client), Some(campaign), Some(seller)) =
                (clients.get(&row.client_id), campaign, seller)
            else {
                continue;
            };
            let link = Arc::new(compile_link(&row, client.clone(), campaign, seller));
            links_of.entry(row.campaign_id).or_default().push(link);
        }
        let campaigns: HashMap<i64, Arc<Campaign>> = campaigns
            .into_values()
            .map(|row| {
                let links = links_of.get(&row.id).cloned().unwrap_or_default();
                (row.id, Arc::new(compile_campaign(row, links)))
            })
            .collect();
        let answered_by: HashMap<i64, Arc<Campaign>> = campaign_dids
            .into_iter()
            .filter_map(|row| Some((row.active_did_id?, campaigns.get(&row.campaign_id)?.clone())))
            .collect();
        let dids = dids
            .into_iter()
            .map(|row| Did {
                id: DidId(row.id),
                number: row.number,
                status: row.status,
                seller: SellerId(row.user_id),
                seller_active: users.get(&row.user_id).is_some_and(is_active),
                campaign: answered_by.get(&row.id).cloned(),
            })
            .collect();
        let links = links_of.into_values().flatten().collect();
        Snapshot::new(dids, links).at_revision(revision)
    }
}

fn is_active(user: &user::Model) -> bool {
    user.status == UserStatus::Active
}

fn compile_client(row: client::Model) -> Client {
    Client {
        id: ClientId(row.id),
        caps: row.caps(),
        identifier: row.client_identifier,
        name: row.name,
        status: row.status,
        endpoint: row.endpoint_id,
    }
}

fn compile_link(
    row: &link::Model,
    client: Arc<Client>,
    campaign: &campaign::Model,
    seller: &user::Model,
) -> Link {
    Link {
        id: LinkId(row.id),
        campaign: CampaignId(row.campaign_id),
        seller: SellerId(seller.id),
        status: row.status,
        client,
        caps: row.caps(),
        campaign_caps: campaign.caps(),
        seller_caps: seller.caps(),
        priority: row.forwarding_priority,
        weight: limit(row.weight),
    }
}

fn compile_campaign(row: campaign::Model, links: Vec<Arc<Link>>) -> Campaign {
    Campaign {
        id: CampaignId(row.id),
        name: row.name,
        status: row.status,
        strategy: row.routing_strategy,
        dial_timeout_seconds: limit(row.dial_timeout_seconds),
        links,
    }
}
