//! The product's promises, tried through its public edges: HTTP, SIP, the
//! command line, real databases.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

mod api;
mod calls;
mod capacity;
mod console;
mod crowd;
mod database;
mod demo;
mod documented;
mod embedded;
mod endurance;
mod explain;
mod faults;
mod generated;
mod monitoring;
mod postgres;
mod production;
mod scenarios;
mod several;
mod support;
