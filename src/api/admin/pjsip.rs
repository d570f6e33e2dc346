//! A client's SIP endpoint, as it is sent, and as the rows that Asterisk reads.
//!
//! One bad value makes Asterisk drop a whole object, so nothing is written
//! that it could stumble over, and the three objects must name each other.

mod answer;
mod change;

use capconduit_entity::{pjsip_aor, pjsip_auth, pjsip_endpoint};
use poem_openapi::{Enum, Object};
use serde_json::Value;

pub use answer::Pjsip;
pub use change::{Draft, PjsipChange};

use crate::api::input::{Codecs, PjsipId, PjsipText, PjsipUser, SipUri, YesNo};
use crate::api::problem::FieldErrors;
use crate::store::clients::Realtime;

/// How a client's calls are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum AuthType {
    /// Username and password.
    UserPass,
}

impl AuthType {
    /// As Asterisk reads it.
    const fn text(self) -> &'static str {
        match self {
            Self::UserPass => "userpass",
        }
    }
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct NewPjsip {
    pub endpoint: NewEndpoint,
    pub aor: NewAor,
    #[oai(nullable)]
    pub auth: Option<NewAuth>,
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewEndpoint {
    #[oai(validator(max_length = 100))]
    id: PjsipId,
    /// The name of a transport of the switch; it chooses if left away.
    #[oai(validator(max_length = 40), nullable)]
    transport: Option<PjsipId>,
    /// The `id` of the AOR below.
    #[oai(validator(max_length = 100))]
    aors: PjsipId,
    /// The `id` of the auth below, with which calls *from* the client are challenged.
    #[oai(validator(max_length = 100), nullable)]
    auth: Option<PjsipId>,
    #[oai(validator(max_length = 40))]
    context: PjsipId,
    /// `all` if left away.
    #[oai(validator(max_length = 200))]
    disallow: Option<Codecs>,
    /// `ulaw,alaw,gsm` if left away.
    #[oai(validator(max_length = 200))]
    allow: Option<Codecs>,
    /// `no` if left away.
    direct_media: Option<YesNo>,
    /// The `id` of the auth below, with which calls *to* the client are authenticated.
    #[oai(validator(max_length = 100), nullable)]
    outbound_auth: Option<PjsipId>,
    #[oai(validator(max_length = 100), nullable)]
    from_user: Option<PjsipUser>,
    #[oai(validator(max_length = 100), nullable)]
    from_domain: Option<PjsipText>,
    #[oai(validator(max_length = 200), nullable)]
    callerid: Option<PjsipText>,
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewAor {
    #[oai(validator(max_length = 100))]
    id: PjsipId,
    /// Where the client is reached: any `sip:` or `sips:` address, without parameters.
    #[oai(validator(max_length = 255))]
    contact: SipUri,
    /// 1 if left away.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    max_contacts: Option<i32>,
    /// Seconds between probes (OPTIONS), 0 for none; 60 if left away.
    ///
    /// A client that doesn't answer them is passed over. Where a value is given,
    /// probing begins at once; where it is left away, when Asterisk next starts.
    #[oai(validator(minimum(value = "0"), maximum(value = "86400")))]
    qualify_frequency: Option<i32>,
}

impl NewAor {
    /// Whether probing is to begin at once.
    pub fn asks_for_probing(&self) -> bool {
        self.qualify_frequency.is_some_and(|seconds| seconds > 0)
    }
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewAuth {
    #[oai(validator(max_length = 100))]
    id: PjsipId,
    /// `userpass` if left away.
    auth_type: Option<AuthType>,
    #[oai(validator(max_length = 100), nullable)]
    username: Option<PjsipText>,
    /// Write only: it is never sent back.
    #[oai(validator(max_length = 100), write_only, nullable)]
    password: Option<PjsipText>,
    #[oai(validator(max_length = 100), nullable)]
    realm: Option<PjsipText>,
}

/// How the three objects name each other.
#[derive(Clone, Copy, Default)]
struct Names<'a> {
    aor: Option<&'a str>,
    auth: Option<&'a str>,
    has_auth: bool,
    endpoint_aors: Option<&'a str>,
    endpoint_auth: Option<&'a str>,
    endpoint_outbound_auth: Option<&'a str>,
}

/// Complains where a new client's objects don't name each other.
pub fn judge_new(pjsip: &Value, errors: &mut FieldErrors) {
    let text = |path: &str| pjsip.pointer(path).and_then(Value::as_str);
    let names = Names {
        aor: text("/aor/id"),
        auth: text("/auth/id"),
        has_auth: pjsip.get("auth").is_some_and(|auth| !auth.is_null()),
        endpoint_aors: text("/endpoint/aors"),
        endpoint_auth: text("/endpoint/auth"),
        endpoint_outbound_auth: text("/endpoint/outboundAuth"),
    };
    names.judge(errors);
}

impl Names<'_> {
    fn judge(&self, errors: &mut FieldErrors) {
        if let (Some(named), Some(id)) = (self.endpoint_aors, self.aor)
            && named != id
        {
            errors.add("pjsip.endpoint.aors", format!("must be the id of pjsip.aor, {id:?}"));
        }
        for (field, named) in [
            ("pjsip.endpoint.auth", self.endpoint_auth),
            ("pjsip.endpoint.outboundAuth", self.endpoint_outbound_auth),
        ] {
            match (named, self.auth) {
                (Some(_), None) if !self.has_auth => {
                    errors.add(field, "names an auth, but there is no pjsip.auth");
                }
                (Some(named), Some(id)) if named != id => {
                    errors.add(field, format!("must be the id of pjsip.auth, {id:?}"));
                }
                _ => {}
            }
        }
    }
}

impl From<NewPjsip> for Realtime {
    fn from(new: NewPjsip) -> Self {
        Self { endpoint: new.endpoint.into(), aor: new.aor.into(), auth: new.auth.map(Into::into) }
    }
}

impl From<NewEndpoint> for pjsip_endpoint::Model {
    fn from(new: NewEndpoint) -> Self {
        Self {
            id: new.id.into(),
            transport: or_empty(new.transport),
            aors: new.aors.into(),
            auth: or_empty(new.auth),
            context: new.context.into(),
            disallow: new.disallow.map_or_else(|| "all".to_owned(), Into::into),
            allow: new.allow.map_or_else(|| "ulaw,alaw,gsm".to_owned(), Into::into),
            direct_media: new.direct_media.unwrap_or(YesNo::No).text().to_owned(),
            outbound_auth: or_empty(new.outbound_auth),
            from_user: or_empty(new.from_user),
            from_domain: or_empty(new.from_domain),
            callerid: or_empty(new.callerid),
        }
    }
}

impl From<NewAor> for pjsip_aor::Model {
    fn from(new: NewAor) -> Self {
        Self {
            id: new.id.into(),
            contact: new.contact.into(),
            max_contacts: new.max_contacts.unwrap_or(1),
            qualify_frequency: new.qualify_frequency.unwrap_or(60),
        }
    }
}

impl From<NewAuth> for pjsip_auth::Model {
    fn from(new: NewAuth) -> Self {
        Self {
            id: new.id.into(),
            auth_type: new.auth_type.unwrap_or(AuthType::UserPass).text().to_owned(),
            username: or_empty(new.username),
            password: or_empty(new.password),
            realm: or_empty(new.realm),
        }
    }
}

fn or_empty(given: Option<impl Into<String>>) -> String {
    given.map(Into::into).unwrap_or_default()
}
