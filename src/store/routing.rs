//! Loads the routing snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use capconduit_entity::{UserStatus, campaign, campaign_did, client, did, link, user};
use chrono_tz::Tz;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QueryOrder};
use tracing::warn;

use crate::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};
use crate::routing::{Campaign, Client, Did, Link, Snapshot};

/// Reads the whole configuration that routing needs.
///
/// # Errors
/// When the database can't be read.
pub async fn load_snapshot(db: &impl ConnectionTrait) -> Result<Snapshot, DbErr> {
    let active: HashMap<i64, bool> = user::Entity::find()
        .all(db)
        .await?
        .into_iter()
        .map(|user| (user.id, user.status == UserStatus::Active))
        .collect();
    let clients: HashMap<i64, Arc<Client>> = client::Entity::find()
        .all(db)
        .await?
        .into_iter()
        .map(|client| (client.id, Arc::new(compile_client(client))))
        .collect();
    let mut links_of: HashMap<i64, Vec<Arc<Link>>> = HashMap::new();
    for row in link::Entity::find().order_by_asc(link::COLUMN.id).all(db).await? {
        let Some(client) = clients.get(&row.client_id) else {
            continue;
        };
        let link = Arc::new(compile_link(&row, client.clone()));
        links_of.entry(row.campaign_id).or_default().push(link);
    }
    let campaigns: HashMap<i64, Arc<Campaign>> = campaign::Entity::find()
        .all(db)
        .await?
        .into_iter()
        .map(|row| {
            let links = links_of.get(&row.id).cloned().unwrap_or_default();
            (row.id, Arc::new(compile_campaign(row, links)))
        })
        .collect();
    let answered_by: HashMap<i64, Arc<Campaign>> = campaign_did::Entity::find()
        .all(db)
        .await?
        .into_iter()
        .filter_map(|row| Some((row.active_did_id?, campaigns.get(&row.campaign_id)?.clone())))
        .collect();
    let dids = did::Entity::find()
        .all(db)
        .await?
        .into_iter()
        .map(|row| Did {
            id: DidId(row.id),
            number: row.number,
            status: row.status,
            seller: SellerId(row.user_id),
            seller_active: active.get(&row.user_id).copied().unwrap_or(false),
            campaign: answered_by.get(&row.id).cloned(),
        })
        .collect();
    Ok(Snapshot::new(dids, links_of.into_values().flatten().collect()))
}

fn compile_client(row: client::Model) -> Client {
    Client {
        id: ClientId(row.id),
        identifier: row.client_identifier,
        name: row.name,
        status: row.status,
        endpoint: row.endpoint_id,
        max_concurrency: row.max_concurrency.map(limit),
    }
}

fn compile_link(row: &link::Model, client: Arc<Client>) -> Link {
    let zone = row.time_zone.parse().unwrap_or_else(|_| {
        warn!(link.id = row.id, zone = row.time_zone, "unknown time zone, UTC is used");
        Tz::UTC
    });
    let volume =
        [row.total_calls_allowed, row.hourly_cap, row.daily_cap, row.weekly_cap, row.monthly_cap];
    Link {
        id: LinkId(row.id),
        campaign: CampaignId(row.campaign_id),
        status: row.status,
        client,
        max_concurrency: limit(row.max_concurrency),
        volume: volume.map(|cap| cap.map(limit)),
        priority: row.forwarding_priority,
        weight: limit(row.weight),
        zone,
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

/// A number that can't be below zero, whatever a row says.
fn limit(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
