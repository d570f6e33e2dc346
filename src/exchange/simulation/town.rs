//! Who sells, who buys, and under which caps: the same in every episode but for the numbers.

use std::sync::Arc;

use capconduit_entity::{CampaignStatus, E164, Status, Strategy};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::capacity::{Caps, Scope, WindowKind};
use crate::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};
use crate::routing::{Campaign, Client, Did, Link, Snapshot};

/// The configuration that an episode runs with.
pub struct Town {
    dids: Vec<Did>,
    links: Vec<Arc<Link>>,
}

/// Numbers of the campaigns, in their order; the last one is sold by nobody.
pub const NUMBERS: [&str; 4] = ["+15550100001", "+15550100002", "+15550100003", "+15550100009"];
pub const RING_SECONDS: u32 = 5;
const STRATEGIES: [Strategy; 3] = [Strategy::Priority, Strategy::RoundRobin, Strategy::Weighted];
const CLIENTS: i64 = 5;

impl Town {
    pub fn build(luck: &mut SmallRng) -> Self {
        let mut cap = |one_in: u32, concurrency: u32, total: u32| {
            let mut caps = Caps::NONE;
            if luck.random_ratio(1, one_in) {
                caps.concurrency = Some(luck.random_range(1..=concurrency));
            }
            if luck.random_ratio(1, one_in) {
                caps.volume[WindowKind::Total.index()] = Some(luck.random_range(1..=total));
            }
            if luck.random_ratio(1, 2 * one_in) {
                caps.volume[WindowKind::Hour.index()] = Some(luck.random_range(1..=total));
            }
            caps
        };
        let seller_caps = [cap(3, 8, 30), cap(3, 8, 30)];
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|id| {
                Arc::new(Client {
                    id: ClientId(id),
                    identifier: format!("client-{id}"),
                    name: format!("Client {id}"),
                    status: Status::Active,
                    endpoint: format!("endpoint-{id}"),
                    caps: cap(3, 4, 20),
                })
            })
            .collect();
        let (mut dids, mut links) = (Vec::new(), Vec::new());
        for (place, strategy) in (0_i64..).zip(STRATEGIES) {
            let (campaign, seller) = (CampaignId(place + 1), SellerId(place % 2 + 1));
            let campaign_caps = cap(3, 6, 20);
            let own: Vec<_> = (0..3)
                .map(|nth| {
                    Arc::new(Link {
                        id: LinkId(place * 3 + nth + 1),
                        campaign,
                        seller,
                        status: Status::Active,
                        client: clients[usize::try_from((place + nth * 2) % CLIENTS).unwrap()]
                            .clone(),
                        caps: cap(1, 3, 12),
                        campaign_caps,
                        seller_caps: seller_caps[usize::try_from(place % 2).unwrap()],
                        priority: i32::try_from(nth).unwrap(),
                        weight: 1 + u32::try_from(nth).unwrap(),
                    })
                })
                .collect();
            let number = NUMBERS[usize::try_from(place).unwrap()];
            dids.push(Did {
                id: DidId(place + 1),
                number: E164::parse(number).unwrap(),
                status: Status::Active,
                seller,
                seller_active: true,
                campaign: Some(Arc::new(Campaign {
                    id: campaign,
                    name: format!("Campaign {campaign}"),
                    status: CampaignStatus::Active,
                    strategy,
                    dial_timeout_seconds: RING_SECONDS,
                    links: own.clone(),
                })),
            });
            links.extend(own);
        }
        Self { dids, links }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.dids.clone(), self.links.clone())
    }

    /// Everything that a call over this link counts in, and what is allowed there.
    pub fn caps(&self, link: LinkId) -> [(Scope, Caps); 4] {
        let link = self.links.iter().find(|known| known.id == link).expect("a link of the town");
        [
            (Scope::link(link.id), link.caps),
            (Scope::client(link.client.id), link.client.caps),
            (Scope::campaign(link.campaign), link.campaign_caps),
            (Scope::seller(link.seller), link.seller_caps),
        ]
    }

    /// The link over which a call to `number` reaches `endpoint`: there is one at most.
    pub fn link(&self, number: &str, endpoint: &str) -> Option<LinkId> {
        let did = self.dids.iter().find(|did| did.number.to_string() == number)?;
        let links = &did.campaign.as_ref()?.links;
        links.iter().find(|link| link.client.endpoint == endpoint).map(|link| link.id)
    }
}
