//! What only time shows.

mod soak;
