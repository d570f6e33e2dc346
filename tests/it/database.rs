//! The schema and the queries read the same on SQLite and on PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use capconduit::call::outcome::{Outcome, cause};
use capconduit::call::record::{Attempt, CallRecord, End};
use capconduit::capacity::recount::{Known, compare};
use capconduit::capacity::{Ledger, MemoryLedger, Scope, WindowKind, Windows};
use capconduit::clock::{self, Timestamp};
use capconduit::ids::{CampaignId, ClientId, DidId, LinkId, SellerId};
use capconduit::routing::{self, Decision, Trace};
use capconduit::store;
use capconduit_entity::{
    AttemptResult, CallStatus, CampaignStatus, E164, Role, Status, Strategy, UserStatus, api_token,
    audit_entry, call_attempt, call_log, campaign, campaign_did, client, did, link, pjsip_aor,
    pjsip_auth, pjsip_endpoint, session, user,
};
use capconduit_migration::Migrator;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, IntoActiveModel,
    SqlErr, Statement,
};
use sea_orm_migration::MigratorTrait;

use crate::support::postgres::Postgres;

/// Runs a check on an empty, migrated database of each kind.
async fn on_both(check: impl AsyncFn(&DatabaseConnection)) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("test.db").display());
    let server = Postgres::start();
    for url in [sqlite, server.url()] {
        let db = capconduit::db::connect(&url).await.unwrap();
        capconduit::db::migrate(&db).await.unwrap();
        // Again, as at every start.
        capconduit::db::migrate(&db).await.unwrap();
        check(&db).await;
        db.close().await.unwrap();
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A seller with one DID, one campaign and one link to one client.
async fn insert_configuration(db: &DatabaseConnection) {
    let now = at("2026-11-22T12:00:00.123Z");
    macro_rules! round_trip {
        ($entity:ident, $model:expr) => {{
            let model = $model;
            let inserted = model.clone().into_active_model().reset_all().insert(db).await.unwrap();
            assert_eq!(inserted, model);
            let found = $entity::Entity::find().all(db).await.unwrap();
            assert_eq!(found, [model]);
        }};
    }
    round_trip!(
        user,
        user::Model {
            id: 1,
            username: "seller".to_owned(),
            email: "seller@example.com".to_owned(),
            password_hash: "hash".to_owned(),
            role: Role::User,
            status: UserStatus::Active,
            full_name: Some("Ünï Cødé".to_owned()),
            company_name: None,
            max_concurrency: Some(7),
            total_calls_allowed: None,
            hourly_cap: Some(13),
            daily_cap: None,
            weekly_cap: Some(0),
            monthly_cap: None,
            time_zone: "Asia/Kathmandu".to_owned(),
            created_at: now,
            updated_at: now,
        }
    );
    round_trip!(
        session,
        session::Model {
            id_hash: "0".repeat(64),
            user_id: 1,
            created_at: now,
            expires_at: at("2026-11-23T12:00:00Z"),
        }
    );
    round_trip!(
        api_token,
        api_token::Model {
            id: 1,
            user_id: 1,
            name: "script".to_owned(),
            token_hash: "1".repeat(64),
            created_at: now,
        }
    );
    round_trip!(
        audit_entry,
        audit_entry::Model {
            id: 1,
            user_id: Some(1),
            username: Some("seller".to_owned()),
            role: Some(Role::User),
            address: Some("2001:db8::1".to_owned()),
            method: "POST".to_owned(),
            path: "/api/seller/dids".to_owned(),
            resource: "did".to_owned(),
            resource_id: "1".to_owned(),
            before: None,
            after: Some(serde_json::json!({"number": "+442071838750"})),
            created_at: now,
        }
    );
    round_trip!(
        pjsip_endpoint,
        pjsip_endpoint::Model {
            id: "acme".to_owned(),
            transport: String::new(),
            aors: "acme".to_owned(),
            auth: String::new(),
            context: "none".to_owned(),
            disallow: "all".to_owned(),
            allow: "ulaw".to_owned(),
            direct_media: "no".to_owned(),
            outbound_auth: "acme".to_owned(),
            from_user: String::new(),
            from_domain: String::new(),
            callerid: String::new(),
        }
    );
    round_trip!(
        pjsip_aor,
        pjsip_aor::Model {
            id: "acme".to_owned(),
            contact: "sip:acme@127.0.0.1:5080".to_owned(),
            max_contacts: 1,
            qualify_frequency: 60,
        }
    );
    round_trip!(
        pjsip_auth,
        pjsip_auth::Model {
            id: "acme".to_owned(),
            auth_type: "userpass".to_owned(),
            username: "acme".to_owned(),
            password: "secret".to_owned(),
            realm: String::new(),
        }
    );
    round_trip!(
        client,
        client::Model {
            id: 1,
            client_identifier: "acme".to_owned(),
            name: "Acme".to_owned(),
            department: None,
            status: Status::Active,
            notes: None,
            max_concurrency: Some(3),
            total_calls_allowed: None,
            hourly_cap: Some(11),
            daily_cap: None,
            weekly_cap: Some(0),
            monthly_cap: None,
            time_zone: "Europe/London".to_owned(),
            endpoint_id: "acme".to_owned(),
            aor_id: "acme".to_owned(),
            auth_id: Some("acme".to_owned()),
            created_at: now,
            updated_at: now,
        }
    );
    round_trip!(
        did,
        did::Model {
            id: 1,
            user_id: 1,
            number: E164::parse("+442071838750").unwrap(),
            description: None,
            status: Status::Active,
            created_at: now,
            updated_at: now,
        }
    );
    round_trip!(
        campaign,
        campaign::Model {
            id: 1,
            user_id: 1,
            name: "Solar".to_owned(),
            routing_strategy: Strategy::RoundRobin,
            dial_timeout_seconds: 20,
            status: CampaignStatus::Active,
            description: None,
            max_concurrency: Some(5),
            total_calls_allowed: None,
            hourly_cap: Some(12),
            daily_cap: None,
            weekly_cap: Some(0),
            monthly_cap: None,
            time_zone: "UTC".to_owned(),
            created_at: now,
            updated_at: now,
        }
    );
    round_trip!(
        campaign_did,
        campaign_did::Model { campaign_id: 1, did_id: 1, active_did_id: Some(1) }
    );
    round_trip!(
        link,
        link::Model {
            id: 1,
            campaign_id: 1,
            client_id: 1,
            status: Status::Active,
            max_concurrency: 2,
            forwarding_priority: 1,
            weight: 10,
            total_calls_allowed: Some(5),
            hourly_cap: None,
            daily_cap: Some(4),
            weekly_cap: None,
            monthly_cap: None,
            time_zone: "America/New_York".to_owned(),
            created_at: now,
            updated_at: now,
        }
    );
}

fn answered_call(started_at: Timestamp) -> CallRecord {
    let ended_at = started_at + chrono::TimeDelta::milliseconds(3_400);
    CallRecord {
        call: clock::new_call_id(),
        channel: "capconduit-1795372952.0".to_owned(),
        linked_channel: Some("capconduit-1795372952.0".to_owned()),
        dialled: "+442071838750".to_owned(),
        caller_number: Some("+15550001".to_owned()),
        caller_name: Some("Zoë 🐈".to_owned()),
        seller: Some(SellerId(1)),
        did: Some(DidId(1)),
        campaign: Some((CampaignId(1), "Solar".to_owned())),
        started_at,
        answered_at: Some(started_at + chrono::TimeDelta::milliseconds(900)),
        attempts: vec![Attempt {
            position: 1,
            link: LinkId(1),
            client: ClientId(1),
            client_name: "Acme".to_owned(),
            client_identifier: "acme".to_owned(),
            held_at: started_at,
            dialled_at: None,
            ringing_at: None,
            answered_at: Some(started_at + chrono::TimeDelta::milliseconds(899)),
            ended_at: Some(ended_at),
            result: Some(AttemptResult::Answered),
            cause: Some(cause::NORMAL),
            sip: None,
        }],
        trace: Trace::default(),
        unseen_since: None,
        ending: None,
        hung_up: None,
        end: Some(End { at: ended_at, outcome: Outcome::ANSWERED, cause: cause::NORMAL }),
    }
}

#[tokio::test]
async fn every_table_gives_back_what_was_put_in() {
    on_both(async |db| {
        insert_configuration(db).await;
        let snapshot = store::routing::load_snapshot(db).await.unwrap();
        let plan = routing::plan(&snapshot, "442071838750", 1);
        let Decision::Offer(offer) = plan.decision else { panic!("{plan:?}") };
        let link = &offer.links[0];
        let candidate = link.candidate(at("2026-11-22T12:00:00Z"));
        assert_eq!(candidate.link, LinkId(1));
        let claimed = candidate.claims.iter().map(|claim| {
            let day = claim.windows.start(WindowKind::Day);
            (claim.scope, claim.concurrency, claim.volume, day.to_rfc3339())
        });
        let expected = [
            (Scope::link(LinkId(1)), [Some(5), None, Some(4), None, None], 2, "2026-11-22T05:00"),
            (
                Scope::client(ClientId(1)),
                [None, Some(11), None, Some(0), None],
                3,
                "2026-11-22T00:00",
            ),
            (
                Scope::campaign(CampaignId(1)),
                [None, Some(12), None, Some(0), None],
                5,
                "2026-11-22T00:00",
            ),
            (
                Scope::seller(SellerId(1)),
                [None, Some(13), None, Some(0), None],
                7,
                "2026-11-21T18:15",
            ),
        ];
        let expected = expected.map(|(scope, volume, concurrency, day)| {
            (scope, Some(concurrency), volume, format!("{day}:00+00:00"))
        });
        assert_eq!(claimed.collect::<Vec<_>>(), expected);
    })
    .await;
}

#[tokio::test]
async fn a_record_that_comes_twice_is_there_once() {
    on_both(async |db| {
        let record = Arc::new(answered_call(at("2026-11-22T12:00:00.250Z")));
        for _ in 0..2 {
            store::records::insert(db, std::slice::from_ref(&record)).await.unwrap();
        }
        let logs = call_log::Entity::find().all(db).await.unwrap();
        assert_eq!(logs.len(), 1);
        let log = &logs[0];
        assert_eq!(log.call_id, record.call.0);
        assert_eq!((log.duration_seconds, log.billsec_seconds), (3, 2));
        assert_eq!(log.call_status, CallStatus::Answered);
        assert_eq!(log.caller_id_name.as_deref(), Some("Zoë 🐈"));
        assert_eq!(log.timestamp_start, record.started_at);
        assert_eq!(call_attempt::Entity::find().all(db).await.unwrap().len(), 1);
    })
    .await;
}

/// As many as the journal writes at once.
#[tokio::test]
async fn a_batch_is_there_whole_with_what_was_there_before_and_what_came_twice() {
    on_both(async |db| {
        let mut records = Vec::new();
        for number in 0..200 {
            let mut record = answered_call(at("2026-11-22T12:00:00Z"));
            record.dialled = format!("+1555{number}");
            let attempt = record.attempts[0].clone();
            record.attempts =
                (1..=number % 10).map(|position| Attempt { position, ..attempt.clone() }).collect();
            records.push(Arc::new(record));
        }
        records.push(records[7].clone());
        store::records::insert(db, &records[50..60]).await.unwrap();
        store::records::insert(db, &records).await.unwrap();
        let mut attempts: HashMap<_, Vec<_>> = HashMap::new();
        for attempt in call_attempt::Entity::find().all(db).await.unwrap() {
            attempts.entry(attempt.call_log_id).or_default().push(attempt.position);
        }
        let logs = call_log::Entity::find().all(db).await.unwrap();
        assert_eq!(logs.len(), 200);
        for log in logs {
            let number: i32 = log.incoming_did_number["+1555".len()..].parse().unwrap();
            let record = &records[usize::try_from(number).unwrap()];
            assert_eq!(log.call_id, record.call.0);
            let expected: Vec<_> = (1..=number % 10).collect();
            assert_eq!(attempts.remove(&log.id).unwrap_or_default(), expected);
        }
        assert!(attempts.is_empty(), "{attempts:?}");
    })
    .await;
}

#[tokio::test]
async fn the_ledger_is_told_what_was_answered_in_every_window() {
    on_both(async |db| {
        insert_configuration(db).await;
        // Midnight in New York is 05:00 UTC.
        for started in ["2026-11-22T04:59:59.900Z", "2026-11-22T05:00:00Z", "2026-11-22T17:30:00Z"]
        {
            store::records::insert(db, &[Arc::new(answered_call(at(started)))]).await.unwrap();
        }
        let now = at("2026-11-22T17:45:00Z");
        let answered = store::records::answered(db, now).await.unwrap();
        let scopes = [
            Scope::link(LinkId(1)),
            Scope::client(ClientId(1)),
            Scope::campaign(CampaignId(1)),
            Scope::seller(SellerId(1)),
        ];
        let totals: Vec<_> = answered.iter().map(|known| (known.scope, known.total)).collect();
        assert_eq!(totals, scopes.map(|scope| (scope, 3)));
        let known = Known { answered, ..Known::default() };
        let missing = compare(&known, &[], &[], &[], now);
        let ledger = MemoryLedger::default();
        ledger.correct(&missing).await.unwrap();
        let books = ledger.books().await.unwrap();
        assert_eq!(compare(&known, &books, &[], &[], now), []);
        let windows = Windows::at(now, chrono_tz::America::New_York);
        let asked = scopes.map(|scope| (scope, windows));
        for usage in ledger.usages(&asked).await.unwrap() {
            assert_eq!(usage.used, [3, 1, 2, 3, 3]);
        }
        let offers = store::records::last_offers(db).await.unwrap();
        assert_eq!(offers[&LinkId(1)], at("2026-11-22T17:30:00Z"));
    })
    .await;
}

#[tokio::test]
async fn a_did_never_has_two_active_campaigns() {
    on_both(async |db| {
        insert_configuration(db).await;
        let mut second = campaign::Entity::find_by_id(1).one(db).await.unwrap().unwrap();
        second.id = 2;
        second.name = "Second".to_owned();
        second.into_active_model().reset_all().insert(db).await.unwrap();
        let row = campaign_did::Model { campaign_id: 2, did_id: 1, active_did_id: Some(1) };
        let refused = row.into_active_model().reset_all().insert(db).await.unwrap_err();
        assert!(matches!(refused.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))));
    })
    .await;
}

