//! CapConduit's tables, one file each, and the types that columns share.
//!
//! No logic lives here beyond newtypes and enums that can't hold a wrong
//! value. The schema itself is written by hand in `migration/`; a test
//! migrates SQLite and PostgreSQL and reads every entity back.

pub mod api_token;
pub mod audit_entry;
pub mod call_attempt;
pub mod call_log;
pub mod campaign;
pub mod campaign_did;
pub mod client;
pub mod configuration;
pub mod did;
pub mod link;
pub mod pjsip_aor;
pub mod pjsip_auth;
pub mod pjsip_endpoint;
pub mod session;
pub mod types;
pub mod user;

pub use types::{
    AttemptResult, CallReason, CallStatus, CampaignStatus, E164, Role, Status, Strategy, UserStatus,
};
