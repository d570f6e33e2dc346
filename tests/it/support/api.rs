//! The API on a socket of its own, and people who use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use capconduit::api::{self, Backend, NotHungUp, SessionSettings, StreamSettings, Streams, Switch};
use capconduit::capacity::recount::{Recount, RecountSettings};
use capconduit::capacity::{
    Keeper, LeaseClock, Leases, MemoryLedger, RedisLedger, RedisSettings, Share, Status,
};
use capconduit::clock;
use capconduit::ids::CallId;
use capconduit::live::Live;
use capconduit::routing::snapshot::Current;
use capconduit::store::truth::Records;
use capconduit_entity::{Role, api_token};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder};
use sea_orm::{ActiveModelTrait, Set};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::database::TestDatabase;
use super::events::Events;
use super::redis::Redis;
use super::wait::seconds;

pub const INTERNAL_TOKEN: &str = "the token of the dialplan";
pub const PASSWORD: &str = "correct horse battery";

/// The API, running.
pub struct TestApi {
    pub backend: Arc<Backend>,
    pub switch: Arc<FakeSwitch>,
    pub base: String,
    /// Ends the API.
    pub stop: CancellationToken,
    pub served: Option<JoinHandle<()>>,
    _database: TestDatabase,
}

/// Notes what the API asks of the switch.
#[derive(Default)]
pub struct FakeSwitch {
    pub is_away: AtomicBool,
    /// Whether it has too much to do.
    pub is_busy: AtomicBool,
    pub probing_changes: AtomicU32,
    pub live: Mutex<Vec<CallId>>,
    /// What calls that were hung up were told.
    pub told: Mutex<Vec<String>>,
}

/// Someone who sends requests.
#[derive(Clone)]
pub struct Person {
    base: String,
    client: reqwest::Client,
    headers: Vec<(&'static str, String)>,
    pub id: i64,
    pub name: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub cookie: Option<String>,
    pub retry_after: Option<u64>,
    pub text: String,
}

#[async_trait::async_trait]
impl Switch for FakeSwitch {
    fn is_ready(&self) -> bool {
        !self.is_away.load(Ordering::SeqCst)
    }

    fn probing_changed(&self) {
        self.probing_changes.fetch_add(1, Ordering::SeqCst);
    }

    async fn client_changed(&self) {}

    fn hang_up(&self, call: CallId, told: String) -> Result<(), NotHungUp> {
        if self.is_busy.load(Ordering::SeqCst) {
            return Err(NotHungUp::Busy);
        }
        self.told.lock().push(told);
        self.live.lock().contains(&call).then_some(()).ok_or(NotHungUp::Absent)
    }
}

impl TestApi {
    pub async fn start() -> Self {
        Self::with_streams(StreamSettings::default()).await
    }

    /// The same, with streams of live calls that are led like this.
    pub async fn with_streams(settings: StreamSettings) -> Self {
        let database = TestDatabase::create().await;
        let keeper = Keeper::new(Arc::new(MemoryLedger::default()), "", &Leases::default());
        Self::serve(database, Arc::new(keeper), settings, CancellationToken::new()).await
    }

    /// One of two instances that share a ledger, and hold against their share without it.
    pub async fn of_two(redis: &Redis) -> Self {
        let (database, stop) = (TestDatabase::create().await, CancellationToken::new());
        let leases = Leases::default();
        let settings = RedisSettings {
            url: redis.url(),
            prefix: "api".to_owned(),
            node: "one".to_owned(),
            leases,
            clock: LeaseClock::Own,
            patience: seconds(5),
        };
        let ledger = Arc::new(RedisLedger::start(settings, stop.clone()).unwrap());
        let truth = Arc::new(Records(database.connection.clone()));
        let keeper = Keeper::new(ledger, "one", &leases).with_share(Share::new(2, truth.clone()));
        let keeper = Arc::new(keeper);
        let recount = Recount::new(keeper.clone(), truth, RecountSettings::default());
        tokio::spawn({
            let (keeper, stop) = (keeper.clone(), stop.clone());
            async move { keeper.run(stop).await }
        });
        tokio::spawn({
            let stop = stop.clone();
            async move { recount.run(stop).await }
        });
        let mut status = keeper.ledger().status();
        let open = status.wait_for(|status| matches!(status, Status::Open(_)));
        tokio::time::timeout(seconds(10), open).await.expect("an open ledger in time").unwrap();
        Self::serve(database, keeper, StreamSettings::default(), stop).await
    }

    async fn serve(
        database: TestDatabase,
        keeper: Arc<Keeper>,
        settings: StreamSettings,
        stop: CancellationToken,
    ) -> Self {
        let switch = Arc::new(FakeSwitch::default());
        let backend = Backend::new(
            database.connection.clone(),
            Arc::new(Current::default()),
            keeper,
            Arc::new(Live::new(7)),
            switch.clone(),
            SessionSettings::default(),
        );
        let backend = backend
            .with_internal_token(INTERNAL_TOKEN)
            .with_streams(Streams::new(settings, stop.clone()));
        let backend = Arc::new(backend);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let routes = api::routes(backend.clone());
        let served = tokio::spawn(api::serve(listener, routes, stop.clone()));
        Self { backend, switch, base, stop, served: Some(served), _database: database }
    }

