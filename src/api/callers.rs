//! Who may see who called.
//!
//! Admins see callers' numbers whole, and so does the seller whose call it is, who
//! has to settle it. Staff tell calls apart without them: the last digits and the
//! name never leave the service.

use capconduit_entity::{Role, call_log};

/// How callers are shown to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    Whole,
    Masked,
}

/// How many digits at the end are hidden.
const HIDDEN: usize = 4;

impl Callers {
    pub const fn shown_to(role: Role) -> Self {
        match role {
            Role::Admin | Role::User => Self::Whole,
            Role::Staff => Self::Masked,
        }
    }

    /// A number as it is shown, such as `+44113496****`.
    pub fn number(self, number: Option<String>) -> Option<String> {
        match self {
            Self::Whole => number,
            Self::Masked => number.map(|number| masked(&number)),
        }
    }

    /// A log as it is shown.
    pub fn of(self, log: call_log::Model) -> call_log::Model {
        match self {
            Self::Whole => log,
            // A name is often the number once more.
            Self::Masked => call_log::Model {
                caller_id_num: self.number(log.caller_id_num),
                caller_id_name: None,
                ..log
            },
        }
    }
}

fn masked(number: &str) -> String {
    let length = number.chars().count();
    let shown = number.chars().take(length.saturating_sub(HIDDEN));
    shown.chain("*".repeat(length.min(HIDDEN)).chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_digits_are_hidden_and_all_of_a_short_number() {
        for (number, shown) in
            [("+441134960000", "+44113496****"), ("12345", "1****"), ("123", "***"), ("", "")]
        {
            assert_eq!(masked(number), shown);
        }
    }
}
