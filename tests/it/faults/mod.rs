//! What goes wrong beside the service, and what becomes of calls meanwhile.

mod network;
mod switch_restarts;
