//! Texts that have a form of their own, each with its format in the schema.
//!
//! All but secrets are trimmed before they are judged. A form is judged in one
//! place, [`check`], by the name of its format, whatever object it stands in.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use capconduit_entity::E164;
use chrono::SubsecRound;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;

use crate::clock::Timestamp;

macro_rules! texts {
    ($($(#[$meta:meta])* $name:ident = $format:literal, $pattern:expr, $check:expr;)+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, PartialEq, Eq)]
            pub struct $name(pub String);

            // Any of them may hold a secret.
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(concat!(stringify!($name), "(..)"))
                }
            }

            impl Deref for $name {
                type Target = str;

                fn deref(&self) -> &str {
                    &self.0
                }
            }

            impl AsRef<str> for $name {
                fn as_ref(&self) -> &str {
                    &self.0
                }
            }

            impl From<$name> for String {
                fn from(text: $name) -> Self {
                    text.0
                }
            }

            impl From<String> for $name {
                fn from(text: String) -> Self {
                    Self(text)
                }
            }

            impl Type for $name {
                const IS_REQUIRED: bool = true;
                type RawValueType = Self;
                type RawElementValueType = Self;

                fn name() -> Cow<'static, str> {
                    concat!("string_", $format).into()
                }

                fn schema_ref() -> MetaSchemaRef {
                    let pattern: Option<&str> = $pattern;
                    MetaSchemaRef::Inline(Box::new(MetaSchema {
                        pattern: pattern.map(str::to_owned),
                        ..MetaSchema::new_with_format("string", $format)
                    }))
                }

                fn as_raw_value(&self) -> Option<&Self> {
                    Some(self)
                }

                fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
                    Box::new(std::iter::once(self))
                }
            }

            impl ParseFromJSON for $name {
                fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
                    match value.unwrap_or_default() {
                        Value::String(text) => Ok(Self(text)),
                        value => Err(ParseError::expected_type(value)),
                    }
                }
            }

            impl ToJSON for $name {
                fn to_json(&self) -> Option<Value> {
                    Some(Value::String(self.0.clone()))
                }
            }
        )+

        /// Judges a text by the format that its schema names.
        ///
        /// # Errors
        /// What is wrong with it, in words for the sender.
        pub fn check(format: &str, text: &str) -> Result<(), String> {
            let check: fn(&str) -> Result<(), String> = match format {
                $($format => $check,)+
                _ => line,
            };
            check(text)
        }
    };
}

const NAME_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
pub const LINE_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
const PARAGRAPH_PATTERN: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";
const PJSIP_PATTERN: &str = r"^[^;\u0000-\u001f\u007f-\u009f]*$";
const USER_PATTERN: &str = r"^[A-Za-z0-9._~%!$&'()*+,=:-]*$";
const ID_PATTERN: &str = r"^[A-Za-z0-9_.-]+$";
const CODECS_PATTERN: &str = r"^[a-z0-9]+(,[a-z0-9]+)*$";
const ZONE_PATTERN: &str = r"^[A-Za-z][A-Za-z0-9_+/-]*$";

texts! {
    /// One line of text that isn't blank.
    Name = "name", Some(NAME_PATTERN), name;
    /// One line of text, maybe empty.
    Line = "line", Some(LINE_PATTERN), line;
    /// Text that may have several lines.
    Paragraph = "paragraph", Some(PARAGRAPH_PATTERN), paragraph;
    /// A password: taken as it is, never trimmed, never sent back.
    Secret = "password", None, secret;
    /// An e-mail address.
    Email = "email", None, email;
    /// A number in E.164 form.
    E164Text = "e164", Some(r"^\+[1-9][0-9]{6,14}$"), e164;
    /// The name of a PJSIP object or of a dialplan context.
    PjsipId = "pjsip-id", Some(ID_PATTERN), pjsip_id;
    /// A value that Asterisk reads from a column: `;` would start a comment or a next value.
    PjsipText = "pjsip-text", Some(PJSIP_PATTERN), pjsip_text;
    /// The user of a `From` header: Asterisk refuses the endpoint over any other character
    /// (`from_user_handler` in `res_pjsip/pjsip_configuration.c`, 22.10).
    PjsipUser = "pjsip-user", Some(USER_PATTERN), pjsip_user;
    /// The address of a client's SIP endpoint.
    SipUri = "sip-uri", Some(r"^[sS][iI][pP][sS]?:[^;\s]+$"), sip_uri;
    /// Codecs, separated by commas, or `all`.
    Codecs = "codecs", Some(CODECS_PATTERN), codecs;
    /// An instant in RFC 3339.
    Moment = "date-time", None, moment;
    /// The IANA name of a time zone.
    ZoneName = "time-zone", Some(ZONE_PATTERN), zone;
}

fn no_control(text: &str) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    Ok(())
}

fn name(text: &str) -> Result<(), String> {
    no_control(text)?;
    if text.is_empty() { Err("must not be blank".to_owned()) } else { Ok(()) }
}

