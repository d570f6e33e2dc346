//! What tests stand on.

pub mod api;
pub mod browser;
pub mod callers;
pub mod clients;
pub mod database;
pub mod events;
pub mod metrics;
pub mod phone;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod production;
pub mod redis;
pub mod seller;
pub mod service;
pub mod sip;
pub mod wait;
pub mod web;
