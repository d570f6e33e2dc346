//! What goes wrong beside the service, and what becomes of calls meanwhile.

mod killed;
mod network;
mod races;
mod switch_restarts;
