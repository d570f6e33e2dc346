//! The kinds of column that tables are made of.

use sea_orm_migration::prelude::*;

/// An identity column, the primary key.
pub fn id() -> ColumnDef {
    integer("id").primary_key().auto_increment().take()
}

/// A whole number that must be there.
pub fn integer(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

/// A small whole number that must be there.
pub fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).integer().not_null().take()
}

/// Text of at most `length` characters that must be there.
pub fn text(name: &'static str, length: u32) -> ColumnDef {
    ColumnDef::new(name).string_len(length).not_null().take()
}

/// An instant that must be there.
pub fn instant(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).timestamp_with_time_zone().not_null().take()
}

/// One of `values`, checked by the database too.
pub fn one_of(name: &'static str, values: &[&'static str]) -> ColumnDef {
    let allowed = Expr::col(name).is_in(values.iter().copied());
    text(name, 48).check(allowed).take()
}

/// A limit that may be missing, and is never below `least`.
pub fn at_least(least: i32, name: &'static str) -> ColumnDef {
    nullable(number(name)).check(Expr::col(name).gte(least)).take()
}

/// The same column, which may be empty.
pub fn nullable(mut column: ColumnDef) -> ColumnDef {
    column.null().take()
}

/// A column that keeps an endpoint safe and that nothing but the schema sets.
pub fn constant(name: &'static str, value: &'static str) -> ColumnDef {
    text(name, 40).default(value).take()
}

/// `from.column -> to.id`.
pub fn reference(
    from: &'static str,
    column: &'static str,
    to: &'static str,
    on_delete: ForeignKeyAction,
) -> ForeignKeyCreateStatement {
    ForeignKey::create().from(from, column).to(to, "id").on_delete(on_delete).take()
}
