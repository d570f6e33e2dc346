//! A seller can't see another seller's calls: every operation of the sellers' document that
//! reads, with every parameter that it has, set to what is another's.
//!
//! A parameter of which [`World::values`] knows nothing fails the test, and so does an
//! operation in which not even its owner sees anything.

use capconduit::api::{StreamSettings, seller_document};
use capconduit::ids::{CampaignId, ClientId, DidId, LinkId};
use capconduit::live::{LiveCall, LiveClient, LiveState};
use capconduit_entity::{CallStatus, call_log};
use sea_orm::{ActiveModelTrait, Set};
use serde_json::{Value, json};

use super::live::call;
use super::logs::log;
use crate::support::api::{Person, TestApi, campaign, client, id, link};
use crate::support::wait::ms;

const LIST: &str = "/api/seller/logs";
const STREAM: &str = "/api/seller/live/events";
/// Tells of clients, which belong to no seller.
const OF_NOBODY: &str = "/api/seller/campaigns/available_clients";

/// What a seller has, each with a name of its own.
struct Sold {
    seller: Person,
    did: i64,
    number: String,
    campaign: i64,
    /// Linked by this seller alone.
    client: i64,
    link: i64,
    logs: Vec<i64>,
    live: LiveCall,
    /// Where the list of the seller's logs goes on.
    cursor: String,
    /// The newest event of the seller's stream.
    position: String,
    /// What nobody else may read.
    words: Vec<String>,
}

struct World {
    api: TestApi,
    shared_client: i64,
    /// Looks.
    eve: Sold,
    /// Is looked for.
    joe: Sold,
}

impl Sold {
    async fn create(api: &TestApi, staff: &Person, name: &str, digit: u8, shared: i64) -> Self {
        let seller = api.seller(name).await;
        let number = format!("+44207183875{digit}");
        let did = id(&seller.post("/api/seller/dids", json!({"number": number})).await);
        let called = format!("Solar of {name}");
        let mut wanted = campaign(&called);
        wanted["status"] = json!("active");
        let campaign = id(&seller.post("/api/seller/campaigns", wanted).await);
        let path = format!("/api/seller/campaigns/{campaign}");
        seller.put(&format!("{path}/dids"), json!({"didIds": [did]})).await.expect(200);
        let identifier = format!("client-of-{name}");
        let client = id(&staff.post("/api/admin/clients", client(&identifier)).await);
        let links = format!("{path}/clients");
        let link_to = async |client| id(&seller.post(&links, link(client)).await);
        let (own_link, _) = (link_to(client).await, link_to(shared).await);
        let live = LiveCall {
            dialled: number.clone(),
            caller_number: Some(format!("+44113496000{digit}")),
            did: Some(DidId(did)),
            campaign: Some((CampaignId(campaign), called.clone())),
            client: Some(LiveClient {
                link: LinkId(own_link),
                id: ClientId(client),
                name: identifier.clone(),
                identifier,
            }),
            ..call(seller.id)
        };
        let mut sold = Self {
            words: vec![
                number.clone(),
                called,
                format!("+44113496000{digit}"),
                format!("uniqueid-of-{name}"),
                live.call.to_string(),
            ],
            did,
            number,
            campaign,
            client,
            link: own_link,
            logs: Vec::new(),
            live,
            cursor: String::new(),
            position: String::new(),
            seller,
        };
        for status in [CallStatus::Busy, CallStatus::Answered, CallStatus::Busy] {
            sold.record(api, name, status).await;
        }
        let first = sold.seller.get(&format!("{LIST}?per_page=1")).await.expect(200);
        sold.cursor = first["nextCursor"].as_str().unwrap().to_owned();
        api.backend.live.put(sold.live.clone());
        sold.position = sold.seller.follow(STREAM).await.news().await.id;
        sold
    }

    async fn record(&mut self, api: &TestApi, name: &str, status: CallStatus) {
        let start = capconduit::clock::now() - chrono::TimeDelta::minutes(5);
        let id = log(api, self.seller.id, &start.to_rfc3339(), status).await;
        let row = call_log::ActiveModel {
            id: Set(id),
            campaign_id: Set(Some(self.campaign)),
            campaign_name: Set(Some(format!("Solar of {name}"))),
            did_id: Set(Some(self.did)),
            incoming_did_number: Set(self.number.clone()),
            caller_id_num: Set(self.live.caller_number.clone()),
            client_id: Set(Some(self.client)),
            campaign_client_setting_id: Set(Some(self.link)),
            asterisk_uniqueid: Set(format!("uniqueid-of-{name}")),
            trace: Set(json!({})),
            ..Default::default()
        };
        let row = row.update(&api.backend.db).await.unwrap();
        self.logs.push(id);
        self.words.push(row.call_id.to_string());
    }

