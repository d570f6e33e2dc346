//! What tests stand on.

pub mod apart;
pub mod api;
pub mod browser;
pub mod callers;
pub mod clients;
pub mod database;
pub mod decisions;
pub mod desk;
pub mod disk;
pub mod events;
pub mod load;
pub mod media;
pub mod metrics;
pub mod phone;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod production;
pub mod proxy;
pub mod redis;
pub mod scripted;
pub mod seller;
pub mod service;
pub mod sip;
pub mod wait;
pub mod web;
