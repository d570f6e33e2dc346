//! What sellers do with what is theirs. Every query here is bound to the seller.

use sea_orm::DatabaseTransaction;

use crate::api::access::Seller;
use crate::api::problem::{Problem, forbidden};
use crate::store::users;

pub mod campaigns;
pub mod dids;
pub mod links;

/// Refuses who stopped being a seller since the request began: what they are
/// given now, nobody could take away again.
async fn still_sells(txn: &DatabaseTransaction, caller: &Seller) -> Result<(), Problem> {
    match users::find_seller_locked(txn, caller.user.id).await? {
        Some(_) => Ok(()),
        None => Err(forbidden("This is for sellers.")),
    }
}
