use capconduit::api::create_first_admin;
use capconduit::clock;
use serde_json::json;

use crate::support::api::{Answer, PASSWORD, TestApi, id};

#[tokio::test]
async fn a_session_lasts_from_sign_in_to_sign_out() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let status = seller.get("/api/auth/status").await.expect(200);
    assert_eq!(status["loggedIn"], true);
    assert_eq!(status["user"]["username"], "joe");
    assert_eq!(status["user"]["role"], "user");
    assert!(status["user"].get("passwordHash").is_none());
    seller.post("/api/auth/logout", json!({})).await.expect(200);
    seller.get("/api/auth/status").await.expect(401);
}

#[tokio::test]
async fn wrong_password_unknown_user_and_inactive_account_get_the_same_answer() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let seller = api.seller("joe").await;
    admin.put(&format!("/api/admin/users/{}", seller.id), json!({"status": "suspended"})).await;
    let login = |name: &'static str, password: &'static str| {
        let nobody = api.nobody();
        async move {
            nobody
                .post("/api/auth/login", json!({"username": name, "password": password}))
                .await
                .expect(401)
        }
    };
    let wrong = login("boss", "not the password").await;
    assert_eq!(wrong, login("nobody-at-all", "not the password").await);
    assert_eq!(wrong, login("joe", PASSWORD).await);
}

#[tokio::test]
async fn signing_in_names_every_missing_field() {
    let api = TestApi::start().await;
    let refused = api.nobody().post("/api/auth/login", json!({})).await;
    assert_eq!(refused.refused_fields(400), ["password", "username"]);
}

#[tokio::test]
async fn the_session_cookie_is_kept_from_scripts_and_other_sites() {
    let api = TestApi::start().await;
    api.seller("joe").await;
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{}/api/auth/login", api.base))
        .json(&json!({"username": "joe", "password": PASSWORD}))
        .send()
        .await
        .unwrap();
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
}

#[tokio::test]
async fn a_write_that_a_foreign_page_started_is_refused() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let did = json!({"number": "+442071838750"});
    for (header, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let page = seller.with(header, value);
        page.post("/api/seller/dids", did.clone()).await.expect(403);
        page.get("/api/seller/dids").await.expect(200);
    }
    let own = seller.with("sec-fetch-site", "same-origin").with("origin", api.base.clone());
    own.post("/api/seller/dids", did).await.expect(201);
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions_and_all_tokens() {
    let api = TestApi::start().await;
    let here = api.seller("joe").await;
    let there = api.sign_in("joe", PASSWORD).await;
    let wrong = json!({"currentPassword": "wrong", "newPassword": "another password"});
    let refused = here.put("/api/auth/password", wrong).await;
    assert_eq!(refused.refused_fields(400), ["currentPassword"]);
    let right = json!({"currentPassword": PASSWORD, "newPassword": "another password"});
    let token = here.post("/api/auth/tokens", json!({"name": "script"})).await.expect(201);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    here.put("/api/auth/password", right).await.expect(200);
    api.nobody().with("authorization", bearer).get("/api/auth/status").await.expect(401);
    here.get("/api/auth/status").await.expect(200);
    there.get("/api/auth/status").await.expect(401);
    api.sign_in("joe", "another password").await;
}

#[tokio::test]
async fn a_token_works_until_it_is_deleted_and_is_shown_once() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let created = seller.post("/api/auth/tokens", json!({"name": "billing"})).await;
    let token = created.expect(201)["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("cc_"));
    let script = api.nobody().with("authorization", format!("Bearer {token}"));
    assert_eq!(script.get("/api/auth/status").await.expect(200)["user"]["username"], "joe");
    let listed = seller.get("/api/auth/tokens").await;
    assert_eq!(listed.expect(200)["items"][0]["name"], "billing");
    assert!(!listed.text.contains(&token));
    let path = format!("/api/auth/tokens/{}", id(&created));
    api.seller("eve").await.delete(&path).await.expect(404);
    seller.delete(&path).await.expect(204);
    script.get("/api/auth/status").await.expect(401);
}

#[tokio::test]
async fn the_first_admin_is_created_once() {
    let api = TestApi::start().await;
    let db = &api.backend.db;
    let password = create_first_admin(db, clock::now()).await.unwrap().unwrap();
    assert_eq!(password.len(), 20);
    api.sign_in("admin", &password).await.get("/api/admin/users").await.expect(200);
    assert_eq!(create_first_admin(db, clock::now()).await.unwrap(), None);
}

async fn guess(api: &TestApi, name: &str) -> Answer {
    let guess = json!({"username": name, "password": "not the password"});
    api.nobody().post("/api/auth/login", guess).await
}

#[tokio::test]
async fn an_account_that_was_guessed_at_too_often_waits_there_or_not() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    api.seller("ann").await;
    for name in ["joe", "nobody-at-all"] {
        for _ in 0..10 {
            guess(&api, name).await.expect(401);
        }
        let refused = guess(&api, name).await;
        refused.expect(429);
        assert!((890..=900).contains(&refused.retry_after.unwrap()), "{refused:?}");
    }
    // The right password isn't looked at either, nor is it elsewhere.
    let right = json!({"username": "joe", "password": PASSWORD});
    api.nobody().post("/api/auth/login", right).await.expect(429);
    let change = json!({"currentPassword": PASSWORD, "newPassword": "another password"});
    seller.put("/api/auth/password", change).await.expect(429);
    seller.get("/api/auth/status").await.expect(200);
    api.sign_in("ann", PASSWORD).await;
}

#[tokio::test]
async fn an_address_that_guesses_at_many_accounts_waits() {
    let api = TestApi::start().await;
    api.seller("joe").await;
    let guesses = (0..50).map(|number| {
        let api = &api;
        async move { guess(api, &format!("guess{number}")).await.status }
    });
    let statuses = futures_util::future::join_all(guesses).await;
    assert_eq!(statuses, [401; 50]);
    guess(&api, "guess50").await.expect(429);
    let right = json!({"username": "joe", "password": PASSWORD});
    api.nobody().post("/api/auth/login", right).await.expect(429);
}

#[tokio::test]
async fn guesses_sent_at_once_are_all_counted() {
    let api = TestApi::start().await;
    let guesses = (0..20).map(|_| async { guess(&api, "joe").await.status });
    let mut statuses = futures_util::future::join_all(guesses).await;
    statuses.sort_unstable();
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 10);
}
