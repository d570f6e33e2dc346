use std::collections::BTreeSet;

use capconduit::api::{admin_document, seller_document};
use capconduit::clock;
use capconduit::store::configuration;
use sea_orm::DatabaseConnection;
use serde_json::{Value, json};

use crate::support::api::{PASSWORD, Person, TestApi, campaign, client, link};

/// What routing goes by: other instances have to hear of it.
const CONFIGURATION: &[&str] = &["user", "client", "did", "campaign", "link"];
/// Operations that write nothing although they have a body.
const QUESTIONS: &[&str] =
    &["/api/admin/routing/simulate", "/api/seller/routing/simulate", "/api/admin/routing/replay"];

/// Every write of both documents, as `PUT /api/admin/users/{id}`.
fn documented_writes() -> BTreeSet<String> {
    let mut writes = BTreeSet::new();
    for document in [admin_document(), seller_document()] {
        let mut path = "";
        for line in document.lines() {
            if let Some(rest) = line.strip_prefix("  /") {
                path = &line[2..=2 + rest.trim_end_matches(':').len()];
            }
            for method in ["post", "put", "delete", "patch"] {
                if line == format!("    {method}:") && !QUESTIONS.contains(&path) {
                    writes.insert(format!("{} {path}", method.to_uppercase()));
                }
            }
        }
    }
    writes
}

/// Does every write, and looks after each whether the log has it, once.
struct Walk {
    admin: Person,
    db: DatabaseConnection,
    /// What the log had last.
    last: i64,
    done: BTreeSet<String>,
}

impl Walk {
    /// Entries since the last look.
    async fn news(&mut self) -> Vec<Value> {
        let page = self.admin.get("/api/admin/audit?per_page=200").await.expect(200);
        let news: Vec<Value> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["id"].as_i64().unwrap() > self.last)
            .cloned()
            .collect();
        self.last = news.first().map_or(self.last, |entry| entry["id"].as_i64().unwrap());
        news
    }

    /// Does one write; its answer, and its entry.
    async fn step(
        &mut self,
        who: &Person,
        operation: &str,
        ids: &[&str],
        body: Value,
    ) -> (Value, Value) {
        let (method, template) = operation.split_once(' ').unwrap();
        let mut path = String::new();
        let mut ids_left = ids.iter();
        for part in template.split('/').skip(1) {
            let part = if part.starts_with('{') { ids_left.next().unwrap() } else { part };
            path = format!("{path}/{part}");
        }
        let revision = configuration::revision(&self.db).await.unwrap();
        let answer = match method {
            "POST" => who.post(&path, body).await,
            "PUT" => who.put(&path, body).await,
            _ => who.delete(&path).await,
        };
        assert!(answer.status < 300, "{operation}: {answer:?}");
        self.done.insert(operation.to_owned());
        let mut news = self.news().await;
        assert_eq!(news.len(), 1, "{operation}: {news:?}");
        let entry = news.remove(0);
        assert_eq!(entry["method"], method);
        assert_eq!(entry["path"], path);
        let is_configuration = CONFIGURATION.contains(&entry["resource"].as_str().unwrap());
        let changes = configuration::revision(&self.db).await.unwrap() - revision;
        assert_eq!(changes, i64::from(is_configuration), "{operation}: {entry}");
        assert_eq!(entry["address"], "127.0.0.1");
        if who.id != 0 {
            assert_eq!(entry["user"]["id"], who.id, "{operation}");
        }
        (answer.expect(answer.status), entry)
    }
}

fn text_of(value: &Value) -> String {
    value.as_i64().map_or_else(|| value.to_string(), |id| id.to_string())
}

