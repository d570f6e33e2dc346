//! What admins and staff do.

pub mod caps;
pub mod clients;
pub mod pjsip;
pub mod users;
