//! Call records on their way into the database for good.

use std::collections::HashSet;
use std::sync::Arc;

use sea_orm::DbErr;

use super::records;
use super::truth::{Records, recorded_of};
use crate::call::CallRecord;
use crate::db::{begin_write, is_away};
use crate::ids::CallId;
use crate::journal::Archive;

#[async_trait::async_trait]
impl Archive for Records {
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        Ok(records::insert(&self.0, batch).await?)
    }

    async fn is_there(&self) -> bool {
        // Somebody else may have the lock, or it may be read-only.
        match begin_write(&self.0).await {
            Ok(txn) => txn.rollback().await.is_ok(),
            Err(_) => false,
        }
    }

    /// A full disk lets transactions begin.
    fn means_away(&self, cause: &anyhow::Error) -> bool {
        cause.downcast_ref::<DbErr>().is_some_and(is_away)
    }

    async fn recorded(&self, calls: &[CallId]) -> anyhow::Result<HashSet<CallId>> {
        Ok(recorded_of(&self.0, calls).await?.into_keys().collect())
    }
}
