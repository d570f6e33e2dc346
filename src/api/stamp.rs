//! Instants and dates as they are sent: RFC 3339 in UTC with `Z`, milliseconds at most.

use std::borrow::Cow;

use chrono::SecondsFormat;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;

use crate::clock::Timestamp;

/// An instant in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(pub Timestamp);

impl Stamp {
    pub fn text(self) -> String {
        let format = match self.0.timestamp_subsec_millis() {
            0 => SecondsFormat::Secs,
            _ => SecondsFormat::Millis,
        };
        self.0.to_rfc3339_opts(format, true)
    }
}

impl From<Timestamp> for Stamp {
    fn from(instant: Timestamp) -> Self {
        Self(instant)
    }
}

impl Type for Stamp {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "date-time")))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToJSON for Stamp {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.text()))
    }
}

impl ParseFromJSON for Stamp {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let value = value.unwrap_or_default();
        let Value::String(text) = &value else {
            return Err(ParseError::expected_type(value));
        };
        let instant = chrono::DateTime::parse_from_rfc3339(text).map_err(ParseError::custom)?;
        Ok(Self(instant.to_utc()))
    }
}
