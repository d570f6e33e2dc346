//! A client's SIP endpoint, as it is sent, and as the rows that Asterisk reads.
//!
//! One bad value makes Asterisk drop a whole object, so nothing is written
//! that it could stumble over, and the three objects must name each other.

use capconduit_entity::{pjsip_aor, pjsip_auth, pjsip_endpoint};
use poem_openapi::types::MaybeUndefined;
use poem_openapi::{Enum, Object};
use serde_json::Value;

use crate::api::input::{Clearable, Codecs, Given, PjsipId, PjsipText, SipUri, YesNo};
use crate::api::problem::FieldErrors;
use crate::store::clients::Realtime;

/// How a client's calls are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum AuthType {
    /// Username and password.
    UserPass,
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
    from_user: Option<PjsipText>,
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
    /// Seconds between probes, 0 for none; 60 if left away.
    #[oai(validator(minimum(value = "0"), maximum(value = "86400")))]
    qualify_frequency: Option<i32>,
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewAuth {
    #[oai(validator(max_length = 100))]
    id: PjsipId,
    auth_type: Option<AuthType>,
    #[oai(validator(max_length = 100), nullable)]
    username: Option<PjsipText>,
    /// Write only: it is never sent back.
    #[oai(validator(max_length = 100), write_only, nullable)]
    password: Option<PjsipText>,
    #[oai(validator(max_length = 100), nullable)]
    realm: Option<PjsipText>,
}

#[derive(Object)]
#[oai(deny_unknown_fields)]
pub struct PjsipChange {
    pub endpoint: Given<EndpointChange>,
    pub aor: Given<AorChange>,
    /// `null` removes it.
    #[oai(nullable)]
    pub auth: Clearable<AuthChange>,
}

#[derive(Default, Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct EndpointChange {
    #[oai(validator(max_length = 100))]
    id: Given<PjsipId>,
    #[oai(validator(max_length = 40), nullable)]
    transport: Clearable<PjsipId>,
    #[oai(validator(max_length = 100))]
    aors: Given<PjsipId>,
    #[oai(validator(max_length = 100), nullable)]
    auth: Clearable<PjsipId>,
    #[oai(validator(max_length = 40))]
    context: Given<PjsipId>,
    #[oai(validator(max_length = 200))]
    disallow: Given<Codecs>,
    #[oai(validator(max_length = 200))]
    allow: Given<Codecs>,
    direct_media: Given<YesNo>,
    #[oai(validator(max_length = 100), nullable)]
    outbound_auth: Clearable<PjsipId>,
    #[oai(validator(max_length = 100), nullable)]
    from_user: Clearable<PjsipText>,
    #[oai(validator(max_length = 100), nullable)]
    from_domain: Clearable<PjsipText>,
    #[oai(validator(max_length = 200), nullable)]
    callerid: Clearable<PjsipText>,
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct AorChange {
    #[oai(validator(max_length = 100))]
    id: Given<PjsipId>,
    #[oai(validator(max_length = 255))]
    contact: Given<SipUri>,
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    max_contacts: Given<i32>,
    #[oai(validator(minimum(value = "0"), maximum(value = "86400")))]
    qualify_frequency: Given<i32>,
}

#[derive(Object)]
#[oai(deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthChange {
    #[oai(validator(max_length = 100))]
    id: Given<PjsipId>,
    auth_type: Given<AuthType>,
    #[oai(validator(max_length = 100), nullable)]
    username: Clearable<PjsipText>,
    /// Write only: it is never sent back.
    #[oai(validator(max_length = 100), write_only, nullable)]
    password: Clearable<PjsipText>,
    #[oai(validator(max_length = 100), nullable)]
    realm: Clearable<PjsipText>,
}

/// A client's PJSIP objects.
#[derive(Object)]
pub struct Pjsip {
    endpoint: Endpoint,
    aor: Aor,
    #[oai(nullable)]
    auth: Option<Auth>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Endpoint {
    id: String,
    #[oai(nullable)]
    transport: Option<String>,
    aors: String,
    #[oai(nullable)]
    auth: Option<String>,
    context: String,
    disallow: String,
    allow: String,
    direct_media: String,
    #[oai(nullable)]
    outbound_auth: Option<String>,
    #[oai(nullable)]
    from_user: Option<String>,
    #[oai(nullable)]
    from_domain: Option<String>,
    #[oai(nullable)]
    callerid: Option<String>,
}

#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Aor {
    id: String,
    contact: String,
    max_contacts: i32,
    qualify_frequency: i32,
}

/// Without its password, which is write only.
#[derive(Object)]
#[oai(rename_all = "camelCase")]
struct Auth {
    id: String,
    auth_type: String,
    #[oai(nullable)]
    username: Option<String>,
    #[oai(nullable)]
    realm: Option<String>,
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

/// An update of the rows that Asterisk reads.
pub struct Draft<'a>(pub &'a mut Realtime);

