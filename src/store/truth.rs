//! What the records say of capacity: the truth that the ledger is measured by.

use std::collections::HashMap;

use capconduit_entity::{CallStatus, call_log, link};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QuerySelect,
};

use super::records;
use crate::capacity::recount::{Known, Truth};
use crate::clock;
use crate::db::begin_long_read;
use crate::ids::{CallId, CampaignId, LinkId};

/// The call records in the database.
pub struct Records(pub DatabaseConnection);

/// Values that one statement may name, in either database.
const NAMED: usize = 500;

#[async_trait::async_trait]
impl Truth for Records {
    async fn known(&self, calls: &[CallId]) -> anyhow::Result<Known> {
        // One view of the database, so that a call is either among the records or not.
        let txn = begin_long_read(&self.0).await?;
        let answered = records::answered(&txn, clock::now()).await?;
        let recorded = recorded_of(&txn, calls).await?;
        txn.commit().await?;
        Ok(Known { answered, recorded })
    }

    async fn cursors(&self) -> anyhow::Result<Vec<(CampaignId, LinkId)>> {
        let txn = begin_long_read(&self.0).await?;
        let campaigns: HashMap<i64, i64> = link::Entity::find()
            .select_only()
            .columns([link::Column::Id, link::Column::CampaignId])
            .into_tuple::<(i64, i64)>()
            .all(&txn)
            .await?
            .into_iter()
            .collect();
        let mut offers: Vec<_> = records::last_offers(&txn).await?.into_iter().collect();
        txn.commit().await?;
        offers.sort_by_key(|(link, offered_at)| (*offered_at, *link));
        let last: HashMap<CampaignId, LinkId> = offers
            .into_iter()
            .filter_map(|(link, _)| Some((CampaignId(*campaigns.get(&link.0)?), link)))
            .collect();
        Ok(last.into_iter().collect())
    }
}

/// Those of `calls` that the records tell of, and the link that answered each.
///
/// # Errors
/// When the database can't be read.
pub async fn recorded_of(
    db: &impl ConnectionTrait,
    calls: &[CallId],
) -> Result<HashMap<CallId, Option<LinkId>>, DbErr> {
    let mut recorded = HashMap::new();
    for some in calls.chunks(NAMED) {
        let found = call_log::Entity::find()
            .select_only()
            .columns([call_log::Column::CallId, call_log::Column::CallStatus])
            .column(call_log::Column::CampaignClientSettingId)
            .filter(call_log::Column::CallId.is_in(some.iter().map(|call| call.0)))
            .into_tuple::<(uuid::Uuid, CallStatus, Option<i64>)>()
            .all(db)
            .await?;
        recorded.extend(found.into_iter().map(|(call, status, link)| {
            (CallId(call), link.filter(|_| status == CallStatus::Answered).map(LinkId))
        }));
    }
    Ok(recorded)
}
