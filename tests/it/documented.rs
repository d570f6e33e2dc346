//! Nothing that the API answers is missing in its documents, and no answer is
//! an error of ours: Schemathesis tries both documents against the running
//! product. Its settings and what it can't know are in `tests/schemathesis`.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::callers::call;
use crate::support::clients::{Manner, Phones};
use crate::support::seller::{PASSWORD, Seller};
use crate::support::service::{Service, tools};
use crate::support::wait::seconds;
use crate::support::web::Web;

const NUMBER: &str = "+442071838750";

/// Schemathesis reads an answer to its end, and these have none: what they
/// answer is tried in `api/follow.rs`, held against the document there too.
const ENDLESS: [&str; 2] = ["followLiveCalls", "followMyLiveCalls"];

/// What there is to be asked for: one of each, and a call that was answered.
struct World {
    service: Service,
    seller: Seller,
    campaign: i64,
    link: i64,
    linked_client: i64,
    unlinked_client: i64,
    log: i64,
    _phones: Phones,
}

impl World {
    async fn create() -> Self {
        let service = Service::start().await;
        let phones = Phones::start(&service, Manner::answers_after(10)).await;
        let linked_client = service.client(&phones.contact()).await;
        let unlinked_client = service.client(&phones.contact()).await;
        let seller = service.seller().await;
        let campaign = seller.campaign(&service, NUMBER, "priority", 20).await;
        let link = campaign.link(linked_client, json!({})).await;
        call(NUMBER, 10).start(&service).finish(seconds(20)).await;
        let log = service.only_log().await["id"].as_i64().unwrap();
        let campaign = campaign.id;
        Self {
            service,
            seller,
            campaign,
            link,
            linked_client,
            unlinked_client,
            log,
            _phones: phones,
        }
    }

    /// Tries a document as `who`; everything that is there is told to the hooks.
    async fn try_document(&self, name: &str, who: &Web, mut known: Value) {
        known["spared"]["/api/auth/tokens/{id}"]["id"] =
            who.get("/api/auth/tokens").await["items"][0]["id"].clone();
        let user = &who.get("/api/auth/status").await["user"];
        let password = if user["role"] == "admin" {
            self.service.secret("admin-password")
        } else {
            PASSWORD.to_owned()
        };
        known["bodies"]["login"] = json!({"username": user["username"], "password": password});

        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(tools().join("python/bin/schemathesis"));
        command
            .current_dir(root.join("tests/schemathesis"))
            .args(["--config-file", "schemathesis.toml", "run", "--no-color"])
            .args(["--url", &format!("http://127.0.0.1:{}", self.service.http_port)])
            .args(ENDLESS.iter().flat_map(|name| ["--exclude-operation-id", name]))
            .arg(root.join("openapi").join(name).with_extension("yaml"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HYPOTHESIS_STORAGE_DIRECTORY", self.service.file("hypothesis"))
            .env("CAPCONDUIT_KNOWN", known.to_string())
            .env("CAPCONDUIT_TOKEN", who.token())
            .env("CAPCONDUIT_INTERNAL_TOKEN", self.service.secret("internal-token"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ran = timeout(seconds(600), command.output()).await.expect("an end within time");
        let ran = ran.expect("Schemathesis: run scripts/fetch-api-tools");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
        // Whoever signed in at the start still is: nothing above was tried in vain.
        who.get("/api/auth/status").await;
    }
}

#[tokio::test]
async fn admins_get_no_answer_that_is_not_documented() {
    let world = World::create().await;
    let (client, seller) = (world.linked_client, world.seller.id);
    let admin = world.service.admin();
    let own = json!({"id": admin.get("/api/auth/status").await["user"]["id"]});
    let known = json!({
        "there": {
            "/api/admin/users/{id}": {"id": seller},
            "/api/admin/clients/{id}": {"id": client},
            "/api/admin/logs/{id}": {"id": world.log},
        },
        "queries": {"getRouteInfo": {"did": NUMBER}},
        "spared": {"/api/admin/users/{id}": own, "/api/admin/users/{id}/password": own},
        "bodies": {"simulateCall": {"did": NUMBER}},
    });
    world.try_document("admin", admin, known).await;
    // Nor does the API accept a value for which Asterisk drops the whole object.
    let log = std::fs::read_to_string(world.service.data().join("asterisk/log/messages.log"));
    let log = log.unwrap();
    let dropped: Vec<_> = log.lines().filter(|line| line.contains("config")).collect();
    assert!(!log.contains("Error parsing"), "{dropped:#?}");
}

#[tokio::test]
async fn sellers_get_no_answer_that_is_not_documented() {
    let world = World::create().await;
    let own = json!({"id": world.campaign});
    let known = json!({
        "there": {
            "/api/seller/campaigns/{id}": own,
            "/api/seller/campaigns/{id}/clients": own,
            "/api/seller/campaigns/{id}/clients/{settingId}":
                {"id": world.campaign, "settingId": world.link},
            "/api/seller/logs/{id}": {"id": world.log},
        },
        "spared": {
            "/api/seller/campaigns/{id}": own,
            "/api/seller/campaigns/{id}/clients/{settingId}": {"settingId": world.link},
        },
        "bodies": {
            "createLink": {"clientId": world.unlinked_client},
            "simulateMyCall": {"did": NUMBER},
        },
    });
    world.try_document("seller", &world.seller.web, known).await;
}
