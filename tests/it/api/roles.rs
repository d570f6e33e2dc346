//! Who may do what: every operation of both documents, tried by everyone.
//!
//! An operation that is in a document and not in the [`TABLE`], or the other
//! way round, fails the test.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use capconduit::api::{admin_document, seller_document};
use capconduit::clock;
use capconduit_entity::{CallStatus, Role, UserStatus, user};
use reqwest::Method;
use sea_orm::{ActiveModelTrait, Set};
use serde_json::{Value, json};

use super::logs::log;
use crate::support::api::{PASSWORD, Person, TestApi, campaign, client, id, link};

/// `seller` owns what the path names, where a seller can; `another` is a seller too.
/// `inactive` was deactivated and still has a token, `revoked` has sent a token that was
/// deleted (both are tried as a seller and as an admin), `internal` has the internal token alone.
const TABLE: &str = "
                                                       nobody seller another staff admin inactive revoked internal
GET    /health                                         200    200    200     200   200   200      200     200
GET    /ready                                          200    200    200     200   200   200      200     200

POST   /api/auth/login                                 401    200    200     200   200   401      200     401
POST   /api/auth/logout                                401    200    200     200   200   401      401     401
GET    /api/auth/status                                401    200    200     200   200   401      401     401
PUT    /api/auth/password                              401    200    200     200   200   401      401     401
GET    /api/auth/tokens                                401    200    200     200   200   401      401     401
POST   /api/auth/tokens                                401    201    201     201   201   401      401     401
DELETE /api/auth/tokens/{id}                           401    204    404     404   404   401      401     401

GET    /api/admin/users                                401    403    403     200   200   401      401     401
POST   /api/admin/users                                401    403    403     201   201   401      401     401
GET    /api/admin/users/{id}                           401    403    403     200   200   401      401     401
PUT    /api/admin/users/{id}                           401    403    403     200   200   401      401     401
DELETE /api/admin/users/{id}                           401    403    403     204   204   401      401     401
PUT    /api/admin/users/{id}/password                  401    403    403     200   200   401      401     401
GET    /api/admin/clients                              401    403    403     200   200   401      401     401
POST   /api/admin/clients                              401    403    403     201   201   401      401     401
GET    /api/admin/clients/{id}                         401    403    403     200   200   401      401     401
PUT    /api/admin/clients/{id}                         401    403    403     200   200   401      401     401
DELETE /api/admin/clients/{id}                         401    403    403     204   204   401      401     401
GET    /api/admin/caps/{scope}/{id}/ledger             401    403    403     200   200   401      401     401
GET    /api/admin/caps                                 401    403    403     200   200   401      401     401
GET    /api/admin/traffic                              401    403    403     200   200   401      401     401
GET    /api/admin/logs                                 401    403    403     200   200   401      401     401
GET    /api/admin/logs/{id}                            401    403    403     200   200   401      401     401
GET    /api/admin/live                                 401    403    403     200   200   401      401     401
GET    /api/admin/live/events                          401    403    403     200   200   401      401     401
DELETE /api/admin/live/{callId}                        401    403    403     204   204   401      401     401
GET    /api/admin/audit                                401    403    403     403   200   401      401     401
POST   /api/admin/routing/simulate                     401    403    403     200   200   401      401     401
POST   /api/admin/routing/replay                       401    403    403     200   200   401      401     401

GET    /api/seller/dids                                401    200    200     403   403   401      401     401
POST   /api/seller/dids                                401    201    201     403   403   401      401     401
GET    /api/seller/dids/{id}                           401    200    404     403   403   401      401     401
PUT    /api/seller/dids/{id}                           401    200    404     403   403   401      401     401
DELETE /api/seller/dids/{id}                           401    204    404     403   403   401      401     401
GET    /api/seller/campaigns                           401    200    200     403   403   401      401     401
POST   /api/seller/campaigns                           401    201    201     403   403   401      401     401
GET    /api/seller/campaigns/available_clients         401    200    200     403   403   401      401     401
GET    /api/seller/campaigns/{id}                      401    200    404     403   403   401      401     401
PUT    /api/seller/campaigns/{id}                      401    200    404     403   403   401      401     401
DELETE /api/seller/campaigns/{id}                      401    204    404     403   403   401      401     401
PUT    /api/seller/campaigns/{id}/dids                 401    200    404     403   403   401      401     401
POST   /api/seller/campaigns/{id}/clients              401    201    404     403   403   401      401     401
PUT    /api/seller/campaigns/{id}/clients/{settingId}  401    200    404     403   403   401      401     401
DELETE /api/seller/campaigns/{id}/clients/{settingId}  401    204    404     403   403   401      401     401
GET    /api/seller/caps                                401    200    200     403   403   401      401     401
GET    /api/seller/traffic                             401    200    200     403   403   401      401     401
GET    /api/seller/logs                                401    200    200     403   403   401      401     401
GET    /api/seller/logs/{id}                           401    200    404     403   403   401      401     401
GET    /api/seller/live                                401    200    200     403   403   401      401     401
GET    /api/seller/live/events                         401    200    200     403   403   401      401     401
POST   /api/seller/routing/simulate                    401    200    404     403   403   401      401     401

