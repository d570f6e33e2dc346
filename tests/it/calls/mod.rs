//! Real calls: SIPp and phones of ours, a real Asterisk, the real service.
//!
//! Every test ends with [`assert_clean`]: no channel, no bridge, nothing held.
//!
//! [`assert_clean`]: crate::support::service::Service::assert_clean

mod answered;
mod away;
mod backlog;
mod cancelled;
mod caps;
mod drain;
mod explained;
mod fallback;
mod followed;
mod goodbye;
mod hostile;
mod in_force;
mod late;
mod measured;
mod overload;
mod refused;
mod replayed;
mod restart;
mod strategies;
mod told;
mod traces;
mod unreachable;
mod watchdog;
mod without_application;
