use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// One row: how often the configuration was changed.
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::create()
            .table("configuration")
            .col(ColumnDef::new("id").integer().not_null().primary_key())
            .col(ColumnDef::new("revision").big_integer().not_null())
            .take();
        manager.create_table(table).await?;
        let row = Query::insert()
            .into_table("configuration")
            .columns(["id", "revision"])
            .values_panic([1.into(), 0.into()])
            .take();
        manager.execute(row).await
    }
}
