//! The HTTP API.

mod audit;
mod auth;
mod callers;
mod campaigns;
mod caps;
mod clients;
mod command_line;
mod console;
mod dids;
mod documents;
mod follow;
mod foreign;
mod input;
mod internal;
mod live;
mod logs;
mod races;
mod replay;
mod roles;
mod simulate;
mod traffic;
mod usage;
mod users;
