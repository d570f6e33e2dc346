//! For a dialplan that must route without the Stasis application.
//!
//! It asks who may get a call ([`route_info`]), dials by itself, and tells
//! afterwards what became of the call ([`log_call`]). It proves who it is by a
//! token of its own, in a header. Nothing is held while it dials, so only the
//! application keeps caps exactly; here they are kept as well as two separate
//! questions can.

pub mod log_call;
pub mod route_info;
pub mod verify;

use std::fmt;
use std::sync::Arc;

use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use subtle::ConstantTimeEq;

use super::Backend;
use super::audit::{Author, Origin, Write};
use super::password::fingerprint;
use super::problem::wrong_token;

/// The header that holds the token.
const HEADER: &str = "X-Internal-API-Token";

/// What the dialplan proves itself with. Without one, nobody is let in.
#[derive(Clone, Default)]
pub struct InternalToken {
    hash: Option<String>,
}

/// The dialplan, which sent the right token.
pub struct Dialplan {
    pub backend: Arc<Backend>,
    origin: Origin,
}

impl InternalToken {
    /// The token as it is set; an empty one admits nobody.
    pub fn new(token: &str) -> Self {
        Self { hash: (!token.is_empty()).then(|| fingerprint(token)) }
    }

    /// Compares hashes, and all of them: the time tells nothing of the token.
    fn admits(&self, sent: &str) -> bool {
        let sent = fingerprint(sent);
        self.hash.as_ref().is_some_and(|hash| hash.as_bytes().ct_eq(sent.as_bytes()).into())
    }
}

impl fmt::Debug for InternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InternalToken(..)")
    }
}

impl Dialplan {
    async fn begin_write(&self) -> Result<Write, sea_orm::DbErr> {
        Write::begin(&self.backend.db, Author::Dialplan, self.origin.clone()).await
    }
}

impl<'a> ApiExtractor<'a> for Dialplan {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme("internal", scheme());
    }

    fn security_schemes() -> Vec<&'static str> {
        vec!["internal"]
    }

    async fn from_request(
        request: &'a Request,
        _: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        let backend = Backend::of(request)?;
        let sent = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
        if !sent.is_some_and(|sent| backend.internal_token.admits(sent)) {
            return Err(wrong_token().into());
        }
        Ok(Self { backend: backend.clone(), origin: Origin::of(request) })
    }
}

fn scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "apiKey",
        description: Some("The token of the setting `internal.token`."),
        name: Some(HEADER),
        key_in: Some("header"),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}