impl Draft<'_> {
    /// Complains where the objects don't name each other.
    fn judge(&self, errors: &mut FieldErrors) {
        let some = |text: &'_ str| (!text.is_empty()).then_some(text.to_owned());
        let (auth, outbound) = (some(&self.0.endpoint.auth), some(&self.0.endpoint.outbound_auth));
        let names = Names {
            aor: Some(&self.0.aor.id),
            auth: self.0.auth.as_ref().map(|auth| auth.id.as_str()),
            has_auth: self.0.auth.is_some(),
            endpoint_aors: Some(&self.0.endpoint.aors),
            endpoint_auth: auth.as_deref(),
            endpoint_outbound_auth: outbound.as_deref(),
        };
        names.judge(errors);
    }

    /// The rows as an update leaves them. References follow an id that changes.
    pub fn change(&mut self, change: PjsipChange, errors: &mut FieldErrors) {
        let mut endpoint = change.endpoint.unwrap_or_default();
        if let Some(aor) = change.aor {
            if let (Some(id), None) = (&aor.id, &endpoint.aors) {
                endpoint.aors = Some(id.clone());
            }
            self.change_aor(aor);
        }
        match change.auth {
            MaybeUndefined::Undefined => {}
            MaybeUndefined::Null => self.remove_auth(&mut endpoint),
            MaybeUndefined::Value(auth) => self.change_auth(auth, &mut endpoint, errors),
        }
        self.change_endpoint(endpoint);
        self.judge(errors);
    }

    fn change_endpoint(&mut self, change: EndpointChange) {
        let row = &mut self.0.endpoint;
        set(&mut row.id, change.id);
        set_or_clear(&mut row.transport, change.transport);
        set(&mut row.aors, change.aors);
        set_or_clear(&mut row.auth, change.auth);
        set(&mut row.context, change.context);
        set(&mut row.disallow, change.disallow);
        set(&mut row.allow, change.allow);
        set(&mut row.direct_media, change.direct_media.map(|value| value.text().to_owned()));
        set_or_clear(&mut row.outbound_auth, change.outbound_auth);
        set_or_clear(&mut row.from_user, change.from_user);
        set_or_clear(&mut row.from_domain, change.from_domain);
        set_or_clear(&mut row.callerid, change.callerid);
    }

    fn change_aor(&mut self, change: AorChange) {
        let row = &mut self.0.aor;
        set(&mut row.id, change.id);
        set(&mut row.contact, change.contact);
        row.max_contacts = change.max_contacts.unwrap_or(row.max_contacts);
        row.qualify_frequency = change.qualify_frequency.unwrap_or(row.qualify_frequency);
    }

    fn change_auth(
        &mut self,
        change: AuthChange,
        endpoint: &mut EndpointChange,
        errors: &mut FieldErrors,
    ) {
        let Some(row) = &mut self.0.auth else {
            match AuthChange::into_new(change) {
                Some(auth) => self.0.auth = Some(auth),
                None => errors.add("pjsip.auth.id", "is required"),
            }
            return;
        };
        if let Some(id) = &change.id {
            if self.0.endpoint.auth == row.id && endpoint.auth.is_undefined() {
                endpoint.auth = MaybeUndefined::Value(id.clone());
            }
            if self.0.endpoint.outbound_auth == row.id && endpoint.outbound_auth.is_undefined() {
                endpoint.outbound_auth = MaybeUndefined::Value(id.clone());
            }
        }
        set(&mut row.id, change.id);
        set_or_clear(&mut row.username, change.username);
        set_or_clear(&mut row.password, change.password);
        set_or_clear(&mut row.realm, change.realm);
    }

    fn remove_auth(&mut self, endpoint: &mut EndpointChange) {
        self.0.auth = None;
        if endpoint.auth.is_undefined() {
            endpoint.auth = MaybeUndefined::Null;
        }
        if endpoint.outbound_auth.is_undefined() {
            endpoint.outbound_auth = MaybeUndefined::Null;
        }
    }
}

fn set(column: &mut String, given: Given<impl Into<String>>) {
    if let Some(value) = given {
        *column = value.into();
    }
}

/// Asterisk takes an empty column for one that isn't there.
fn set_or_clear(column: &mut String, given: Clearable<impl Into<String>>) {
    match given {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => column.clear(),
        MaybeUndefined::Value(value) => *column = value.into(),
    }
}

fn or_empty(given: Option<impl Into<String>>) -> String {
    given.map(Into::into).unwrap_or_default()
}

fn or_null(column: String) -> Option<String> {
    (!column.is_empty()).then_some(column)
}

impl AuthChange {
    /// An auth where there was none; none if it has no id.
    fn into_new(self) -> Option<pjsip_auth::Model> {
        Some(pjsip_auth::Model {
            id: self.id?.into(),
            auth_type: "userpass".to_owned(),
            username: or_empty(self.username.take()),
            password: or_empty(self.password.take()),
            realm: or_empty(self.realm.take()),
        })
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
        let AuthType::UserPass = new.auth_type.unwrap_or(AuthType::UserPass);
        Self {
            id: new.id.into(),
            auth_type: "userpass".to_owned(),
            username: or_empty(new.username),
            password: or_empty(new.password),
            realm: or_empty(new.realm),
        }
    }
}

impl From<Realtime> for Pjsip {
    fn from(rows: Realtime) -> Self {
        Self {
            endpoint: rows.endpoint.into(),
            aor: rows.aor.into(),
            auth: rows.auth.map(Into::into),
        }
    }
}

impl From<pjsip_endpoint::Model> for Endpoint {
    fn from(row: pjsip_endpoint::Model) -> Self {
        Self {
            id: row.id,
            transport: or_null(row.transport),
            aors: row.aors,
            auth: or_null(row.auth),
            context: row.context,
            disallow: row.disallow,
            allow: row.allow,
            direct_media: row.direct_media,
            outbound_auth: or_null(row.outbound_auth),
            from_user: or_null(row.from_user),
            from_domain: or_null(row.from_domain),
            callerid: or_null(row.callerid),
        }
    }
}

impl From<pjsip_aor::Model> for Aor {
    fn from(row: pjsip_aor::Model) -> Self {
        Self {
            id: row.id,
            contact: row.contact,
            max_contacts: row.max_contacts,
            qualify_frequency: row.qualify_frequency,
        }
    }
}

impl From<pjsip_auth::Model> for Auth {
    fn from(row: pjsip_auth::Model) -> Self {
        Self {
            id: row.id,
            auth_type: row.auth_type,
            username: or_null(row.username),
            realm: or_null(row.realm),
        }
    }
}
