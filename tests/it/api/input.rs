use serde_json::{Value, json};

use crate::support::api::{TestApi, client};

#[tokio::test]
async fn one_answer_names_every_bad_field() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let bad = json!({
        "clientIdentifier": "   ",
        "name": 7,
        "department": "two\nlines",
        "status": "asleep",
        "maxConcurrency": 0,
        "colour": "red",
        "pjsip": {
            "endpoint": {
                "id": "a/b@c;d",
                "aors": "other",
                "auth": "nobody",
                "context": "x y",
                "allow": "ulaw,morse",
                "directMedia": "maybe",
                "callerid": "Joe;Doe",
            },
            "aor": {"id": "right", "contact": "tel:+4420", "maxContacts": "many"},
            "auth": {"username": "u"},
        },
    });
    let refused = staff.post("/api/admin/clients", bad).await;
    assert_eq!(
        refused.refused_fields(400),
        [
            "clientIdentifier",
            "colour",
            "department",
            "maxConcurrency",
            "name",
            "pjsip.aor.contact",
            "pjsip.aor.maxContacts",
            "pjsip.auth.id",
            "pjsip.endpoint.allow",
            "pjsip.endpoint.aors",
            "pjsip.endpoint.callerid",
            "pjsip.endpoint.context",
            "pjsip.endpoint.directMedia",
            "pjsip.endpoint.id",
            "status",
        ]
    );
}

#[tokio::test]
async fn objects_of_an_endpoint_must_name_each_other() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    let mut strangers = client("acme");
    strangers["pjsip"]["endpoint"]["aors"] = json!("other");
    strangers["pjsip"]["endpoint"]["auth"] = json!("other");
    let refused = staff.post("/api/admin/clients", strangers).await;
    assert_eq!(refused.refused_fields(400), ["pjsip.endpoint.aors", "pjsip.endpoint.auth"]);
    let mut missing = client("acme");
    missing["pjsip"]["auth"] = Value::Null;
    let refused = staff.post("/api/admin/clients", missing).await;
    assert_eq!(refused.refused_fields(400), ["pjsip.endpoint.outboundAuth"]);
}

#[tokio::test]
async fn a_contact_that_could_break_out_of_its_column_is_refused() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    for contact in ["sip:a@b;transport=tcp", "sip:a@b\r\nx", "sip:a@b,sip:c@d", "http://x", ""] {
        let mut bad = client("acme");
        bad["pjsip"]["aor"]["contact"] = json!(contact);
        let refused = staff.post("/api/admin/clients", bad).await;
        assert_eq!(refused.refused_fields(400), ["pjsip.aor.contact"], "{contact:?}");
    }
}

#[tokio::test]
async fn a_user_that_asterisk_would_drop_the_endpoint_for_is_refused() {
    let api = TestApi::start().await;
    let staff = api.staff().await;
    for user in ["a b", "zoë", "a@b", "a/b", "<a>"] {
        let mut bad = client("acme");
        bad["pjsip"]["endpoint"]["fromUser"] = json!(user);
        let refused = staff.post("/api/admin/clients", bad).await;
        assert_eq!(refused.refused_fields(400), ["pjsip.endpoint.fromUser"], "{user:?}");
    }
}

#[tokio::test]
async fn a_formatted_number_is_refused_with_the_number_that_was_meant() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let refused = seller.post("/api/seller/dids", json!({"number": "+44 (20) 7183-8750"})).await;
    assert_eq!(refused.refused_fields(400), ["number"]);
    assert!(refused.text.contains("+442071838750"), "{}", refused.text);
    for number in ["2071838750", "+0123456789", "+12", "", "+44;20"] {
        let refused = seller.post("/api/seller/dids", json!({"number": number})).await;
        assert_eq!(refused.refused_fields(400), ["number"], "{number}");
    }
}

#[tokio::test]
async fn an_update_must_change_something_it_knows() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let did = seller.post("/api/seller/dids", json!({"number": "+442071838750"})).await.expect(201);
    let path = format!("/api/seller/dids/{}", did["id"]);
    seller.put(&path, json!({})).await.expect(400);
    let refused = seller.put(&path, json!({"number": "+442071838751"})).await;
    assert_eq!(refused.refused_fields(400), ["number"]);
    let refused = seller.put(&path, json!({"status": null})).await;
    assert_eq!(refused.refused_fields(400), ["status"]);
    let refused = seller.put(&path, json!({"description": "x".repeat(1001)})).await;
    assert_eq!(refused.refused_fields(400), ["description"]);
}

#[tokio::test]
async fn numbers_are_held_within_what_columns_hold() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let bad = json!({
        "clientId": 1,
        "maxConcurrency": 0,
        "forwardingPriority": 4_294_967_296_i64,
        "weight": 1.5,
        "totalCallsAllowed": -1,
        "timeZone": "Mars/Base",
    });
    let refused = seller.post("/api/seller/campaigns/1/clients", bad).await;
    assert_eq!(
        refused.refused_fields(400),
        ["forwardingPriority", "maxConcurrency", "timeZone", "totalCallsAllowed", "weight"]
    );
    let bad =
        json!({"name": "x".repeat(201), "routingStrategy": "best", "dialTimeoutSeconds": 601});
    let refused = seller.post("/api/seller/campaigns", bad).await;
    assert_eq!(refused.refused_fields(400), ["dialTimeoutSeconds", "name", "routingStrategy"]);
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    seller.get("/api/nothing/here").await.expect(404);
    seller.get("/nothing").await.expect(404);
    seller.delete("/api/seller/dids").await.expect(405);
    seller.get("/api/seller/dids/abc").await.expect(400);
    seller.post_raw("/api/seller/dids", "application/json", "{\"number\":").await.expect(400);
    seller.post_raw("/api/seller/dids", "application/json", "[]").await.expect(400);
    seller.post_raw("/api/seller/dids", "application/json", "").await.expect(400);
    seller.post_raw("/api/seller/dids", "text/plain", "{}").await.expect(415);
    let large = format!("{{\"number\": \"{}\"}}", "1".repeat(64 * 1024));
    seller.post_raw("/api/seller/dids", "application/json", large).await.expect(413);
    api.nobody().get("/api/seller/dids").await.expect(401);
    api.nobody().with("authorization", "Bearer cc_wrong").get("/api/auth/status").await.expect(401);
    api.nobody().with("authorization", "Basic eDp5").get("/api/auth/status").await.expect(401);
}
