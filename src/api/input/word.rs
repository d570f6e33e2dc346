//! Values out of a fixed list of words, the same list that the tables hold.

use std::borrow::Cow;

use capconduit_entity::{
    AttemptResult, CallReason, CallStatus, CampaignStatus, Role, Status, Strategy, UserStatus,
};
use poem_openapi::Enum;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;

use crate::capacity::ScopeKind;

/// A stored enum, on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<T>(pub T);

/// A list of words.
pub trait Vocabulary: Copy + Send + Sync + 'static {
    /// The name of its schema.
    const NAME: &'static str;
    const ALL: &'static [Self];
    fn text(self) -> &'static str;
}

macro_rules! vocabularies {
    ($($name:ident),+ $(,)?) => {$(
        impl Vocabulary for $name {
            const NAME: &'static str = stringify!($name);
            const ALL: &'static [Self] = Self::ALL;

            fn text(self) -> &'static str {
                self.as_str()
            }
        }

        impl From<Word<$name>> for $name {
            fn from(word: Word<$name>) -> Self {
                word.0
            }
        }
    )+};
}

vocabularies! {
    AttemptResult, CallReason, CallStatus, CampaignStatus, Role, Status, Strategy, UserStatus,
}

impl Vocabulary for ScopeKind {
    const NAME: &'static str = "CapScope";
    const ALL: &'static [Self] = Self::ALL;

    fn text(self) -> &'static str {
        self.as_str()
    }
}

/// Yes or no, as Asterisk writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum YesNo {
    Yes,
    No,
}

impl YesNo {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

impl<T: Vocabulary> Word<T> {
    fn parse(text: &str) -> Option<Self> {
        T::ALL.iter().copied().find(|word| word.text() == text).map(Self)
    }
}

impl<T: Vocabulary> Type for Word<T> {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        T::NAME.into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Reference(T::NAME.to_owned())
    }

    fn register(registry: &mut Registry) {
        registry.create_schema::<Self, _>(T::NAME.to_owned(), |_| MetaSchema {
            enum_items: T::ALL.iter().map(|word| Value::from(word.text())).collect(),
            ..MetaSchema::new("string")
        });
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<T: Vocabulary> ParseFromJSON for Word<T> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        let value = value.unwrap_or_default();
        match value.as_str().and_then(Self::parse) {
            Some(word) => Ok(word),
            None => Err(ParseError::expected_type(value)),
        }
    }
}

impl<T: Vocabulary> ToJSON for Word<T> {
    fn to_json(&self) -> Option<Value> {
        Some(Value::from(self.0.text()))
    }
}
