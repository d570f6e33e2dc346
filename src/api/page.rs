//! Lists in pages.

use poem_openapi::Object;
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait, FromQueryResult, PaginatorTrait, QuerySelect, Select,
};

use super::input::Asked;
use super::input::query::{PageNumber, PerPage};
use super::problem::FieldErrors;

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// 1 for the first.
    pub page: u64,
    pub per_page: u64,
}

/// One page of a list, with how many there are in all.
#[derive(Clone, Debug)]
pub struct Slice<T> {
    pub items: Vec<T>,
    pub total: u64,
}

/// One page of a list.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct Page<T: Type + ParseFromJSON + ToJSON> {
    pub items: Vec<T>,
    /// The number of this page, 1 for the first.
    pub page: u64,
    pub per_page: u64,
    /// Entries on all pages.
    pub total: u64,
    pub pages: u64,
}

impl Paging {
    pub fn asked(
        page: Asked<PageNumber>,
        per_page: Asked<PerPage>,
        errors: &mut FieldErrors,
    ) -> Self {
        Self {
            page: page.or_complain("page", errors).map_or(1, |page| page.0),
            per_page: per_page.or_complain("per_page", errors).map_or(20, |per_page| per_page.0),
        }
    }

    pub const fn offset(self) -> u64 {
        (self.page - 1) * self.per_page
    }

    /// Runs a query for this page of it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn select<E, C>(self, query: Select<E>, db: &C) -> Result<Slice<E::Model>, DbErr>
    where
        E: EntityTrait,
        E::Model: Send + Sync,
        C: ConnectionTrait,
    {
        let total = query.clone().count(db).await?;
        let items = query.offset(self.offset()).limit(self.per_page).all(db).await?;
        Ok(Slice { items, total })
    }

    /// Runs a query for this page of it, of which only a part of each row is wanted.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn select_part<E, M, C>(self, query: Select<E>, db: &C) -> Result<Slice<M>, DbErr>
    where
        E: EntityTrait,
        E::Model: Send + Sync,
        M: FromQueryResult + Send + Sync,
        C: ConnectionTrait,
    {
        let total = query.clone().count(db).await?;
        let page = query.offset(self.offset()).limit(self.per_page);
        Ok(Slice { items: page.into_model::<M>().all(db).await?, total })
    }

    /// The page as it is sent, where an entry may turn out to be broken.
    ///
    /// # Errors
    /// That of the first broken entry.
    pub fn try_page<M, T, E>(
        self,
        slice: Slice<M>,
        item: impl FnMut(M) -> Result<T, E>,
    ) -> Result<Page<T>, E>
    where
        T: Type + ParseFromJSON + ToJSON,
    {
        let items = slice.items.into_iter().map(item).collect::<Result<_, _>>()?;
        Ok(self.page(Slice { items, total: slice.total }, |item| item))
    }

    /// The page as it is sent.
    pub fn page<M, T>(self, slice: Slice<M>, item: impl FnMut(M) -> T) -> Page<T>
    where
        T: Type + ParseFromJSON + ToJSON,
    {
        Page {
            items: slice.items.into_iter().map(item).collect(),
            page: self.page,
            per_page: self.per_page,
            total: slice.total,
            pages: slice.total.div_ceil(self.per_page),
        }
    }
}
