//! Call records on their way into the database for good.

use std::sync::Arc;

use super::records;
use super::truth::Records;
use crate::call::CallRecord;
use crate::db::begin_write;
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
}
