//! Call records on their way into the database for good.

use std::sync::Arc;

use super::records;
use super::truth::Records;
use crate::call::CallRecord;
use crate::journal::Archive;

#[async_trait::async_trait]
impl Archive for Records {
    async fn insert(&self, batch: &[Arc<CallRecord>]) -> anyhow::Result<()> {
        Ok(records::insert(&self.0, batch).await?)
    }

    async fn is_there(&self) -> bool {
        self.0.ping().await.is_ok()
    }
}
