//! Who is asking, and whether they may.
//!
//! A request proves who sent it by a bearer token or by the session cookie.
//! Operations name who may call them by the type of their first argument:
//! [`Anyone`] signed in, a [`Seller`], an [`Operator`] (admin or staff).
//! A session cookie travels with every request that a browser makes, also one
//! that a foreign page started, so requests that change something and come by
//! cookie must come from our own pages.

use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use capconduit_entity::{Role, UserStatus, user};
use poem::http::{HeaderMap, Method, header};
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use sea_orm::{DatabaseConnection, DbErr};

use super::Backend;
use super::audit::Origin;
use super::password::fingerprint;
use super::problem::{Problem, forbidden, not_signed_in};
use crate::clock;
use crate::store::sessions;

/// The name of the session cookie.
pub const COOKIE: &str = "capconduit_session";

/// A signed-in user of a kind `K`.
pub struct Caller<K> {
    /// What the request works on.
    pub backend: Arc<Backend>,
    pub user: user::Model,
    /// What the request proved by who sent it.
    pub credential: Credential,
    pub origin: Origin,
    kind: PhantomData<K>,
}

/// What proves who somebody is: known by its hash alone.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A session, named by the cookie.
    Session(String),
    /// An API token.
    Token(String),
}

/// Which roles a kind of caller has.
pub trait Kind: Send + Sync + 'static {
    const WHO: &'static str;
    fn admits(role: Role) -> bool;
}

macro_rules! callers {
    ($($(#[$meta:meta])* $name:ident($kind:ident) = $who:literal, $($role:ident)|+;)+) => {$(
        #[derive(Debug)]
        pub struct $kind;

        $(#[$meta])*
        pub type $name = Caller<$kind>;

        impl Kind for $kind {
            const WHO: &'static str = $who;

            fn admits(role: Role) -> bool {
                matches!(role, $(Role::$role)|+)
            }
        }
    )+};
}

callers! {
    /// Whoever is signed in.
    Anyone(AnyoneKind) = "everyone", Admin | Staff | User;
    /// A seller: nobody else has DIDs, campaigns and calls of their own.
    Seller(SellerKind) = "sellers", User;
    /// An admin or staff.
    Operator(OperatorKind) = "admins and staff", Admin | Staff;
    /// An admin: nobody else reads the audit log.
    Admin(AdminKind) = "admins", Admin;
}

impl<K> Caller<K> {
    pub fn is_admin(&self) -> bool {
        self.user.role == Role::Admin
    }
}

impl<K: Kind> Caller<K> {
    /// Whether the same request would be let in now, and answered alike.
    ///
    /// # Errors
    /// When the database can't be asked.
    pub async fn is_still_admitted(&self) -> Result<bool, DbErr> {
        let user = self.credential.user(&self.backend.db).await?;
        Ok(active(user).is_ok_and(|user| user.role == self.user.role))
    }
}

impl Credential {
    async fn user(&self, db: &DatabaseConnection) -> Result<Option<user::Model>, DbErr> {
        match self {
            Self::Session(hash) => sessions::user_of_session(db, hash, clock::now()).await,
            Self::Token(hash) => sessions::user_of_token(db, hash).await,
        }
    }

    /// The hash of the session's id, if it is one.
    pub fn session(self) -> Option<String> {
        match self {
            Self::Session(hash) => Some(hash),
            Self::Token(_) => None,
        }
    }
}

impl<'a, K: Kind> ApiExtractor<'a> for Caller<K> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("session", cookie_scheme());
        registry.create_security_scheme("token", bearer_scheme());
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["session", "token"]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let backend = Backend::of(request)?;
        let (user, credential) = identify(backend, request).await?;
        if !K::admits(user.role) {
            return Err(forbidden(format!("This is for {} only.", K::WHO)).into());
        }
        let origin = Origin::of(request);
        Ok(Self { backend: backend.clone(), user, credential, origin, kind: PhantomData })
    }
}

async fn identify(
    backend: &Backend,
    request: &Request,
) -> Result<(user::Model, Credential), Problem> {
    let credential = match request.headers().get(header::AUTHORIZATION) {
        Some(authorization) => {
            let token = authorization.to_str().ok().and_then(bearer).ok_or_else(not_signed_in)?;
            Credential::Token(fingerprint(token))
        }
        None => {
            let id = session_cookie(request.headers()).ok_or_else(not_signed_in)?;
            Credential::Session(fingerprint(id))
        }
    };
    let user = active(credential.user(&backend.db).await?)?;
    if matches!(credential, Credential::Session(_)) {
        refuse_foreign_page(request)?;
    }
    Ok((user, credential))
}

fn active(user: Option<user::Model>) -> Result<user::Model, Problem> {
    user.filter(|user| user.status == UserStatus::Active).ok_or_else(not_signed_in)
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of the session cookie.
pub fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// The address that a request came from: that of the peer, whatever headers claim.
pub fn peer(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(SocketAddr::ip)
}

/// Refuses a write that a page of another site started.
///
/// Browsers say where a request comes from in `Sec-Fetch-Site`, older ones in
/// `Origin`; a program that sends neither carries no one else's cookies.
///
/// # Errors
/// A 403.
pub fn refuse_foreign_page(request: &Request) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let is_own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text("host")
        }
        (None, None) => true,
    };
    if is_own { Ok(()) } else { Err(forbidden("This request was started by a foreign page.")) }
}

fn cookie_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "apiKey",
        description: Some("The cookie that signing in sets."),
        name: Some(COOKIE),
        key_in: Some("cookie"),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}

fn bearer_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some("An API token, made at `/api/auth/tokens`."),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}
