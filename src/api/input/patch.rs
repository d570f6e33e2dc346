//! Fields of partial updates: left away, given, or (where that has a meaning) cleared.

use poem_openapi::types::MaybeUndefined;
use sea_orm::{ActiveValue, Set, Value};

/// A field that can be left away, but not be null.
pub type Given<T> = Option<T>;

/// A field that can be left away, or be null to clear what is there.
pub type Clearable<T> = MaybeUndefined<T>;

/// Writes a field of an update into a row.
pub fn patch<T, V>(field: Given<T>, column: &mut ActiveValue<V>)
where
    T: Into<V>,
    V: Into<Value>,
{
    if let Some(value) = field {
        *column = Set(value.into());
    }
}

/// Writes a clearable field of an update into a row.
pub fn patch_clearable<T, V>(field: Clearable<T>, column: &mut ActiveValue<Option<V>>)
where
    T: Into<V>,
    Option<V>: Into<Value>,
{
    match field {
        MaybeUndefined::Undefined => {}
        MaybeUndefined::Null => *column = Set(None),
        MaybeUndefined::Value(value) => *column = Set(Some(value.into())),
    }
}