GET    /api/internal/route_info                        401    401    401     401   401   401      401     404
POST   /api/internal/log_call                          401    401    401     401   401   401      401     201
POST   /api/internal/caps/verify                       401    401    401     401   401   401      401     200
";

/// What a request to this operation sends, where it sends something.
fn body(operation: &str, things: &Things, asker: &Person) -> Option<Value> {
    let fresh = &things.fresh;
    Some(match operation {
        // Whoever has no account of their own tries that of nobody.
        "POST /api/auth/login" => json!({"username": asker.name, "password": PASSWORD}),
        "POST /api/auth/logout" => json!({}),
        "PUT /api/auth/password" => json!({"currentPassword": PASSWORD, "newPassword": PASSWORD}),
        "POST /api/auth/tokens" => json!({"name": "another"}),
        "POST /api/admin/users" => json!({
            "username": fresh, "email": format!("{fresh}@example.org"),
            "password": "a long password", "role": "user",
        }),
        "PUT /api/admin/users/{id}" => json!({"fullName": "Somebody Else"}),
        "PUT /api/admin/users/{id}/password" => json!({"password": "a new password"}),
        "POST /api/admin/clients" => client(fresh),
        "PUT /api/admin/clients/{id}" => json!({"name": "Another name"}),
        "POST /api/admin/routing/simulate" | "POST /api/seller/routing/simulate" => {
            json!({"did": things.did_number})
        }
        "POST /api/admin/routing/replay" => json!({
            "from": "2026-11-22T00:00:00Z", "to": "2026-11-23T00:00:00Z",
            "patch": {"links": [{"id": things.link, "weight": 5}]},
        }),
        "POST /api/internal/log_call" => json!({
            "incomingDidNumber": things.did_number, "timestampStart": "2026-11-22T10:00:00Z",
            "callStatus": "BUSY", "asteriskUniqueid": fresh,
        }),
        "POST /api/internal/caps/verify" => json!({}),
        "POST /api/seller/dids" => json!({"number": things.number}),
        "PUT /api/seller/dids/{id}" => json!({"description": "Another description"}),
        "POST /api/seller/campaigns" => campaign(fresh),
        "PUT /api/seller/campaigns/{id}" => json!({"name": "Another name"}),
        "PUT /api/seller/campaigns/{id}/dids" => json!({"didIds": []}),
        "POST /api/seller/campaigns/{id}/clients" => link(things.unlinked_client),
        "PUT /api/seller/campaigns/{id}/clients/{settingId}" => json!({"weight": 3}),
        _ => return None,
    })
}

/// The path with the ids of what it names.
fn located(path: &str, things: &Things) -> String {
    let ids: &[(&str, String)] = &[
        ("caps/{scope}/{id}", format!("caps/link/{}", things.link)),
        ("tokens/{id}", format!("tokens/{}", things.token)),
        ("users/{id}", format!("users/{}", things.account)),
        ("admin/clients/{id}", format!("admin/clients/{}", things.unlinked_client)),
        ("dids/{id}", format!("dids/{}", things.did)),
        ("campaigns/{id}", format!("campaigns/{}", things.campaign)),
        ("{settingId}", things.link.to_string()),
        ("logs/{id}", format!("logs/{}", things.log)),
        ("{callId}", things.call.clone()),
        // No campaign answers it, so the answer is a well-formed refusal.
        ("route_info", format!("route_info?did=%2B{}", &things.did_number[1..])),
    ];
    let path = ids.iter().fold(path.to_owned(), |path, (part, found)| path.replace(part, found));
    assert!(!path.contains('{'), "the test knows no id for {path}");
    path
}

const COLUMNS: [&str; 8] =
    ["nobody", "seller", "another", "staff", "admin", "inactive", "revoked", "internal"];

/// One of each, for requests until one of them is used up.
struct Things {
    /// A name and a number that nothing has yet.
    fresh: String,
    number: String,
    token: i64,
    /// A seller who owns nothing.
    account: i64,
    unlinked_client: i64,
    did: i64,
    did_number: String,
    campaign: i64,
    link: i64,
    log: i64,
    call: String,
}

struct World {
    api: TestApi,
    staff: Person,
    /// Owns the things.
    seller: Person,
    count: AtomicU32,
}

impl World {
    async fn create() -> Self {
        let api = TestApi::start().await;
        let staff = api.script("operator", Role::Staff).await;
        let seller = api.script("owner", Role::User).await;
        Self { api, staff, seller, count: AtomicU32::new(0) }
    }

