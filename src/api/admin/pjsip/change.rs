//! Updates of a client's endpoint: what isn't named stays as it is.

use capconduit_entity::pjsip_auth;
use poem_openapi::Object;
use poem_openapi::types::MaybeUndefined;

use super::{AuthType, Names, or_empty};
use crate::api::input::{Clearable, Codecs, Given, PjsipId, PjsipText, PjsipUser, SipUri, YesNo};
use crate::api::problem::FieldErrors;
use crate::store::clients::Realtime;

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
    from_user: Clearable<PjsipUser>,
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
        set(&mut row.auth_type, change.auth_type.map(AuthType::text));
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

impl AuthChange {
    /// An auth where there was none; none if it has no id.
    fn into_new(self) -> Option<pjsip_auth::Model> {
        Some(pjsip_auth::Model {
            id: self.id?.into(),
            auth_type: self.auth_type.unwrap_or(AuthType::UserPass).text().to_owned(),
            username: or_empty(self.username.take()),
            password: or_empty(self.password.take()),
            realm: or_empty(self.realm.take()),
        })
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
