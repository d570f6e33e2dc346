//! What goes wrong beside the service, and what becomes of calls meanwhile.

mod database;
mod disk;
mod network;
mod switch_restarts;
