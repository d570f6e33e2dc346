//! Live calls as a stream.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use capconduit::api::{StreamSettings, admin_document};
use capconduit::live::{LiveCall, LiveState, REMEMBERED};
use capconduit_entity::{Role, UserStatus, user};
use sea_orm::{ActiveModelTrait, Set};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::live::{call, client};
use crate::support::api::{Person, TestApi};
use crate::support::events::{Event, Stalled};
use crate::support::wait::{eventually, ms, seconds};

const ADMIN: &str = "/api/admin/live/events";
const SELLER: &str = "/api/seller/live/events";

/// Streams that tests needn't wait for.
fn quick() -> StreamSettings {
    StreamSettings { heartbeat: ms(100), ..StreamSettings::default() }
}

fn in_state(call: &LiveCall, state: LiveState) -> LiveCall {
    LiveCall { state, ..call.clone() }
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_each_change_in_order() {
    let api = TestApi::start().await;
    let (staff, live) = (api.staff().await, &api.backend.live);
    let (old, new) = (call(1), call(2));
    live.put(old.clone());
    let mut events = staff.follow(ADMIN).await;
    let snapshot = events.news().await;
    assert_eq!(snapshot.calls().len(), 1);
    assert_eq!(snapshot.calls()[0]["callId"], old.call.to_string());
    live.put(in_state(&new, LiveState::Routing));
    live.put(in_state(&new, LiveState::Talking));
    live.remove(old.call);
    live.remove(new.call);
    let mut ids = BTreeSet::from([snapshot.id]);
    for (name, state, id) in [
        ("call", "routing", new.call),
        ("call", "talking", new.call),
        ("gone", "", old.call),
        ("gone", "", new.call),
    ] {
        let event = events.news().await;
        assert_eq!(event.told(), format!("{name} {state}").trim());
        assert_eq!(event.data["type"], name);
        let told = if name == "call" { &event.data["call"] } else { &event.data };
        assert_eq!(told["callId"], id.to_string());
        assert!(ids.insert(event.id), "each event has an id of its own");
    }
}

#[tokio::test]
async fn a_call_is_in_the_stream_as_it_is_in_the_list() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let mut events = staff.follow(ADMIN).await;
    events.news().await;
    api.backend.live.put(LiveCall { client: Some(client(3)), ..call(1) });
    let listed = staff.get("/api/admin/live").await.expect(200);
    assert_eq!(events.news().await.data["call"], listed["items"][0]);
}

#[tokio::test]
async fn who_comes_back_misses_nothing_and_hears_nothing_twice() {
    let api = TestApi::start().await;
    let (staff, live) = (api.staff().await, &api.backend.live);
    let calls: Vec<_> = (0..10).map(|_| call(1)).collect();
    let mut events = staff.follow(ADMIN).await;
    let mut last = events.news().await.id;
    let mut heard = Vec::new();
    for (turn, call) in calls.iter().enumerate() {
        live.put(call.clone());
        if turn % 3 == 1 {
            // Two have come since the last time, or three: one of them is read here ...
            let event = events.news().await;
            heard.push(event.data["call"]["callId"].clone());
            events = staff.with("last-event-id", event.id).follow(ADMIN).await;
        }
    }
    while heard.len() < calls.len() {
        // ... and the others by those who come back.
        let event = events.news().await;
        assert_eq!(event.name, "call");
        heard.push(event.data["call"]["callId"].clone());
        last = event.id;
    }
    let expected: Vec<_> = calls.iter().map(|call| json!(call.call.to_string())).collect();
    assert_eq!(heard, expected);

    for (position, why) in [
        (last.replacen(['0', '1', '2', '3', '4', '5', '6', '7'], "f", 1), "another run"),
        ("nonsense".to_owned(), "no id of ours"),
    ] {
        let mut events = staff.with("last-event-id", position).follow(ADMIN).await;
        assert_eq!(events.news().await.calls().len(), calls.len(), "{why}");
    }
    for _ in 0..=REMEMBERED {
        live.put(calls[0].clone());
    }
    let mut events = staff.with("last-event-id", last).follow(ADMIN).await;
    assert_eq!(events.news().await.calls().len(), calls.len(), "too long ago");
}

