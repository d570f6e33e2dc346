//! CapConduit sells inbound phone calls without ever over-selling them.
//!
//! Asterisk hands every inbound call to this service over ARI. [`routing`]
//! says who should get it, [`capacity`] whether there is room, [`call`] leads
//! the call through its life, [`ari`] speaks to the switch, and [`journal`]
//! keeps exactly one record of what happened and why. `docs/ARCHITECTURE.md`
//! walks through a call.

pub mod api;
pub mod app;
pub mod ari;
pub mod call;
pub mod capacity;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod demo;
pub mod embedded;
pub mod exchange;
pub mod ids;
pub mod journal;
pub mod live;
pub mod replay;
pub mod routing;
pub mod store;
pub mod telemetry;
pub mod vital;
