//! The sample data: one seller, five call centres, three campaigns.
//!
//! All of it is created through the HTTP API, or found again and set right: an
//! earlier demo may have been interrupted, or someone may have played with it.
//! Links are made anew each time, so that their total caps begin at zero.

use capconduit_entity::Strategy;
use serde_json::json;
use tokio::time::{Duration, sleep};

use super::answers::{Campaign, CampaignDetail, Client, Did, Link, LiveCall, User};
use super::session::{ApiError, Session};
use crate::api::password;
use crate::ids::{CampaignId, ClientId, DidId};

/// How a call centre treats calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Answers,
    IsBusy,
    NeverAnswers,
}

pub struct ClientSample {
    pub identifier: &'static str,
    pub name: &'static str,
    pub behaviour: Behaviour,
}

pub struct CampaignSample {
    pub name: &'static str,
    /// As the screen calls it.
    pub short: &'static str,
    pub number: &'static str,
    strategy: Strategy,
    /// What a newcomer should know of it.
    pub story: &'static str,
    links: &'static [LinkSample],
}

pub struct LinkSample {
    /// Which of [`CLIENTS`].
    client: usize,
    max_concurrency: u32,
    priority: u32,
    weight: u32,
    total: Option<u32>,
}

/// The sample data, loaded.
pub struct Sample {
    /// The demo's seller, signed in.
    pub seller: Session,
    pub seller_password: String,
    campaigns: Vec<CampaignId>,
}

/// A link with its campaign.
#[derive(Clone, Debug)]
pub struct SampleLink {
    pub campaign: &'static str,
    pub link: Link,
}

