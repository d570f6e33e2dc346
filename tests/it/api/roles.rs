use crate::support::api::TestApi;

const ADMIN_PATHS: &[&str] =
    &["/api/admin/users", "/api/admin/clients", "/api/admin/logs", "/api/admin/live"];
const SELLER_PATHS: &[&str] = &[
    "/api/seller/dids",
    "/api/seller/campaigns",
    "/api/seller/campaigns/available_clients",
    "/api/seller/logs",
    "/api/seller/live",
];

#[tokio::test]
async fn everyone_sees_their_own_side_and_no_other() {
    let api = TestApi::start().await;
    let (admin, staff) = (api.admin().await, api.staff().await);
    let (seller, nobody) = (api.seller("joe").await, api.nobody());
    for path in ADMIN_PATHS {
        admin.get(path).await.expect(200);
        staff.get(path).await.expect(200);
        seller.get(path).await.expect(403);
        nobody.get(path).await.expect(401);
    }
    for path in SELLER_PATHS {
        admin.get(path).await.expect(403);
        staff.get(path).await.expect(403);
        seller.get(path).await.expect(200);
        nobody.get(path).await.expect(401);
    }
}
