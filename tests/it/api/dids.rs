use serde_json::json;

use crate::support::api::{TestApi, id};

#[tokio::test]
async fn a_did_is_created_read_changed_and_deleted() {
    let api = TestApi::start().await;
    let seller = api.seller("joe").await;
    let new = json!({"number": " +442071838750 ", "description": "London"});
    let path = format!("/api/seller/dids/{}", id(&seller.post("/api/seller/dids", new).await));
    let did = seller.get(&path).await.expect(200);
    assert_eq!(did["number"], "+442071838750");
    assert_eq!(did["status"], "active");
    let changed = seller.put(&path, json!({"status": "inactive"})).await.expect(200);
    assert_eq!(changed["status"], "inactive");
    assert_eq!(changed["description"], "London");
    assert_eq!(seller.get("/api/seller/dids?status=active").await.expect(200)["total"], 0);
    assert_eq!(seller.get("/api/seller/dids?status=inactive").await.expect(200)["total"], 1);
    seller.delete(&path).await.expect(204);
    seller.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_number_is_unique_over_all_sellers() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    let new = json!({"number": "+442071838750"});
    joe.post("/api/seller/dids", new.clone()).await.expect(201);
    assert_eq!(eve.post("/api/seller/dids", new).await.refused_fields(409), ["number"]);
}

#[tokio::test]
async fn of_two_racing_sellers_one_gets_the_number() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    for line in 0..5 {
        let new = json!({"number": format!("+44207183875{line}")});
        let (a, b) = tokio::join!(
            joe.post("/api/seller/dids", new.clone()),
            eve.post("/api/seller/dids", new)
        );
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409]);
    }
}

#[tokio::test]
async fn another_sellers_did_is_not_there() {
    let api = TestApi::start().await;
    let (joe, eve) = (api.seller("joe").await, api.seller("eve").await);
    let new = json!({"number": "+442071838750"});
    let path = format!("/api/seller/dids/{}", id(&joe.post("/api/seller/dids", new).await));
    eve.get(&path).await.expect(404);
    eve.put(&path, json!({"status": "inactive"})).await.expect(404);
    eve.delete(&path).await.expect(404);
    assert_eq!(eve.get("/api/seller/dids").await.expect(200)["total"], 0);
}