#[tokio::test]
async fn a_seller_hears_of_own_calls_alone() {
    let api = TestApi::with_streams(quick()).await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    let (of_joe, of_nobody) = (call(joe.id), LiveCall { seller: None, ..call(0) });
    api.backend.live.put(call(joe.id));
    let (mut of_own, mut foreign) = (joe.follow(SELLER).await, eve.follow(SELLER).await);
    assert_eq!(of_own.news().await.calls().len(), 1);
    assert_eq!(foreign.news().await.calls().len(), 0);
    api.backend.live.put(of_nobody.clone());
    api.backend.live.put(of_joe.clone());
    api.backend.live.remove(of_nobody.call);
    api.backend.live.remove(of_joe.call);
    assert_eq!(of_own.news().await.data["call"]["callId"], of_joe.call.to_string());
    assert_eq!(of_own.news().await.name, "gone");
    assert!(foreign.is_quiet().await);
    // Nor by an id that somebody else was given.
    let first = format!("{:016x}-0", 7);
    let mut foreign = eve.with("last-event-id", first).follow(SELLER).await;
    assert!(foreign.is_quiet().await, "resumed, and still nothing of Joe's");
}

#[tokio::test]
async fn a_call_that_leaves_the_filter_is_gone() {
    let api = TestApi::with_streams(quick()).await;
    let (staff, live) = (api.staff().await, &api.backend.live);
    let mut of_three = staff.follow(&format!("{ADMIN}?client_id=3")).await;
    let mut of_seller = staff.follow(&format!("{ADMIN}?user_id=2&campaign_id=5")).await;
    assert_eq!(of_three.news().await.calls().len(), 0);
    assert_eq!(of_seller.news().await.calls().len(), 0);
    let at = |id| LiveCall { client: Some(client(id)), ..call(1) };
    let (routing, three) = (call(1), at(3));
    let four = LiveCall { call: three.call, ..at(4) };
    live.put(routing);
    live.put(three.clone());
    live.put(four.clone());
    live.remove(four.call);
    let (came, left) = (of_three.news().await, of_three.news().await);
    assert_eq!(came.data["call"]["callId"], three.call.to_string());
    assert_eq!((left.name.as_str(), &left.data["callId"]), ("gone", &json!(three.call.0)));
    assert!(of_three.is_quiet().await, "once");
    assert!(of_seller.is_quiet().await);
}

#[tokio::test]
async fn a_heartbeat_moves_the_position_on() {
    let api = TestApi::with_streams(quick()).await;
    let joe = api.seller("joe").await;
    let mut events = joe.follow(SELLER).await;
    let first = events.news().await.id;
    let beat = events.next().await.unwrap();
    assert_eq!((beat.name.as_str(), &beat.id), ("heartbeat", &first));
    api.backend.live.put(call(joe.id + 1));
    let later = eventually("a later position", seconds(5), async || {
        events.next().await.filter(|beat| beat.id != first)
    })
    .await;
    assert_eq!(later.name, "heartbeat", "nothing else was heard");
}

#[tokio::test]
async fn who_may_not_read_any_more_reads_no_more() {
    let api = TestApi::with_streams(quick()).await;
    let admin = api.admin().await;
    let signed_out = api.seller("joe").await;
    let (deactivated, deleted, demoted, revoked) = (
        api.script("eve", Role::User).await,
        api.script("max", Role::Staff).await,
        api.script("ann", Role::Staff).await,
        api.script("tom", Role::Staff).await,
    );
    let mut kept = admin.follow(ADMIN).await;
    let mut streams = vec![
        signed_out.follow(SELLER).await,
        deactivated.follow(SELLER).await,
        deleted.follow(ADMIN).await,
        demoted.follow(ADMIN).await,
        revoked.follow(ADMIN).await,
    ];
    signed_out.post("/api/auth/logout", json!({})).await.expect(200);
    // Behind the API's back, so that the token stays.
    let row = user::ActiveModel {
        id: Set(deactivated.id),
        status: Set(UserStatus::Inactive),
        ..Default::default()
    };
    row.update(&api.backend.db).await.unwrap();
    admin.delete(&format!("/api/admin/users/{}", deleted.id)).await.expect(204);
    let row =
        user::ActiveModel { id: Set(demoted.id), role: Set(Role::User), ..Default::default() };
    row.update(&api.backend.db).await.unwrap();
    let token = revoked.get("/api/auth/tokens").await.expect(200)["items"][0]["id"].clone();
    revoked.delete(&format!("/api/auth/tokens/{token}")).await.expect(204);
    for stream in &mut streams {
        stream.end().await;
    }
    assert_eq!(api.backend.streams.count(), 1);
    kept.news().await;
    assert!(kept.is_quiet().await, "it goes on");
}