#[tokio::test]
async fn calls_of_what_is_gone_still_count_for_the_client_and_the_seller() {
    on_both(async |db| {
        insert_configuration(db).await;
        let started = at("2026-11-22T12:00:00Z");
        store::records::insert(db, &[Arc::new(answered_call(started))]).await.unwrap();
        // Its link goes with it.
        campaign::Entity::delete_by_id(1).exec(db).await.unwrap();
        did::Entity::delete_by_id(1).exec(db).await.unwrap();
        let mut again = answered_call(started + chrono::TimeDelta::seconds(60));
        again.campaign = Some((CampaignId(2), "Wind".to_owned()));
        again.attempts[0].link = LinkId(2);
        // A call that nobody answered counts nowhere.
        let mut missed = answered_call(started);
        missed.attempts[0].result = Some(AttemptResult::NoAnswer);
        missed.end = Some(End {
            outcome: Outcome::unanswered(&[AttemptResult::NoAnswer]),
            ..missed.end.unwrap()
        });
        store::records::insert(db, &[Arc::new(again), Arc::new(missed)]).await.unwrap();
        let answered = store::records::answered(db, at("2026-11-22T13:00:00Z")).await.unwrap();
        let known = |scope| {
            let known = answered.iter().find(|known| known.scope == scope);
            known
                .map(|known| (known.total, known.slots.iter().map(|(_, calls)| calls).sum::<u32>()))
        };
        assert_eq!(known(Scope::client(ClientId(1))), Some((2, 2)));
        assert_eq!(known(Scope::seller(SellerId(1))), Some((2, 2)));
        assert_eq!(known(Scope::campaign(CampaignId(2))), Some((1, 1)));
        assert_eq!(known(Scope::link(LinkId(2))), Some((1, 1)));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_older_than_the_schema_writes_by_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("test.db").display());
    let [upgraded, older] = [
        capconduit::db::connect(&url).await.unwrap(),
        capconduit::db::connect(&url).await.unwrap(),
    ];
    Migrator::up(&upgraded, Some(5)).await.unwrap();
    // It reads the schema as it is now, and keeps it.
    let count = Statement::from_string(DbBackend::Sqlite, "SELECT count(*) FROM users");
    older.query_one_raw(count).await.unwrap();
    Migrator::up(&upgraded, None).await.unwrap();
    for name in ["joe", "eve"] {
        let email = format!("{name}@example.com");
        let now = at("2026-11-22T12:00:00Z");
        let row = store::users::new_account(name, &email, "hash".to_owned(), Role::User, now);
        assert_eq!(row.insert(&older).await.unwrap().time_zone, "UTC");
    }
}