    pub fn nobody(&self) -> Person {
        Person {
            base: self.base.clone(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            headers: Vec::new(),
            id: 0,
            name: "nobody".to_owned(),
        }
    }

    pub fn dialplan(&self) -> Person {
        self.nobody().with("x-internal-api-token", INTERNAL_TOKEN)
    }

    pub async fn admin(&self) -> Person {
        self.person("boss", Role::Admin).await
    }

    pub async fn staff(&self) -> Person {
        self.person("staff", Role::Staff).await
    }

    pub async fn seller(&self, name: &str) -> Person {
        self.person(name, Role::User).await
    }

    /// Signs in with a new account.
    pub async fn person(&self, name: &str, role: Role) -> Person {
        let id = self.account(name, role).await;
        Person { id, ..self.sign_in(name, PASSWORD).await }
    }

    /// A new account whose API token is sent with every request.
    pub async fn script(&self, name: &str, role: Role) -> Person {
        let id = self.account(name, role).await;
        let token = format!("token of {name}");
        let row = api_token::ActiveModel {
            user_id: Set(id),
            name: Set("script".to_owned()),
            token_hash: Set(api::password::fingerprint(&token)),
            created_at: Set(clock::now()),
            ..Default::default()
        };
        row.insert(&self.backend.db).await.unwrap();
        let person = self.nobody().with("authorization", format!("Bearer {token}"));
        Person { id, name: name.to_owned(), ..person }
    }

    /// A new account, put into the database; its id.
    pub async fn account(&self, name: &str, role: Role) -> i64 {
        let (email, hash) = (format!("{name}@example.com"), password_hash().await);
        let row = capconduit::store::users::new_account(name, &email, hash, role, clock::now());
        row.insert(&self.backend.db).await.unwrap().id
    }

    /// The same person at another place.
    pub async fn sign_in_again(&self, person: &Person) -> Person {
        self.sign_in(&person.name, PASSWORD).await
    }

    pub async fn sign_in(&self, name: &str, password: &str) -> Person {
        let nobody = self.nobody();
        let answer =
            nobody.post("/api/auth/login", json!({"username": name, "password": password})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let person = nobody.with("cookie", answer.cookie.clone().unwrap());
        Person { name: name.to_owned(), ..person }
    }
}

async fn password_hash() -> String {
    static HASH: OnceCell<String> = OnceCell::const_new();
    HASH.get_or_init(|| async { api::password::hash(PASSWORD.to_owned()).await.unwrap() })
        .await
        .clone()
}

impl Person {
    pub fn with(&self, header: &'static str, value: impl Into<String>) -> Self {
        let mut person = self.clone();
        person.headers.retain(|(name, _)| *name != header);
        person.headers.push((header, value.into()));
        person
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Follows live calls.
    pub async fn follow(&self, path: &str) -> Events {
        Events::open(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn post_raw(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<String>,
    ) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", content_type);
        self.send(request.body(body.into())).await
    }

    /// The status alone, of an answer that may never end.
    pub async fn status(&self, method: &Method, path: &str, body: Option<Value>) -> u16 {
        let mut request = self.request(method.clone(), path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap().status().as_u16()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
    }

    async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let text_of = |name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let cookie = text_of("set-cookie");
        let retry_after = text_of("retry-after").map(|seconds| seconds.parse().unwrap());
        Answer {
            status: response.status().as_u16(),
            content_type: text_of("content-type").unwrap_or_default(),
            retry_after,
            cookie: cookie.map(|cookie| cookie.split(';').next().unwrap().to_owned()),
            text: response.text().await.unwrap(),
        }
    }
}

impl Answer {
    /// The body, where the status is as expected.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if status >= 400 {
            assert_eq!(self.content_type, "application/problem+json");
            let problem = self.json();
            assert_eq!(problem["status"], status);
            for field in ["type", "title", "detail"] {
                assert!(problem[field].is_string(), "{field} is missing: {problem}");
            }
        }
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The names of the fields that a refusal complains about, sorted.
    #[track_caller]
    pub fn refused_fields(&self, status: u16) -> Vec<String> {
        let problem = self.expect(status);
        let errors = problem["errors"].as_object().cloned().unwrap_or_default();
        errors.keys().cloned().collect()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

// === things that tests need ===

/// A client with endpoint, AOR and auth named after it.
pub fn client(name: &str) -> Value {
    json!({
        "clientIdentifier": name,
        "name": format!("Client {name}"),
        "pjsip": {
            "endpoint": {"id": name, "aors": name, "context": "from-client", "outboundAuth": name},
            "aor": {"id": name, "contact": "sip:agent@127.0.0.1:5070"},
            "auth": {"id": name, "username": "u", "password": "s3cret-of-client"},
        },
    })
}

pub fn campaign(name: &str) -> Value {
    json!({"name": name, "routingStrategy": "priority", "dialTimeoutSeconds": 20})
}

pub fn link(client: i64) -> Value {
    json!({"clientId": client, "maxConcurrency": 2, "forwardingPriority": 1, "weight": 10})
}

/// The id of a thing just created.
#[track_caller]
pub fn id(answer: &Answer) -> i64 {
    answer.expect(201)["id"].as_i64().unwrap()
}
