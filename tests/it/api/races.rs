//! Writes that race: exactly one wins, the others are told so, nobody sees an
//! error of ours.
//!
//! The server and the senders share four threads, so that requests really
//! overlap, and each sender has connections of its own.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::api::{Person, TestApi, campaign, client, id, link};

const ROUNDS: usize = 20;
const NUMBER: &str = "+442071838750";

/// Posts the same from all of them at once.
///
/// Exactly one has it created, and the others are told which field is taken.
async fn one_creates(racers: &[&Person], path: &str, body: &Value, field: &str) -> i64 {
    let answers = join_all(racers.iter().map(|racer| racer.post(path, body.clone()))).await;
    let (created, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(created.len(), 1, "{answers:?}");
    for answer in refused {
        assert_eq!(answer.refused_fields(409), [field]);
    }
    id(created[0])
}

async fn new_campaign(seller: &Person, name: &str, status: &str) -> String {
    let mut new = campaign(name);
    new["status"] = json!(status);
    format!("/api/seller/campaigns/{}", id(&seller.post("/api/seller/campaigns", new).await))
}

async fn new_did(seller: &Person, number: &str) -> i64 {
    id(&seller.post("/api/seller/dids", json!({"number": number})).await)
}

async fn new_client(staff: &Person, name: &str) -> i64 {
    id(&staff.post("/api/admin/clients", client(name)).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creations_of_a_username_one_wins() {
    let api = TestApi::start().await;
    let (admin, staff) = (api.admin().await, api.staff().await);
    for round in 0..ROUNDS {
        let new = json!({
            "username": format!("racer{round}"),
            "email": format!("racer{round}@example.org"),
            "password": "a long password",
            "role": "user",
        });
        // Either may be what the database complains about first.
        let racers = [&admin, &staff];
        let answers =
            join_all(racers.map(|racer| racer.post("/api/admin/users", new.clone()))).await;
        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409], "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creations_of_an_email_one_wins() {
    let api = TestApi::start().await;
    let (admin, staff) = (api.admin().await, api.staff().await);
    for round in 0..ROUNDS {
        let new = |racer: &str| {
            json!({
                "username": format!("{racer}{round}"),
                "email": format!("racer{round}@example.org"),
                "password": "a long password",
                "role": "user",
            })
        };
        let (a, b) = tokio::join!(
            admin.post("/api/admin/users", new("ann")),
            staff.post("/api/admin/users", new("bob")),
        );
        let refused = match (a.status, b.status) {
            (201, 409) => b,
            (409, 201) => a,
            _ => panic!("{a:?} {b:?}"),
        };
        assert_eq!(refused.refused_fields(409), ["email"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creations_of_a_did_one_wins() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    for round in 0..ROUNDS {
        let new = json!({"number": format!("+4420718387{round:02}")});
        one_creates(&[&joe, &eve, &joe], "/api/seller/dids", &new, "number").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creations_of_a_campaign_one_wins() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let there = api.sign_in_again(&joe).await;
    for round in 0..ROUNDS {
        let new = campaign(&format!("Solar {round}"));
        one_creates(&[&joe, &there], "/api/seller/campaigns", &new, "name").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creations_of_a_link_one_wins() {
    let api = TestApi::start().await;
    let (staff, joe) = (api.staff().await, api.seller("joe").await);
    let there = api.sign_in_again(&joe).await;
    let own = new_campaign(&joe, "Solar", "active").await;
    for round in 0..ROUNDS {
        let client = new_client(&staff, &format!("c{round}")).await;
        let links = format!("{own}/clients");
        one_creates(&[&joe, &there, &joe], &links, &link(client), "clientId").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_creations_of_a_client_one_wins_with_all_its_objects() {
    let api = TestApi::start().await;
    let (admin, staff) = (api.admin().await, api.staff().await);
    for round in 0..ROUNDS {
        let new = client(&format!("c{round}"));
        let (a, b) = tokio::join!(
            admin.post("/api/admin/clients", new.clone()),
            staff.post("/api/admin/clients", new.clone()),
        );
        let (created, refused) = if a.status == 201 { (a, b) } else { (b, a) };
        refused.expect(409);
        let read = admin.get(&format!("/api/admin/clients/{}", id(&created))).await.expect(200);
        assert_eq!(read["pjsip"]["endpoint"]["id"], new["pjsip"]["endpoint"]["id"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_is_linked_while_it_is_deleted_is_either_linked_or_gone() {
    let api = TestApi::start().await;
    let (staff, joe) = (api.staff().await, api.seller("joe").await);
    let own = new_campaign(&joe, "Solar", "active").await;
    for round in 0..ROUNDS {
        let client = new_client(&staff, &format!("c{round}")).await;
        let (links, itself) = (format!("{own}/clients"), format!("/api/admin/clients/{client}"));
        let (linked, deleted) = tokio::join!(joe.post(&links, link(client)), staff.delete(&itself));
        match (linked.status, deleted.status) {
            (201, 409) => drop(staff.get(&itself).await.expect(200)),
            (404 | 409, 204) => drop(staff.get(&itself).await.expect(404)),
            _ => panic!("{linked:?} {deleted:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_racing_activations_for_one_did_one_wins() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let there = api.sign_in_again(&joe).await;
    let did = new_did(&joe, NUMBER).await;
    let one = new_campaign(&joe, "One", "paused").await;
    let two = new_campaign(&joe, "Two", "paused").await;
    for path in [&one, &two] {
        joe.put(&format!("{path}/dids"), json!({"didIds": [did]})).await.expect(200);
    }
    for _ in 0..ROUNDS {
        let active = json!({"status": "active"});
        let (a, b) = tokio::join!(joe.put(&one, active.clone()), there.put(&two, active.clone()));
        let refused = match (a.status, b.status) {
            (200, 409) => b,
            (409, 200) => a,
            _ => panic!("{a:?} {b:?}"),
        };
        assert_eq!(refused.refused_fields(409), ["status"]);
        for path in [&one, &two] {
            joe.put(path, json!({"status": "paused"})).await.expect(200);
        }
    }
}

/// In opposite order, so that whoever locks one row at a time may wait for the other for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_active_campaigns_that_take_the_same_dids_one_gets_them_all() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let there = api.sign_in_again(&joe).await;
    let (first, second) = (new_did(&joe, NUMBER).await, new_did(&joe, "+442071838751").await);
    let one = format!("{}/dids", new_campaign(&joe, "One", "active").await);
    let two = format!("{}/dids", new_campaign(&joe, "Two", "active").await);
    for _ in 0..ROUNDS {
        let (a, b) = tokio::join!(
            joe.put(&one, json!({"didIds": [first, second]})),
            there.put(&two, json!({"didIds": [second, first]})),
        );
        let (won, refused) = if a.status == 200 { (a, b) } else { (b, a) };
        assert_eq!(won.expect(200)["dids"].as_array().unwrap().len(), 2);
        assert_eq!(refused.refused_fields(409), ["didIds"]);
        for path in [&one, &two] {
            joe.put(path, json!({"didIds": []})).await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_did_that_is_put_into_a_campaign_while_it_is_deleted_leaves_nothing_half_done() {
    let api = TestApi::start().await;
    let joe = api.seller("joe").await;
    let there = api.sign_in_again(&joe).await;
    let own = new_campaign(&joe, "Solar", "active").await;
    for round in 0..ROUNDS {
        let did = new_did(&joe, &format!("+4420718387{round:02}")).await;
        let (dids, itself) = (format!("{own}/dids"), format!("/api/seller/dids/{did}"));
        let (put, deleted) =
            tokio::join!(joe.put(&dids, json!({"didIds": [did]})), there.delete(&itself));
        let outcome = (put.status, deleted.status);
        assert!(matches!(outcome, (200 | 404 | 409, 204)), "{put:?} {deleted:?}");
        assert_eq!(joe.get(&own).await.expect(200)["dids"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_link_that_is_changed_while_its_campaign_is_deleted_is_changed_or_gone() {
    let api = TestApi::start().await;
    let (staff, joe) = (api.staff().await, api.seller("joe").await);
    let there = api.sign_in_again(&joe).await;
    let client = new_client(&staff, "acme").await;
    for round in 0..ROUNDS {
        let own = new_campaign(&joe, &format!("Solar {round}"), "active").await;
        let setting = id(&joe.post(&format!("{own}/clients"), link(client)).await);
        let path = format!("{own}/clients/{setting}");
        let (changed, deleted) =
            tokio::join!(joe.put(&path, json!({"weight": 7})), there.delete(&own));
        let outcome = (changed.status, deleted.status);
        assert!(matches!(outcome, (200 | 404, 204)), "{changed:?} {deleted:?}");
    }
    staff.delete(&format!("/api/admin/clients/{client}")).await.expect(204);
}