    /// Whether this tells of what is this seller's.
    fn is_told_by(&self, text: &str) -> bool {
        if self.words.iter().any(|word| text.contains(word)) {
            return true;
        }
        serde_json::from_str(text).is_ok_and(|value| self.is_named_in("", &value))
    }

    /// The same by ids, which are numbers that may be anything elsewhere.
    fn is_named_in(&self, name: &str, value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|item| self.is_named_in(name, item)),
            Value::Object(fields) => fields.iter().any(|(field, value)| {
                let name = if field == "id" { name } else { field };
                self.is_named_in(name, value)
            }),
            Value::Number(number) => match name {
                "user" | "userId" => number.as_i64() == Some(self.seller.id),
                "did" | "didId" => number.as_i64() == Some(self.did),
                "campaign" | "campaignId" => number.as_i64() == Some(self.campaign),
                "client" | "clientId" => number.as_i64() == Some(self.client),
                "campaignClientSettingId" | "linkId" => number.as_i64() == Some(self.link),
                _ => false,
            },
            _ => false,
        }
    }

    /// What happens to a call of theirs from its beginning to its end.
    fn live_through(&self, api: &TestApi) {
        for state in [LiveState::Routing, LiveState::Talking] {
            api.backend.live.put(LiveCall { state, ..self.live.clone() });
        }
        api.backend.live.remove(self.live.call);
        api.backend.live.put(self.live.clone());
    }
}

impl World {
    async fn create() -> Self {
        let quick = StreamSettings { heartbeat: ms(100), per_user: 400, in_all: 400 };
        let api = TestApi::with_streams(quick).await;
        let staff = api.staff().await;
        let shared_client = id(&staff.post("/api/admin/clients", client("shared")).await);
        let eve = Sold::create(&api, &staff, "eve", 1, shared_client).await;
        let joe = Sold::create(&api, &staff, "joe", 2, shared_client).await;
        Self { api, shared_client, eve, joe }
    }

    /// What a parameter is set to: Joe's, and what lets as much through as can be.
    fn values(&self, parameter: &str) -> Vec<String> {
        let Self { joe, eve, .. } = self;
        let both = |of: fn(&Sold) -> i64| vec![of(joe).to_string(), of(eve).to_string()];
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        match parameter {
            "campaign_id" => both(|sold| sold.campaign),
            "did_id" => both(|sold| sold.did),
            "client_id" => {
                vec![joe.client.to_string(), eve.client.to_string(), self.shared_client.to_string()]
            }
            "cursor" => vec![joe.cursor.clone(), eve.cursor.clone()],
            "Last-Event-ID" => {
                // The first of this run, too: everything that happened comes after it.
                vec![joe.position.clone(), eve.position.clone(), format!("{:016x}-0", 7)]
            }
            "call_status" => texts(&["BUSY", "ANSWERED"]),
            "start_date" => texts(&["2020-01-01"]),
            "end_date" => texts(&["2100-01-01"]),
            "status" => texts(&["active"]),
            "page" => texts(&["1", "2"]),
            "per_page" => texts(&["1", "200"]),
            "format" => texts(&["json", "csv"]),
            "minutes" => texts(&["180"]),
            // In no seller's document; tried all the same.
            "user_id" => vec![joe.seller.id.to_string()],
            other => panic!("say in this test what of Joe's {other} may be set to"),
        }
    }

    /// Joe's, where a path names one.
    fn located(&self, path: &str) -> Vec<String> {
        let joe = &self.joe;
        let ids = match path {
            _ if !path.contains('{') => return vec![path.to_owned()],
            "/api/seller/dids/{id}" => vec![joe.did],
            "/api/seller/campaigns/{id}" => vec![joe.campaign],
            "/api/seller/logs/{id}" => joe.logs.clone(),
            other => panic!("say in this test which of Joe's {other} is"),
        };
        ids.into_iter().map(|id| path.replace("{id}", &id.to_string())).collect()
    }
}

/// Operations that read, with the names of their parameters.
fn readers() -> Vec<(String, Vec<String>)> {
    let document: Value = serde_yaml::from_str(&seller_document()).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let of_sellers = paths.filter(|(path, _)| path.starts_with("/api/seller/"));
    let reading = of_sellers.filter(|(_, methods)| methods["get"].is_object());
    reading
        .map(|(path, methods)| {
            let parameters = methods["get"]["parameters"].as_array().into_iter().flatten();
            let names = parameters.filter(|parameter| parameter["in"] != "path");
            let names = names.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            (path.clone(), names.chain(["user_id".to_owned()]).collect())
        })
        .collect()
}