#[tokio::test]
async fn every_documented_write_leaves_one_entry_without_secrets() {
    let api = TestApi::start().await;
    let (admin, joe) = (api.admin().await, api.seller("joe").await);
    let mut walk =
        Walk { admin: admin.clone(), db: api.backend.db.clone(), last: 0, done: BTreeSet::new() };
    walk.news().await;

    let login = json!({"username": "joe", "password": PASSWORD});
    let (_, entry) = walk.step(&api.nobody(), "POST /api/auth/login", &[], login).await;
    assert_eq!(entry["user"], json!({"id": joe.id, "username": "joe", "role": "user"}));
    let name = json!({"name": "script"});
    let (token, _) = walk.step(&joe, "POST /api/auth/tokens", &[], name).await;
    let secret = token["token"].as_str().unwrap();
    let token_id = text_of(&token["id"]);
    walk.step(&joe, "DELETE /api/auth/tokens/{id}", &[&token_id], Value::Null).await;
    let change = json!({"currentPassword": PASSWORD, "newPassword": "hidden-one"});
    let (_, entry) = walk.step(&joe, "PUT /api/auth/password", &[], change).await;
    assert_eq!(entry["after"], json!({"passwordChanged": true}));

    let user = json!({
        "username": "new", "email": "new@example.com", "password": "hidden-two", "role": "user",
    });
    let (user, entry) = walk.step(&admin, "POST /api/admin/users", &[], user).await;
    let mut kept = user.clone();
    kept.as_object_mut().unwrap().remove("caps");
    assert_eq!((&entry["before"], &entry["after"]), (&Value::Null, &kept));
    let user_id = text_of(&user["id"]);
    let path = "PUT /api/admin/users/{id}";
    let (_, entry) = walk.step(&admin, path, &[&user_id], json!({"fullName": "New"})).await;
    assert_eq!(entry["before"]["fullName"], Value::Null);
    assert_eq!(entry["after"]["fullName"], "New");
    assert_eq!((&entry["resource"], &entry["resourceId"]), (&json!("user"), &json!(user_id)));
    let path = "PUT /api/admin/users/{id}/password";
    walk.step(&admin, path, &[&user_id], json!({"password": "hidden-three"})).await;
    let path = "DELETE /api/admin/users/{id}";
    let (_, entry) = walk.step(&admin, path, &[&user_id], Value::Null).await;
    assert_eq!((&entry["before"]["username"], &entry["after"]), (&json!("new"), &Value::Null));

    let (buyer, _) = walk.step(&admin, "POST /api/admin/clients", &[], client("acme")).await;
    let buyer_id = text_of(&buyer["id"]);
    let change = json!({"pjsip": {"auth": {"password": "hidden-four"}}});
    let (_, entry) = walk.step(&admin, "PUT /api/admin/clients/{id}", &[&buyer_id], change).await;
    assert_eq!(entry["after"]["passwordChanged"], true);

    let number = json!({"number": "+442071838750"});
    let (did, _) = walk.step(&joe, "POST /api/seller/dids", &[], number).await;
    let did_id = text_of(&did["id"]);
    let change = json!({"description": "main"});
    walk.step(&joe, "PUT /api/seller/dids/{id}", &[&did_id], change).await;
    let (solar, _) = walk.step(&joe, "POST /api/seller/campaigns", &[], campaign("Solar")).await;
    let solar_id = text_of(&solar["id"]);
    let change = json!({"name": "Wind"});
    walk.step(&joe, "PUT /api/seller/campaigns/{id}", &[&solar_id], change).await;
    let set = json!({"didIds": [did["id"]]});
    let path = "PUT /api/seller/campaigns/{id}/dids";
    let (_, entry) = walk.step(&joe, path, &[&solar_id], set.clone()).await;
    assert_eq!((&entry["before"], &entry["after"]), (&json!({"didIds": []}), &set));
    let new = link(buyer["id"].as_i64().unwrap());
    let path = "POST /api/seller/campaigns/{id}/clients";
    let (new, _) = walk.step(&joe, path, &[&solar_id], new).await;
    let ids = [solar_id.as_str(), &text_of(&new["id"])];
    let change = json!({"dailyCap": 7});
    let path = "PUT /api/seller/campaigns/{id}/clients/{settingId}";
    let (_, entry) = walk.step(&joe, path, &ids, change).await;
    assert_eq!(entry["before"]["dailyCap"], Value::Null);
    assert_eq!(entry["after"]["dailyCap"], 7);
    let path = "DELETE /api/seller/campaigns/{id}/clients/{settingId}";
    walk.step(&joe, path, &ids, Value::Null).await;
    walk.step(&joe, "DELETE /api/seller/campaigns/{id}", &[&solar_id], Value::Null).await;
    walk.step(&joe, "DELETE /api/seller/dids/{id}", &[&did_id], Value::Null).await;
    walk.step(&admin, "DELETE /api/admin/clients/{id}", &[&buyer_id], Value::Null).await;

    let call = clock::new_call_id();
    api.switch.live.lock().push(call);
    let path = "DELETE /api/admin/live/{callId}";
    walk.step(&admin, path, &[&call.to_string()], Value::Null).await;
    walk.step(&joe, "POST /api/auth/logout", &[], json!({})).await;

    let report = json!({
        "incomingDidNumber": "+442071838750", "timestampStart": clock::now().to_rfc3339(),
        "callStatus": "BUSY", "asteriskUniqueid": "1.1",
    });
    let path = "POST /api/internal/log_call";
    let (_, entry) = walk.step(&api.dialplan(), path, &[], report).await;
    assert_eq!((&entry["user"], &entry["resource"]), (&Value::Null, &json!("callLog")));

    let path = "POST /api/internal/caps/verify";
    let (_, entry) = walk.step(&api.dialplan(), path, &[], json!({"repair": true})).await;
    assert_eq!(entry["after"]["differences"], json!([]));
    api.dialplan().post("/api/internal/caps/verify", json!({})).await.expect(200);

    assert_eq!(walk.done, documented_writes());
    let whole = admin.get("/api/admin/audit?per_page=200").await.text;
    for hidden in [secret, PASSWORD, "s3cret", "hidden-", "argon2", "Hash"] {
        assert!(!whole.contains(hidden), "{hidden} is in the audit log");
    }
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_no_entry() {
    let api = TestApi::start().await;
    let (admin, joe) = (api.admin().await, api.seller("joe").await);
    let mut walk =
        Walk { admin: admin.clone(), db: api.backend.db.clone(), last: 0, done: BTreeSet::new() };
    walk.news().await;
    let number = json!({"number": "+442071838750"});
    joe.post("/api/seller/dids", number.clone()).await.expect(201);
    assert_eq!(walk.news().await.len(), 1);
    joe.post("/api/seller/dids", number).await.expect(409);
    admin.delete(&format!("/api/admin/users/{}", joe.id)).await.expect(409);
    admin.delete(&format!("/api/admin/live/{}", clock::new_call_id())).await.expect(404);
    joe.delete("/api/auth/tokens/99").await.expect(404);
    joe.post("/api/seller/routing/simulate", json!({"did": "+442071838750"})).await.expect(200);
    assert_eq!(walk.news().await, Vec::<Value>::new());
}

#[tokio::test]
async fn admins_find_entries_by_account_path_and_day_and_nobody_else_does() {
    let api = TestApi::start().await;
    let (admin, staff, joe) = (api.admin().await, api.staff().await, api.seller("joe").await);
    joe.post("/api/seller/dids", json!({"number": "+442071838750"})).await.expect(201);
    let total = async |query: &str| {
        let page = admin.get(&format!("/api/admin/audit{query}")).await.expect(200);
        page["total"].as_i64().unwrap()
    };
    assert_eq!(total("").await, 4);
    assert_eq!(total(&format!("?user_id={}", joe.id)).await, 2);
    assert_eq!(total("?path=/api/seller/").await, 1);
    // Nothing but itself is meant by a sign that databases read as another.
    assert_eq!(total("?path=%25").await, 0);
    assert_eq!(total("?path=/api/seller_").await, 0);
    let today = clock::now().format("%Y-%m-%d");
    assert_eq!(total(&format!("?start_date={today}")).await, 4);
    assert_eq!(total("?end_date=2020-01-01").await, 0);
    let refused = admin.get("/api/admin/audit?user_id=x&start_date=y&page=0").await;
    assert_eq!(refused.refused_fields(400), ["page", "start_date", "user_id"]);
    for other in [&staff, &joe] {
        other.get("/api/admin/audit").await.expect(403);
    }
    api.nobody().get("/api/admin/audit").await.expect(401);
}