#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error(
        "the sample number {0} belongs to another seller here: delete it there, or run the demo on another folder (make demo DATA=...)"
    )]
    NumberTaken(&'static str),
    #[error("calls of an earlier demo don't end: hang them up, or start the service again")]
    OldCalls,
    #[error("the sample data can't be loaded: {0}")]
    Api(#[from] ApiError),
}

pub const SELLER: &str = "demo-seller";
const SELLER_EMAIL: &str = "demo-seller@example.com";
/// Seconds that a client is rung.
const RING_SECONDS: u32 = 2;

pub const CLIENTS: [ClientSample; 5] = [
    ClientSample { identifier: "demo-alpha", name: "Alpha", behaviour: Behaviour::Answers },
    ClientSample { identifier: "demo-bravo", name: "Bravo", behaviour: Behaviour::Answers },
    ClientSample { identifier: "demo-charlie", name: "Charlie", behaviour: Behaviour::Answers },
    ClientSample { identifier: "demo-delta", name: "Delta", behaviour: Behaviour::IsBusy },
    ClientSample { identifier: "demo-echo", name: "Echo", behaviour: Behaviour::NeverAnswers },
];
const ALPHA: usize = 0;
const BRAVO: usize = 1;
const CHARLIE: usize = 2;
const DELTA: usize = 3;
const ECHO: usize = 4;

pub const CAMPAIGNS: [CampaignSample; 3] = [
    CampaignSample {
        name: "Demo: by priority",
        short: "priority",
        number: "+15550100101",
        strategy: Strategy::Priority,
        story: "first Delta, then Echo, then Alpha; each rings 2 s at most",
        links: &[link(DELTA, 3, 1, 1), link(ECHO, 2, 2, 1), link(ALPHA, 3, 3, 1)],
    },
    CampaignSample {
        name: "Demo: in turn",
        short: "in turn",
        number: "+15550100102",
        strategy: Strategy::RoundRobin,
        story: "Alpha, Bravo, Charlie, one after the other",
        links: &[link(ALPHA, 2, 1, 1), link(BRAVO, 2, 1, 1), link(CHARLIE, 2, 1, 1)],
    },
    CampaignSample {
        name: "Demo: by weight",
        short: "weighted",
        number: "+15550100103",
        strategy: Strategy::Weighted,
        story: "Alpha 60 % (2 calls at once, 5 in all), Bravo 40 % (1 at once, 3 in all)",
        links: &[link(ALPHA, 2, 1, 60).at_most(5), link(BRAVO, 1, 1, 40).at_most(3)],
    },
];

const fn link(client: usize, max_concurrency: u32, priority: u32, weight: u32) -> LinkSample {
    LinkSample { client, max_concurrency, priority, weight, total: None }
}

impl LinkSample {
    const fn at_most(self, calls: u32) -> Self {
        Self { total: Some(calls), ..self }
    }
}

/// Hangs up what an interrupted demo left, and waits until it is gone.
///
/// # Errors
/// When a call doesn't end.
pub async fn hang_up_calls(admin: &Session) -> Result<(), SampleError> {
    for _ in 0..50 {
        let live: Vec<LiveCall> = admin.all("/api/admin/live").await?;
        let mut ours = live.iter().filter(|call| is_ours(&call.incoming_did_number)).peekable();
        if ours.peek().is_none() {
            return Ok(());
        }
        for call in ours {
            match admin.delete(&format!("/api/admin/live/{}", call.call_id)).await {
                // It ended by itself just now.
                Err(ApiError::Refused { status: 404, .. }) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(SampleError::OldCalls)
}

/// Whether a number is one of the sample's.
pub fn is_ours(number: &str) -> bool {
    CAMPAIGNS.iter().any(|campaign| campaign.number == number)
}

/// What the screen calls the campaign of a number.
pub fn short_name(number: &str) -> &'static str {
    let campaign = CAMPAIGNS.iter().find(|campaign| campaign.number == number);
    campaign.map_or("", |campaign| campaign.short)
}

// === impl Sample ===

impl Sample {
    /// Loads the sample; each client's phone is at its port of this machine.
    ///
    /// # Errors
    /// When the API refuses something.
    pub async fn load(admin: &Session, ports: &[u16; CLIENTS.len()]) -> Result<Self, SampleError> {
        let seller_password = password::readable();
        put_seller(admin, &seller_password).await?;
        let clients = put_clients(admin, ports).await?;
        let seller = Session::sign_in(admin.address(), SELLER, &seller_password).await?;
        let dids = put_dids(&seller).await?;
        let campaigns = put_campaigns(&seller, &dids, &clients).await?;
        Ok(Self { seller, seller_password, campaigns })
    }

    /// All links with what is used of their caps now.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn links(&self) -> Result<Vec<SampleLink>, ApiError> {
        let mut links = Vec::new();
        for (sample, id) in CAMPAIGNS.iter().zip(&self.campaigns) {
            let detail: CampaignDetail =
                self.seller.get(&format!("/api/seller/campaigns/{id}")).await?;
            let settings = detail.client_settings.into_iter();
            links.extend(settings.map(|link| SampleLink { campaign: sample.short, link }));
        }
        Ok(links)
    }
}

async fn put_seller(admin: &Session, password: &str) -> Result<(), ApiError> {
    let users: Vec<User> = admin.all("/api/admin/users").await?;
    let Some(user) = users.iter().find(|user| user.username == SELLER) else {
        let new = json!({
            "username": SELLER, "email": SELLER_EMAIL, "password": password, "role": "user",
            "fullName": "Demo Seller", "companyName": "Demo",
        });
        return admin.create::<User>("/api/admin/users", &new).await.map(drop);
    };
    let path = format!("/api/admin/users/{}", user.id);
    admin.change(&path, &json!({ "status": "active" })).await?;
    admin.change(&format!("{path}/password"), &json!({ "password": password })).await
}

async fn put_clients(
    admin: &Session,
    ports: &[u16; CLIENTS.len()],
) -> Result<Vec<ClientId>, ApiError> {
    let known: Vec<Client> = admin.all("/api/admin/clients").await?;
    let mut ids = Vec::new();
    for (sample, port) in CLIENTS.iter().zip(ports) {
        let id = sample.identifier;
        // Nobody needs to probe a phone that lives for half a minute.
        let contact = format!("sip:{id}@127.0.0.1:{port}");
        let aor = json!({ "contact": contact, "qualifyFrequency": 0 });
        if let Some(client) = known.iter().find(|client| client.client_identifier == id) {
            let change = json!({
                "name": sample.name, "status": "active", "maxConcurrency": null,
                "pjsip": { "aor": aor },
            });
            admin.change(&format!("/api/admin/clients/{}", client.id), &change).await?;
            ids.push(client.id);
        } else {
            let new = json!({
                "clientIdentifier": id, "name": sample.name, "department": "Demo",
                "pjsip": {
                    "endpoint": { "id": id, "aors": id, "context": "none", "allow": "ulaw,alaw" },
                    "aor": { "id": id, "contact": contact, "qualifyFrequency": 0 },
                },
            });
            ids.push(admin.create::<Client>("/api/admin/clients", &new).await?.id);
        }
    }
    Ok(ids)
}

async fn put_dids(seller: &Session) -> Result<Vec<DidId>, SampleError> {
    let known: Vec<Did> = seller.all("/api/seller/dids").await?;
    let mut ids = Vec::new();
    for CampaignSample { number, name, .. } in &CAMPAIGNS {
        if let Some(did) = known.iter().find(|did| did.number == *number) {
            let path = format!("/api/seller/dids/{}", did.id);
            seller.change(&path, &json!({ "status": "active" })).await?;
            ids.push(did.id);
            continue;
        }
        let new = json!({ "number": number, "description": name });
        match seller.create::<Did>("/api/seller/dids", &new).await {
            Ok(did) => ids.push(did.id),
            Err(ApiError::Refused { status: 409, .. }) => {
                return Err(SampleError::NumberTaken(number));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ids)
}

async fn put_campaigns(
    seller: &Session,
    dids: &[DidId],
    clients: &[ClientId],
) -> Result<Vec<CampaignId>, ApiError> {
    let known: Vec<Campaign> = seller.all("/api/seller/campaigns").await?;
    let mut ids = Vec::new();
    for (sample, did) in CAMPAIGNS.iter().zip(dids) {
        let as_planned = json!({
            "name": sample.name, "routingStrategy": sample.strategy.as_str(),
            "dialTimeoutSeconds": RING_SECONDS, "status": "active",
        });
        let known = known.iter().find(|campaign| campaign.name == sample.name);
        let id = if let Some(campaign) = known {
            let path = format!("/api/seller/campaigns/{}", campaign.id);
            seller.change(&path, &as_planned).await?;
            campaign.id
        } else {
            seller.create::<Campaign>("/api/seller/campaigns", &as_planned).await?.id
        };
        let path = format!("/api/seller/campaigns/{id}");
        seller.change(&format!("{path}/dids"), &json!({ "didIds": [did] })).await?;
        renew_links(seller, &path, sample.links, clients).await?;
        ids.push(id);
    }
    Ok(ids)
}

async fn renew_links(
    seller: &Session,
    campaign: &str,
    links: &[LinkSample],
    clients: &[ClientId],
) -> Result<(), ApiError> {
    let old: CampaignDetail = seller.get(campaign).await?;
    for link in old.client_settings {
        seller.delete(&format!("{campaign}/clients/{}", link.id)).await?;
    }
    for link in links {
        let new = json!({
            "clientId": clients[link.client], "maxConcurrency": link.max_concurrency,
            "forwardingPriority": link.priority, "weight": link.weight,
            "totalCallsAllowed": link.total,
        });
        seller.create::<Link>(&format!("{campaign}/clients"), &new).await?;
    }
    Ok(())
}
