use serde_json::{Value, json};

use crate::support::api::{PASSWORD, TestApi, campaign, id};

fn user(name: &str, role: &str) -> Value {
    json!({
        "username": name,
        "email": format!("{name}@example.org"),
        "password": "a long password",
        "role": role,
    })
}

#[tokio::test]
async fn an_account_is_created_read_changed_and_deleted() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let mut new = user("joe", "user");
    new["username"] = json!("  joe ");
    let created = admin.post("/api/admin/users", new).await;
    let path = format!("/api/admin/users/{}", id(&created));
    let read = admin.get(&path).await.expect(200);
    assert_eq!(read["username"], "joe");
    assert_eq!(read["status"], "active");
    assert_eq!(read["fullName"], Value::Null);
    assert!(read["createdAt"].as_str().unwrap().ends_with('Z'));
    assert!(!created.text.contains("argon2") && !created.text.contains("password"));
    let change = json!({"fullName": "Joe Doe", "status": "suspended"});
    assert_eq!(admin.put(&path, change).await.expect(200)["fullName"], "Joe Doe");
    let change = json!({"fullName": null});
    assert_eq!(admin.put(&path, change).await.expect(200)["fullName"], Value::Null);
    admin.delete(&path).await.expect(204);
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    for name in ["ann", "bob", "cid"] {
        admin.post("/api/admin/users", user(name, "user")).await.expect(201);
    }
    let page = admin.get("/api/admin/users?page=2&per_page=3").await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let numbers = ["page", "perPage", "total", "pages"].map(|name| page[name].as_i64().unwrap());
    assert_eq!(numbers, [2, 3, 4, 2]);
    let refused = admin.get("/api/admin/users?page=0&per_page=201").await;
    assert_eq!(refused.refused_fields(400), ["page", "per_page"]);
}

#[tokio::test]
async fn a_taken_username_or_email_is_a_conflict_with_its_name() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    admin.post("/api/admin/users", user("joe", "user")).await.expect(201);
    let mut other = user("joe", "user");
    other["email"] = json!("other@example.org");
    let again = admin.post("/api/admin/users", other).await;
    assert_eq!(again.refused_fields(409), ["username"]);
    let mut other = user("jim", "user");
    other["email"] = json!("joe@example.org");
    let again = admin.post("/api/admin/users", other).await;
    assert_eq!(again.refused_fields(409), ["email"]);
}

#[tokio::test]
async fn the_last_active_admin_stays() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let me = format!("/api/admin/users/{}", admin.id);
    for change in [json!({"role": "user"}), json!({"status": "inactive"})] {
        admin.put(&me, change).await.expect(403);
    }
    admin.delete(&me).await.expect(403);
    let other = id(&admin.post("/api/admin/users", user("second", "admin")).await);
    let second = api.sign_in("second", "a long password").await;
    admin.delete(&me).await.expect(403);
    second.put(&me, json!({"role": "staff"})).await.expect(200);
    second.put(&format!("/api/admin/users/{other}"), json!({"role": "staff"})).await.expect(403);
}

#[tokio::test]
async fn two_admins_who_demote_each_other_leave_one() {
    let api = TestApi::start().await;
    let mut admin = api.admin().await;
    for round in 0..5 {
        let name = format!("other{round}");
        let other = api.person(&name, capconduit_entity::Role::Admin).await;
        let (me, them) =
            (format!("/api/admin/users/{}", admin.id), format!("/api/admin/users/{}", other.id));
        let demotion = json!({"role": "staff"});
        let (a, b) =
            tokio::join!(admin.put(&them, demotion.clone()), other.put(&me, demotion.clone()));
        match (a.status, b.status) {
            (200, 401 | 403) => {}
            (401 | 403, 200) => admin = other,
            statuses => panic!("{statuses:?}"),
        }
    }
}

#[tokio::test]
async fn staff_handle_sellers_only() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let staff = api.staff().await;
    let seller = api.seller("joe").await;
    for role in ["admin", "staff"] {
        staff.post("/api/admin/users", user("new", role)).await.expect(403);
    }
    for other in [admin.id, staff.id] {
        let path = format!("/api/admin/users/{other}");
        staff.get(&path).await.expect(403);
        staff.put(&path, json!({"fullName": "X"})).await.expect(403);
        staff.delete(&path).await.expect(403);
        let password = json!({"password": "a new password"});
        staff.put(&format!("{path}/password"), password).await.expect(403);
    }
    let path = format!("/api/admin/users/{}", seller.id);
    staff.put(&path, json!({"role": "admin"})).await.expect(403);
    staff.put(&path, json!({"companyName": "Joe Ltd"})).await.expect(200);
    let visible = staff.get("/api/admin/users").await.expect(200);
    assert_eq!(visible["total"], 1);
}

#[tokio::test]
async fn deactivation_and_a_reset_password_sign_out_everywhere() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let seller = api.seller("joe").await;
    let token = seller.post("/api/auth/tokens", json!({"name": "script"})).await.expect(201);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let script = api.nobody().with("authorization", bearer);
    let path = format!("/api/admin/users/{}", seller.id);
    let password = json!({"password": "a new password"});
    admin.put(&format!("{path}/password"), password).await.expect(200);
    seller.get("/api/auth/status").await.expect(401);
    script.get("/api/auth/status").await.expect(401);
    let seller = api.sign_in("joe", "a new password").await;
    admin.put(&path, json!({"status": "inactive"})).await.expect(200);
    seller.get("/api/auth/status").await.expect(401);
    admin.put(&path, json!({"status": "active"})).await.expect(200);
    seller.get("/api/auth/status").await.expect(401);
}

#[tokio::test]
async fn a_user_who_owns_campaigns_or_dids_is_not_deleted() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let seller = api.seller("joe").await;
    let path = format!("/api/admin/users/{}", seller.id);
    let campaign = id(&seller.post("/api/seller/campaigns", campaign("Solar")).await);
    assert_eq!(admin.delete(&path).await.refused_fields(409), ["id"]);
    seller.delete(&format!("/api/seller/campaigns/{campaign}")).await.expect(204);
    admin.delete(&path).await.expect(204);
    seller.get("/api/auth/status").await.expect(401);
    let login = json!({"username": "joe", "password": PASSWORD});
    api.nobody().post("/api/auth/login", login).await.expect(401);
}

#[tokio::test]
async fn a_seller_who_owns_dids_or_campaigns_stays_a_seller() {
    let api = TestApi::start().await;
    let admin = api.admin().await;
    let seller = api.seller("joe").await;
    let path = format!("/api/admin/users/{}", seller.id);
    let promotion = json!({"role": "staff"});
    let did = id(&seller.post("/api/seller/dids", json!({"number": "+442071838750"})).await);
    assert_eq!(admin.put(&path, promotion.clone()).await.refused_fields(409), ["role"]);
    seller.delete(&format!("/api/seller/dids/{did}")).await.expect(204);
    let campaign = id(&seller.post("/api/seller/campaigns", campaign("Solar")).await);
    assert_eq!(admin.put(&path, promotion.clone()).await.refused_fields(409), ["role"]);
    admin.put(&path, json!({"role": "user", "fullName": "Joe"})).await.expect(200);
    seller.delete(&format!("/api/seller/campaigns/{campaign}")).await.expect(204);
    admin.put(&path, promotion).await.expect(200);
}