#[tokio::test]
async fn streams_are_limited_per_user_and_in_all() {
    let settings = StreamSettings { per_user: 2, in_all: 3, ..StreamSettings::default() };
    let api = TestApi::with_streams(settings).await;
    let (staff, boss) = (api.staff().await, api.admin().await);
    let _kept = (staff.follow(ADMIN).await, boss.follow(ADMIN).await);
    let closed = staff.follow(ADMIN).await;
    let refused = staff.get(ADMIN).await;
    assert_eq!(refused.expect(429)["type"], "urn:capconduit:problem:too-many-streams");
    assert_eq!(refused.retry_after, Some(15));
    let refused = boss.get(ADMIN).await;
    assert_eq!(refused.expect(503)["type"], "urn:capconduit:problem:busy");
    drop(closed);
    eventually("its place is free", seconds(5), async || {
        (api.backend.streams.count() == 2).then_some(())
    })
    .await;
    boss.follow(ADMIN).await.news().await;
}

/// A reader of all calls who has read the beginning of the snapshot, and stops there.
async fn stall(api: &TestApi, person: &Person) -> Stalled {
    let address = api.base.strip_prefix("http://").unwrap();
    Stalled::open(address, ADMIN, &format!("token of {}", person.name), 4_096).await
}

/// What this process has in memory, in bytes.
fn resident_bytes() -> u64 {
    procfs::process::Process::myself().unwrap().statm().unwrap().resident * procfs::page_size()
}

#[tokio::test]
async fn a_stalled_reader_is_told_to_resync_and_costs_no_memory() {
    const CHANGES: usize = 120_000;
    let api = TestApi::start().await;
    let staff = api.script("staff", Role::Staff).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(stall(&api, &staff).await);
    }
    let call = LiveCall { client: Some(client(3)), ..call(1) };
    let (before, began) = (resident_bytes(), Instant::now());
    for turn in 0..CHANGES {
        api.backend.live.put(call.clone());
        if turn % 64 == 0 {
            // Readers have the time to read, if they would.
            tokio::task::yield_now().await;
        }
    }
    let took = began.elapsed();
    // Each reader is owed some 60 MB.
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 300_000_000, "{grown} bytes more for {CHANGES} changes");
    assert!(took < seconds(10), "no call waits for a reader: {took:?}");
    for reader in &mut stalled {
        reader.read_until("event: resync").await;
        reader.read_until("event: snapshot").await;
    }
    assert_eq!(api.backend.streams.count(), 20);
}

#[tokio::test]
async fn a_stop_ends_all_streams_at_once_and_stalled_ones_too() {
    let mut api = TestApi::start().await;
    let staff = api.script("staff", Role::Staff).await;
    let mut reads = staff.follow(ADMIN).await;
    reads.news().await;
    let _stalled = stall(&api, &staff).await;
    for _ in 0..60_000 {
        api.backend.live.put(call(1));
        tokio::task::yield_now().await;
    }
    let stopped = Instant::now();
    api.stop.cancel();
    reads.end().await;
    timeout(seconds(20), api.served.take().unwrap()).await.unwrap().unwrap();
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn every_event_is_as_the_document_says() {
    let document: Value = serde_yaml::from_str(&admin_document()).unwrap();
    let schemas = &document["components"]["schemas"];
    let api = TestApi::with_streams(quick()).await;
    let staff = api.staff().await;
    let mut events = staff.follow(ADMIN).await;
    let call = LiveCall { client: Some(client(3)), ..call(1) };
    let mut seen = vec![events.next().await.unwrap()];
    api.backend.live.put(call.clone());
    api.backend.live.remove(call.call);
    let mut heard = async |name: &str| loop {
        let event = events.next().await.unwrap();
        if event.name == name {
            return event;
        }
    };
    for name in ["call", "gone", "heartbeat"] {
        seen.push(heard(name).await);
    }
    let mapping = &schemas["LiveEvent"]["discriminator"]["mapping"];
    assert_eq!(mapping.as_object().unwrap().len(), 5, "and resync");
    for Event { name, data, .. } in seen {
        let reference = mapping[&name].as_str().unwrap().rsplit('/').next().unwrap();
        let parts = schemas[reference]["allOf"].as_array().unwrap();
        let own = parts[1]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let fields = [&parts[0]["properties"], &schemas[own]["properties"]];
        let fields: BTreeSet<_> =
            fields.iter().flat_map(|fields| fields.as_object().unwrap().keys().cloned()).collect();
        let sent: BTreeSet<_> = data.as_object().unwrap().keys().cloned().collect();
        assert_eq!(sent, fields, "{name}");
        assert!(schemas[own]["example"].is_object(), "{own}");
    }
}
