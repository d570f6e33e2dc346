//! The two OpenAPI documents, and Swagger UI for each.
//!
//! The documents are what sellers and admins build on, so they are checked in
//! under `openapi/`, and a test holds them equal to what is generated here.

use poem::Endpoint;
use poem::endpoint::make_sync;
use poem::web::Html;
use poem_openapi::{OpenApi, OpenApiService};

use super::admin::caps::CapsApi;
use super::admin::clients::ClientsApi;
use super::admin::users::UsersApi;
use super::allow::Allow;
use super::audit::AuditApi;
use super::auth::AuthApi;
use super::internal::log_call::LogCallApi;
use super::internal::route_info::RouteInfoApi;
use super::internal::verify::VerifyApi;
use super::live::{AdminLiveApi, SellerLiveApi};
use super::logs::{AdminLogsApi, SellerLogsApi};
use super::probes::ProbesApi;
use super::replay::ReplayApi;
use super::seller::campaigns::CampaignsApi;
use super::seller::dids::DidsApi;
use super::seller::links::LinksApi;
use super::simulate::{AdminSimulateApi, SellerSimulateApi};
use super::traffic::{AdminTrafficApi, SellerTrafficApi};
use super::usage::{AdminUsageApi, SellerUsageApi};
use super::wording;

/// The admins' document, in YAML.
pub fn admin_document() -> String {
    wording::to_yaml(&admin())
}

/// The sellers' document, in YAML.
pub fn seller_document() -> String {
    wording::to_yaml(&seller())
}

pub(super) fn admin_ui() -> impl Endpoint {
    page(wording::to_swagger_ui(&admin()))
}

pub(super) fn seller_ui() -> impl Endpoint {
    page(wording::to_swagger_ui(&seller()))
}

/// A page that needs nothing from elsewhere: script and style are in it.
fn page(html: String) -> impl Endpoint {
    make_sync(move |_| Html(html.clone()))
}

/// Every path there is, to be served.
pub(super) fn everything() -> OpenApiService<impl OpenApi, ()> {
    service("CapConduit", all_apis())
}

/// The methods that each path takes.
pub(super) fn allow() -> Allow {
    Allow::of(&all_apis())
}

fn admin() -> OpenApiService<impl OpenApi, ()> {
    service("CapConduit for admins", (ProbesApi, AuthApi, admin_apis())).description(
        "Operates the platform: accounts, call centres (clients) with their SIP endpoints, \
         call logs and live calls of all sellers.",
    )
}

fn seller() -> OpenApiService<impl OpenApi, ()> {
    service("CapConduit for sellers", (ProbesApi, AuthApi, seller_apis())).description(
        "Sells inbound calls under caps: numbers (DIDs), campaigns, links to clients with \
         their caps, call logs and live calls of one seller.",
    )
}

fn all_apis() -> impl OpenApi {
    (ProbesApi, AuthApi, admin_apis(), seller_apis())
}

fn admin_apis() -> impl OpenApi {
    (
        UsersApi,
        ClientsApi,
        AdminUsageApi,
        CapsApi,
        AdminLogsApi,
        AdminTrafficApi,
        AdminLiveApi,
        AdminSimulateApi,
        ReplayApi,
        AuditApi,
        RouteInfoApi,
        LogCallApi,
        VerifyApi,
    )
}

fn seller_apis() -> impl OpenApi {
    (
        DidsApi,
        CampaignsApi,
        LinksApi,
        SellerUsageApi,
        SellerLogsApi,
        SellerTrafficApi,
        SellerLiveApi,
        SellerSimulateApi,
    )
}

fn service<T: OpenApi>(title: &str, apis: T) -> OpenApiService<T, ()> {
    OpenApiService::new(apis, title, env!("CARGO_PKG_VERSION"))
}