/// Nothing, each of these alone, and each two of them.
fn combinations(settings: &[(String, String)]) -> Vec<Vec<&(String, String)>> {
    let mut all = vec![vec![]];
    for (index, one) in settings.iter().enumerate() {
        all.push(vec![one]);
        let others = settings[index + 1..].iter().filter(|other| other.0 != one.0);
        all.extend(others.map(|other| vec![one, other]));
    }
    all
}

#[tokio::test]
async fn no_parameter_of_no_operation_shows_what_is_another_sellers() {
    let world = World::create().await;
    let World { api, eve, joe, .. } = &world;
    let (mut asked, mut seen) = (0, Vec::new());
    for (path, parameters) in readers() {
        let mut settings = Vec::new();
        for name in &parameters {
            settings.extend(world.values(name).into_iter().map(|value| (name.clone(), value)));
        }
        for located in world.located(&path) {
            let is_joes = located != path;
            if path == STREAM {
                let own = joe.seller.follow(&path).await.news().await;
                assert!(joe.is_told_by(&own.data.to_string()), "not even to Joe: {path}");
            } else if path != OF_NOBODY && !path.ends_with("/traffic") {
                let own = joe.seller.get(&located).await;
                assert!(joe.is_told_by(&own.text), "not even to Joe: {located}: {}", own.text);
            }
            for set in combinations(&settings) {
                asked += 1;
                let (headers, queries): (Vec<_>, Vec<_>) =
                    set.iter().copied().partition(|(name, _)| name == "Last-Event-ID");
                let queries: Vec<_> =
                    queries.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let asker = match headers.first() {
                    Some((_, value)) => eve.seller.with("last-event-id", value.clone()),
                    None => eve.seller.clone(),
                };
                let path = format!("{located}?{}", queries.join("&"));
                let what = format!("{path} {headers:?}");
                if located == STREAM {
                    let mut events = asker.follow(&path).await;
                    joe.live_through(api);
                    loop {
                        let event = events.next().await.unwrap();
                        if joe.is_told_by(&event.data.to_string()) {
                            seen.push(format!("{what}: {event:?}"));
                        }
                        if event.name == "heartbeat" {
                            break;
                        }
                    }
                    continue;
                }
                let answer = asker.get(&path).await;
                if is_joes {
                    answer.expect(404);
                } else if answer.status != 400 {
                    assert_eq!(answer.status, 200, "{what}: {}", answer.text);
                }
                let is_seen = if located == OF_NOBODY {
                    joe.words.iter().any(|word| answer.text.contains(word))
                } else {
                    joe.is_told_by(&answer.text)
                };
                if is_seen {
                    seen.push(format!("{what}: {}", answer.text));
                }
            }
        }
    }
    assert!(seen.is_empty(), "{} of {asked} show Joe's: {:#?}", seen.len(), &seen[..1]);
    assert!(asked > 300, "only {asked} questions");
}

#[tokio::test]
async fn figures_count_no_call_of_another_seller() {
    let world = World::create().await;
    let World { eve, joe, .. } = &world;
    for sold in [eve, joe] {
        let traffic = sold.seller.get("/api/seller/traffic?minutes=180").await.expect(200);
        let minutes = traffic["minutes"].as_array().unwrap();
        let count = |of: &Value| of.as_u64().unwrap();
        let live: u64 = minutes.iter().map(|minute| count(&minute["live"])).sum();
        let ended = minutes.iter().flat_map(|minute| minute["ended"].as_array().unwrap());
        let ended: u64 = ended.map(|row| count(&row["calls"])).sum();
        assert_eq!((live, ended), (1, 3), "{}", sold.seller.name);
        assert_eq!(sold.seller.get(LIST).await.expect(200)["total"], 3);
        assert_eq!(sold.seller.get("/api/seller/live").await.expect(200)["total"], 1);
    }
}

#[tokio::test]
async fn nor_does_a_dry_run_tell_of_anothers_number() {
    let world = World::create().await;
    let World { eve, joe, .. } = &world;
    let dry_run = async |who: &Sold, number: &str| {
        who.seller.post("/api/seller/routing/simulate", json!({"did": number})).await
    };
    assert!(joe.is_told_by(&dry_run(joe, &joe.number).await.expect(200).to_string()));
    let refused = dry_run(eve, &joe.number).await;
    refused.expect(404);
    let unknown = dry_run(eve, "+442071838799").await;
    let generic = |text: &str, number: &str| text.replace(number, "NUMBER");
    assert_eq!(
        generic(&refused.text, &joe.number),
        generic(&unknown.text, "+442071838799"),
        "as if it weren't there"
    );
}
