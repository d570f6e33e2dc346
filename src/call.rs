//! The life of a call.
//!
//! ```text
//!            StasisStart
//!                 |
//!             [Routing] --nobody can have it--> [Ending]
//!                 | held
//!   next  .-> [Creating] --can't be made-----.
//!  client |       | leg is in our application |
//!         |   [Dialling] --busy, refused, ...-+
//!         |    |      | ring timeout          |
//!         |    |   [GivingUp] ----------------+
//!         '----|------------------------------' or nobody left -> [Ending]
//!              | client answers
//!          [Answering]
//!              | caller's leg is up
//!           [Talking] ----either leg ends----> [Ending] --legs gone--> closed
//! ```
//!
//! [`machine`] is that picture as a pure function: inputs in, effects out, no
//! I/O, no clock, no randomness. Every race is then a sequence of inputs that
//! a test can write down. [`driver`] is the task that leads one call: it feeds
//! the machine and carries out its effects. [`registry`] finds the call that
//! an event belongs to. A caller who hangs up ends everything from any state.
//!
//! Caller and client are put into one bridge *before* the client is dialled.
//! Asterisk then passes ringing and early media to the caller, and answers the
//! caller by itself at the moment the client answers: nobody else can.

pub mod adopt;
mod cut_off;
pub mod driver;
mod errands;
mod hands;
mod life;
pub mod machine;
pub mod outcome;
pub mod record;
pub mod registry;
pub mod rehearsal;
pub mod setup;
mod watchdog;

pub use hands::LEDGER_TIMEOUT;
pub use machine::{Effect, Input, Machine};
pub use outcome::Outcome;
pub use record::{Attempt, CallRecord};
