//! The audit log, newest first.

use capconduit_entity::audit_entry;
use sea_orm::sea_query::LikeExpr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Select};

use crate::clock::Timestamp;

/// Which entries are asked for; none = any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub user: Option<i64>,
    /// What the path begins with.
    pub path: Option<String>,
    pub from: Option<Timestamp>,
    /// Entries made before this.
    pub until: Option<Timestamp>,
}

impl Filter {
    pub fn query(&self) -> Select<audit_entry::Entity> {
        let column = audit_entry::COLUMN;
        let conditions = [
            self.user.map(|id| column.user_id.eq(id)),
            self.path.as_deref().map(|path| audit_entry::Column::Path.like(begins_with(path))),
            self.from.map(|from| column.created_at.gte(from)),
            self.until.map(|until| column.created_at.lt(until)),
        ];
        let query = audit_entry::Entity::find().order_by_desc(column.id);
        conditions.into_iter().flatten().fold(query, Select::filter)
    }
}

fn begins_with(text: &str) -> LikeExpr {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    LikeExpr::new(format!("{escaped}%")).escape('\\')
}
