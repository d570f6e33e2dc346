//! The configuration as routing sees it: immutable, compiled, replaced whole.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use capconduit_entity::{CampaignStatus, E164, Status, Strategy};

use crate::capacity::Caps;
use crate::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};

/// Everything that routing needs to know, at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Which state of the configuration it shows, or a newer one.
    revision: i64,
    dids: HashMap<E164, Arc<Did>>,
    links: HashMap<LinkId, Arc<Link>>,
}

#[derive(Clone, Debug)]
pub struct Did {
    pub id: DidId,
    pub number: E164,
    pub status: Status,
    pub seller: SellerId,
    pub seller_active: bool,
    /// The one active campaign that answers this DID.
    pub campaign: Option<Arc<Campaign>>,
}

#[derive(Clone, Debug)]
pub struct Campaign {
    pub id: CampaignId,
    pub name: String,
    pub status: CampaignStatus,
    pub strategy: Strategy,
    /// Seconds that one client is rung.
    pub dial_timeout_seconds: u32,
    /// By id.
    pub links: Vec<Arc<Link>>,
}

#[derive(Clone, Debug)]
pub struct Link {
    pub id: LinkId,
    pub campaign: CampaignId,
    pub seller: SellerId,
    pub status: Status,
    pub client: Arc<Client>,
    /// Its own, beside those of its client.
    pub caps: Caps,
    /// Those of its campaign, over all links.
    pub campaign_caps: Caps,
    /// Those of its seller, over all campaigns.
    pub seller_caps: Caps,
    /// Lower is tried first.
    pub priority: i32,
    /// Share among equals, at least 1.
    pub weight: u32,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub id: ClientId,
    pub identifier: String,
    pub name: String,
    pub status: Status,
    /// The name of the PJSIP endpoint.
    pub endpoint: String,
    /// Over all campaigns of all sellers.
    pub caps: Caps,
}

impl Snapshot {
    pub fn new(dids: Vec<Did>, links: Vec<Arc<Link>>) -> Self {
        Self {
            revision: 0,
            dids: dids.into_iter().map(|did| (did.number.clone(), Arc::new(did))).collect(),
            links: links.into_iter().map(|link| (link.id, link)).collect(),
        }
    }

    #[must_use]
    pub fn at_revision(self, revision: i64) -> Self {
        Self { revision, ..self }
    }

    pub const fn revision(&self) -> i64 {
        self.revision
    }

    pub fn did(&self, number: &E164) -> Option<Arc<Did>> {
        self.dids.get(number).cloned()
    }

    /// Any link, also one that no active campaign or DID leads to.
    pub fn link(&self, id: LinkId) -> Option<Arc<Link>> {
        self.links.get(&id).cloned()
    }

    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.values()
    }
}

/// Holds the snapshot in force.
#[derive(Debug, Default)]
pub struct Current(ArcSwap<Snapshot>);

impl Current {
    pub fn get(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub fn set(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A link that is ready for calls.
    pub(crate) fn link(id: i64, priority: i32, weight: u32) -> Arc<Link> {
        Arc::new(Link {
            id: LinkId(id),
            campaign: CampaignId(1),
            seller: SellerId(1),
            status: Status::Active,
            client: Arc::new(Client {
                id: ClientId(id),
                identifier: format!("client-{id}"),
                name: format!("Client {id}"),
                status: Status::Active,
                endpoint: format!("endpoint-{id}"),
                caps: Caps::NONE,
            }),
            caps: Caps { concurrency: Some(10), ..Caps::NONE },
            campaign_caps: Caps::NONE,
            seller_caps: Caps::NONE,
            priority,
            weight,
        })
    }
}