    /// A name that nothing has yet.
    fn name(&self) -> String {
        format!("n{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn number(&self) -> String {
        format!("+4420{:08}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    async fn things(&self) -> Things {
        let (staff, seller) = (&self.staff, &self.seller);
        let campaign = id(&seller.post("/api/seller/campaigns", campaign(&self.name())).await);
        let links = format!("/api/seller/campaigns/{campaign}/clients");
        let new_client = async || id(&staff.post("/api/admin/clients", client(&self.name())).await);
        let (linked_client, unlinked_client) = (new_client().await, new_client().await);
        let call = clock::new_call_id();
        let did_number = self.number();
        self.api.switch.live.lock().push(call);
        Things {
            fresh: self.name(),
            number: self.number(),
            token: id(&seller.post("/api/auth/tokens", json!({"name": "spare"})).await),
            account: self.api.account(&self.name(), Role::User).await,
            unlinked_client,
            did: id(&seller.post("/api/seller/dids", json!({"number": did_number})).await),
            did_number,
            campaign,
            link: id(&seller.post(&links, link(linked_client)).await),
            log: log(&self.api, seller.id, "2026-11-22T10:00:00Z", CallStatus::Busy).await,
            call: call.to_string(),
        }
    }

    /// Everyone who stands in a column.
    async fn askers(&self, column: &str) -> Vec<Person> {
        let script = async |role| self.api.script(&self.name(), role).await;
        match column {
            "nobody" => vec![self.api.nobody()],
            "seller" => vec![self.seller.clone()],
            "another" => vec![script(Role::User).await],
            "staff" => vec![script(Role::Staff).await],
            "admin" => vec![script(Role::Admin).await],
            "inactive" => {
                let people = vec![script(Role::User).await, script(Role::Admin).await];
                for person in &people {
                    self.deactivate(person).await;
                }
                people
            }
            "revoked" => {
                let people = vec![script(Role::User).await, script(Role::Admin).await];
                for person in &people {
                    let tokens = person.get("/api/auth/tokens").await.expect(200);
                    let own = format!("/api/auth/tokens/{}", tokens["items"][0]["id"]);
                    person.delete(&own).await.expect(204);
                }
                people
            }
            "internal" => vec![self.api.dialplan()],
            _ => panic!("nobody stands in the column {column}"),
        }
    }

    /// Behind the API's back, so that the token stays.
    async fn deactivate(&self, person: &Person) {
        let row = user::ActiveModel {
            id: Set(person.id),
            status: Set(UserStatus::Inactive),
            ..Default::default()
        };
        row.update(&self.api.backend.db).await.unwrap();
    }
}

/// Operations with the status that each column gets.
fn table() -> Vec<(String, Vec<u16>)> {
    let mut lines = TABLE.lines().filter(|line| !line.trim().is_empty());
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, COLUMNS);
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let statuses: Vec<u16> = words[2..].iter().map(|word| word.parse().unwrap()).collect();
        assert_eq!(statuses.len(), COLUMNS.len(), "{line}");
        (format!("{} {}", words[0], words[1]), statuses)
    };
    lines.map(row).collect()
}

/// The operations of a document, as `GET /path`.
fn operations(document: &str) -> BTreeSet<String> {
    let document: Value = serde_yaml::from_str(document).unwrap();
    let of_path = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    document["paths"].as_object().unwrap().iter().flat_map(of_path).collect()
}

#[test]
fn the_table_has_every_operation_of_both_documents() {
    let expected: BTreeSet<String> = table().into_iter().map(|(operation, _)| operation).collect();
    let documented = &operations(&admin_document()) | &operations(&seller_document());
    let unexpected: Vec<_> = documented.difference(&expected).collect();
    assert!(unexpected.is_empty(), "say in the table who may do these: {unexpected:#?}");
    let gone: Vec<_> = expected.difference(&documented).collect();
    assert!(gone.is_empty(), "these are in no document: {gone:#?}");
}

#[tokio::test]
async fn everyone_may_do_what_the_table_says_and_nothing_else() {
    let mut world = World::create().await;
    let mut things = world.things().await;
    let mut wrong = Vec::new();
    for (operation, statuses) in table() {
        let (method, path) = operation.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        for (column, expected) in COLUMNS.iter().zip(statuses) {
            for asker in world.askers(column).await {
                let body = body(&operation, &things, &asker);
                let found = asker.status(&method, &located(path, &things), body).await;
                let signed_out = found < 300 && operation == "PUT /api/auth/password";
                if signed_out && *column == "seller" {
                    world.seller = world.api.script(&world.name(), Role::User).await;
                }
                if signed_out || found < 300 && matches!(method, Method::POST | Method::DELETE) {
                    things = world.things().await;
                }
                if found != expected {
                    wrong.push(format!("{operation} by {column}: {found}, not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
