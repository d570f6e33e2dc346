//! What goes wrong between us and what we stand on: a switch that is scripted to
//! lose, double, refuse and hang ([`ScriptedSwitch`]), and real ones under trouble.
//!
//! `docs/SCENARIOS.md` says which test shows which scenario.
//!
//! [`ScriptedSwitch`]: crate::support::scripted::ScriptedSwitch

mod commands;
mod database;
mod dialogs;
mod disk;
mod events;
mod hung;
mod killed;
mod network;
mod newcomer;
mod overloaded;
mod races;
mod replaced;
pub mod scene;
mod socket;
mod switch_restarts;
mod trouble;
