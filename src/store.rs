//! Queries, one file per thing that is asked for.

pub mod archive;
pub mod audit;
pub mod call_logs;
pub mod campaigns;
pub mod caps;
pub mod clients;
pub mod configuration;
pub mod dids;
pub mod links;
pub mod past;
pub mod records;
pub mod report;
pub mod routing;
pub mod sessions;
pub mod truth;
pub mod users;
