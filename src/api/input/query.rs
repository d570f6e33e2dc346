//! Parameters of a query, kept with their errors so that one answer names all of them.

use std::borrow::Cow;
use std::fmt;

use chrono::{NaiveDate, NaiveTime};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromParameter, ParseResult, Type};

use super::text::LINE_PATTERN;
use super::word::{Vocabulary, Word};
use crate::api::problem::FieldErrors;
use crate::clock::Timestamp;

/// A parameter that may have been given, and may have been right.
pub struct Asked<T>(Option<Result<T, String>>);

/// Something that a parameter can be.
pub trait Parameter: Sized + Send + Sync + 'static {
    fn schema() -> MetaSchemaRef;
    fn register(_registry: &mut Registry) {}

    /// # Errors
    /// What is wrong with it, in words for the sender.
    fn parse(text: &str) -> Result<Self, String>;
}

impl<T> Asked<T> {
    /// The value, if it was given; a complaint under `name` if it was wrong.
    pub fn or_complain(self, name: &str, errors: &mut FieldErrors) -> Option<T> {
        match self.0? {
            Ok(value) => Some(value),
            Err(message) => {
                errors.add(name, message);
                None
            }
        }
    }
}

impl<T> fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked")
    }
}

impl<T: Parameter> Type for Asked<T> {
    const IS_REQUIRED: bool = false;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "parameter".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<T: Parameter> ParseFromParameter for Asked<T> {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        Ok(Self(Some(T::parse(text))))
    }

    fn parse_from_parameters<I, A>(texts: I) -> ParseResult<Self>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<str>,
    {
        let mut texts = texts.into_iter();
        let first = texts.next();
        if texts.next().is_some() {
            return Ok(Self(Some(Err("must be given once only".to_owned()))));
        }
        Ok(Self(first.map(|text| T::parse(text.as_ref()))))
    }
}

/// A part of a path that may have been right.
pub struct InPath<T>(Result<T, String>);

impl<T> InPath<T> {
    /// The value; a complaint under `name` if it was wrong.
    pub fn or_complain(self, name: &str, errors: &mut FieldErrors) -> Option<T> {
        self.0.map_err(|message| errors.add(name, message)).ok()
    }
}

impl<T> fmt::Debug for InPath<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InPath")
    }
}

impl<T: Parameter> Type for InPath<T> {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "parameter".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<T: Parameter> ParseFromParameter for InPath<T> {
    fn parse_from_parameter(text: &str) -> ParseResult<Self> {
        Ok(Self(T::parse(text)))
    }
}

fn inline(schema: MetaSchema) -> MetaSchemaRef {
    MetaSchemaRef::Inline(Box::new(schema))
}

/// The number of a page, 1 for the first.
pub struct PageNumber(pub u64);

/// What a path begins with.
pub struct PathPrefix(pub String);

/// A stretch of days in UTC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Days {
    /// When the first day starts.
    pub from: Option<Timestamp>,
    /// When the day after the last starts.
    pub until: Option<Timestamp>,
}

impl Days {
    /// The days from `start_date` to `end_date`, both included.
    pub fn asked(start: Asked<NaiveDate>, end: Asked<NaiveDate>, errors: &mut FieldErrors) -> Self {
        let start = start.or_complain("start_date", errors);
        let end = end.or_complain("end_date", errors);
        if start.zip(end).is_some_and(|(start, end)| end < start) {
            errors.add("end_date", "must not be before start_date");
        }
        let start_of = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        Self { from: start.map(start_of), until: end.and_then(|day| day.succ_opt()).map(start_of) }
    }
}

/// How many entries a page has.
pub struct PerPage(pub u64);

/// The id of a thing to filter by.
pub struct IdFilter(pub i64);

impl Parameter for PageNumber {
    fn schema() -> MetaSchemaRef {
        let bounds = MetaSchema { minimum: Some(1.0), maximum: Some(1e9), ..whole_number() };
        let description = Some("The number of a page, 1 for the first.");
        inline(MetaSchema { default: Some(1.into()), description, ..bounds })
    }

    fn parse(text: &str) -> Result<Self, String> {
        whole(text, 1, 1_000_000_000).map(Self)
    }
}

impl Parameter for PerPage {
    fn schema() -> MetaSchemaRef {
        let bounds = MetaSchema { minimum: Some(1.0), maximum: Some(200.0), ..whole_number() };
        let description = Some("How many entries a page has.");
        inline(MetaSchema { default: Some(20.into()), description, ..bounds })
    }

    fn parse(text: &str) -> Result<Self, String> {
        whole(text, 1, 200).map(Self)
    }
}

impl Parameter for IdFilter {
    fn schema() -> MetaSchemaRef {
        let description = Some("Only what is about the one of this id.");
        inline(MetaSchema { minimum: Some(1.0), description, ..whole_number() })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let id = whole(text, 1, i64::MAX.unsigned_abs())?;
        i64::try_from(id).map(Self).map_err(|err| err.to_string())
    }
}

impl Parameter for PathPrefix {
    fn schema() -> MetaSchemaRef {
        let description = Some("What the path begins with, such as /api/admin/clients.");
        let pattern = Some(LINE_PATTERN.to_owned());
        let text = MetaSchema::new("string");
        inline(MetaSchema { max_length: Some(200), pattern, description, ..text })
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > 200 || text.chars().any(char::is_control) {
            return Err("must have at most 200 characters, none of control".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Parameter for NaiveDate {
    fn schema() -> MetaSchemaRef {
        let description = Some("A day in UTC, such as 2026-11-22.");
        inline(MetaSchema { description, ..MetaSchema::new_with_format("string", "date") })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let is_shaped = text.len() == 10;
        Self::parse_from_str(text, "%Y-%m-%d")
            .ok()
            .filter(|_| is_shaped)
            .ok_or_else(|| "must be a date such as 2026-11-22".to_owned())
    }
}

impl<T: Vocabulary> Parameter for Word<T> {
    fn schema() -> MetaSchemaRef {
        Self::schema_ref()
    }

    fn register(registry: &mut Registry) {
        <Self as Type>::register(registry);
    }

    fn parse(text: &str) -> Result<Self, String> {
        let allowed = || T::ALL.iter().map(|word| word.text()).collect::<Vec<_>>().join(", ");
        let found = T::ALL.iter().copied().find(|word| word.text() == text);
        found.map(Self).ok_or_else(|| format!("must be one of {}", allowed()))
    }
}

pub fn whole_number() -> MetaSchema {
    MetaSchema::new_with_format("integer", "int64")
}

/// # Errors
/// What is wrong with it, in words for the sender.
pub fn whole(text: &str, lowest: u64, highest: u64) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && (lowest..=highest).contains(number))
        .ok_or_else(|| format!("must be a whole number from {lowest} to {highest}"))
}
