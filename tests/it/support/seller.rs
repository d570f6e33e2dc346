//! What a seller sets up: DIDs, campaigns, links; and the clients that an admin adds.

use serde_json::{Value, json};

use super::service::{Service, items};
use super::web::Web;

/// Every seller's password.
pub const PASSWORD: &str = "a seller's password";

pub struct Seller {
    pub id: i64,
    pub web: Web,
}

#[derive(Clone)]
pub struct Campaign {
    pub id: i64,
    web: Web,
}

/// A link as the API shows it.
#[derive(Debug)]
pub struct Link(pub Value);

impl Seller {
    pub async fn create(service: &Service, name: &str) -> Self {
        let user = json!({
            "username": name,
            "email": format!("{name}@example.com"),
            "password": PASSWORD,
            "role": "user",
        });
        let user = service.admin().post("/api/admin/users", user).await;
        let web = Web::sign_in(service.http_port, name, PASSWORD).await;
        Self { id: id(&user), web }
    }

    pub async fn did(&self, number: &str) -> i64 {
        id(&self.web.post("/api/seller/dids", json!({"number": number})).await)
    }

    /// An active campaign that answers `number`, a new DID.
    pub async fn campaign(
        &self,
        service: &Service,
        number: &str,
        strategy: &str,
        dial_timeout_seconds: u32,
    ) -> Campaign {
        let campaign = json!({
            "name": format!("for {number}"),
            "routingStrategy": strategy,
            "dialTimeoutSeconds": dial_timeout_seconds,
            "status": "active",
        });
        let campaign = self.web.post("/api/seller/campaigns", campaign).await;
        let campaign = Campaign { id: id(&campaign), web: self.web.clone() };
        let did = self.did(number).await;
        let path = format!("/api/seller/campaigns/{}/dids", campaign.id);
        self.web.put(&path, json!({"didIds": [did]})).await;
        service.watch_over(campaign.clone());
        campaign
    }
}

impl Campaign {
    /// Links a client, with `settings` in place of the defaults. The link's id.
    pub async fn link(&self, client: i64, settings: Value) -> i64 {
        let mut link = json!({
            "clientId": client, "maxConcurrency": 100, "forwardingPriority": 1, "weight": 1,
        });
        for (name, value) in settings.as_object().expect("an object of settings") {
            link[name] = value.clone();
        }
        id(&self.web.post(&format!("/api/seller/campaigns/{}/clients", self.id), link).await)
    }

    pub async fn change(&self, change: Value) {
        self.web.put(&format!("/api/seller/campaigns/{}", self.id), change).await;
    }

    pub async fn change_link(&self, link: i64, change: Value) {
        self.web.put(&format!("/api/seller/campaigns/{}/clients/{link}", self.id), change).await;
    }

    pub async fn links(&self) -> Vec<Link> {
        let campaign = self.web.get(&format!("/api/seller/campaigns/{}", self.id)).await;
        items(&campaign["clientSettings"]).iter().cloned().map(Link).collect()
    }
}

impl Link {
    pub fn live(&self) -> u64 {
        count(&self.0["liveCalls"])
    }

    pub fn total(&self) -> u64 {
        count(&self.0["currentTotalCalls"])
    }

    /// `used + held` under the cap of this name.
    pub fn taken(&self, window: &str) -> u64 {
        let caps = self.0["caps"].as_array().expect("a list of caps");
        let cap = caps.iter().find(|cap| cap["window"] == window).expect("a cap of this name");
        count(&cap["used"]) + count(&cap["held"])
    }

    pub fn is_idle(&self) -> bool {
        let caps = self.0["caps"].as_array().expect("a list of caps");
        self.live() == 0 && caps.iter().all(|cap| cap["held"] == 0)
    }
}

impl Service {
    /// A new client that is to be found at `contact`.
    pub async fn client(&self, contact: &str) -> i64 {
        self.qualified_client(contact, 0).await.0
    }

    /// A new client that Asterisk asks every so many seconds whether it is
    /// there, and the name of its endpoint.
    pub async fn qualified_client(&self, contact: &str, every_seconds: u32) -> (i64, String) {
        let name = self.name("client");
        let client = json!({
            "clientIdentifier": name,
            "name": format!("The client {name}"),
            "pjsip": {
                "endpoint": {"id": name, "aors": name, "context": "nowhere"},
                "aor": {"id": name, "contact": contact, "qualifyFrequency": every_seconds},
            },
        });
        (id(&self.admin().post("/api/admin/clients", client).await), name)
    }
}

pub fn id(object: &Value) -> i64 {
    object["id"].as_i64().unwrap_or_else(|| panic!("no id: {object}"))
}

pub fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a count: {value}"))
}
