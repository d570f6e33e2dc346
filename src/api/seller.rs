//! What sellers do with what is theirs. Every query here is bound to the seller.

pub mod campaigns;
pub mod dids;
pub mod links;