fn line(text: &str) -> Result<(), String> {
    no_control(text)
}

fn paragraph(text: &str) -> Result<(), String> {
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err("must not contain control characters other than line breaks".to_owned());
    }
    Ok(())
}

fn secret(_: &str) -> Result<(), String> {
    Ok(())
}

fn email(text: &str) -> Result<(), String> {
    no_control(text)?;
    let valid = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && is_host(domain)
            && !text.chars().any(|c| c.is_whitespace() || matches!(c, ',' | ';' | '<' | '>' | '"'))
    });
    if valid { Ok(()) } else { Err("must be an e-mail address".to_owned()) }
}

fn e164(text: &str) -> Result<(), String> {
    E164::parse(text).map(drop).map_err(|refused| match &refused.suggestion {
        Some(number) => format!("{refused}; did you mean {number}?"),
        None => refused.to_string(),
    })
}

fn pjsip_id(text: &str) -> Result<(), String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !text.is_empty() && text.bytes().all(valid) {
        return Ok(());
    }
    Err("must consist of letters, digits, '_', '.' and '-'".to_owned())
}

fn pjsip_text(text: &str) -> Result<(), String> {
    no_control(text)?;
    if text.contains(';') { Err("must not contain ';'".to_owned()) } else { Ok(()) }
}

fn pjsip_user(text: &str) -> Result<(), String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,=:".contains(&b);
    if text.bytes().all(valid) {
        return Ok(());
    }
    Err("must consist of characters that a SIP user can have, without ';'".to_owned())
}

fn sip_uri(text: &str) -> Result<(), String> {
    if is_sip_uri(text) {
        return Ok(());
    }
    Err("must be a SIP URI without parameters, such as sip:sales@192.0.2.10:5060".to_owned())
}

fn is_sip_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return false;
    }
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    let is_user = |user: &str| {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*+=$&'()#".contains(&b);
        !user.is_empty() && user.bytes().all(valid)
    };
    // In brackets, colons belong to the address.
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let is_port = |port: &str| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    user.is_none_or(is_user) && is_host(host) && port.is_none_or(is_port)
}

/// A domain name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if numeric {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Names that every Asterisk >= 20 knows as formats, whichever of its modules are loaded.
const CODECS: &[&str] = &[
    "ulaw", "alaw", "gsm", "g722", "g726", "g726aal2", "g729", "g723", "opus", "ilbc", "speex",
    "speex16", "speex32", "siren7", "siren14", "adpcm", "lpc10", "slin", "slin12", "slin16",
    "slin24", "slin32", "slin44", "slin48", "slin96", "slin192", "codec2", "silk8", "silk12",
    "silk16", "silk24",
];

fn codecs(text: &str) -> Result<(), String> {
    if text == "all" {
        return Ok(());
    }
    let unknown: Vec<&str> = text.split(',').filter(|codec| !CODECS.contains(codec)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "must be codecs separated by commas, or all; not known: {}",
        unknown.iter().map(|codec| format!("{codec:?}")).collect::<Vec<_>>().join(", ")
    ))
}

fn moment(text: &str) -> Result<(), String> {
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(_) => Ok(()),
        Err(_) => Err("must be an instant in RFC 3339, such as 2026-11-22T12:00:00Z".to_owned()),
    }
}

impl Moment {
    /// The instant, in whole milliseconds; none only if it was never judged.
    pub fn instant(&self) -> Option<Timestamp> {
        let instant = chrono::DateTime::parse_from_rfc3339(&self.0).ok()?;
        Some(instant.to_utc().trunc_subsecs(3))
    }
}

fn zone(text: &str) -> Result<(), String> {
    match text.parse::<chrono_tz::Tz>() {
        Ok(_) => Ok(()),
        Err(_) => Err("must be the IANA name of a time zone, such as Europe/London".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_a_plain_sip_uri() {
        for good in [
            "sip:127.0.0.1:5070",
            "sip:agent@10.0.0.1",
            "SIP:sales@pbx.example.com:5061",
            "sips:a.b@[2001:db8::1]:5061",
            "sip:[::1]",
            "sip:+442071838750@carrier-1",
        ] {
            assert!(is_sip_uri(good), "{good}");
        }
        for bad in [
            "",
            "sip:",
            "tel:+4420",
            "10.0.0.1",
            "sip:a@b;transport=tcp",
            "sip:a b@c",
            "sip:@host",
            "sip:a@b:0",
            "sip:a@b:70000",
            "sip:a@b,sip:c@d",
            "sip:a@999.1.1.1",
            "sip:a@b\r\nX: y",
            "sip:a%00@b",
            "<sip:a@b>",
            "sip:a@b?x=y",
            "sip:a@-b",
            "sip:a@b:+5",
        ] {
            assert!(!is_sip_uri(bad), "{bad}");
        }
    }

    #[test]
    fn a_national_number_is_refused_with_the_form_that_was_meant() {
        let message = check("e164", "+44 (20) 7183-8750").unwrap_err();
        assert!(message.contains("+442071838750"), "{message}");
    }
}
