//! Values that columns share: enums stored as their stable strings, and E.164 numbers.

use std::fmt;

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Declares an enum that is stored, logged and sent as one stable string per variant.
macro_rules! stored_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
        #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(48))")]
        pub enum $name {
            $($(#[$vmeta])* #[sea_orm(string_value = $text)] #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable string, as stored and as sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

stored_enum! {
    /// What a signed-in person may do.
    Role { Admin = "admin", Staff = "staff", User = "user" }
}

stored_enum! {
    /// Whether an account may sign in and its numbers take calls: only `active` may.
    UserStatus {
        Active = "active",
        Inactive = "inactive",
        PendingApproval = "pending_approval",
        Suspended = "suspended",
    }
}

stored_enum! {
    /// On or off: clients, DIDs and links.
    Status { Active = "active", Inactive = "inactive" }
}

stored_enum! {
    /// A campaign's state; calls arrive only at an active one.
    CampaignStatus { Active = "active", Inactive = "inactive", Paused = "paused" }
}

stored_enum! {
    /// How a campaign orders its links for a call.
    Strategy { Priority = "priority", RoundRobin = "round_robin", Weighted = "weighted" }
}

stored_enum! {
    /// Coarse outcome of a call. `reason` says the rest.
    CallStatus {
        Answered = "ANSWERED",
        NoAnswer = "NOANSWER",
        Busy = "BUSY",
        Failed = "FAILED",
        Canceled = "CANCELED",
        RejectedCc = "REJECTED_CC",
        RejectedTotal = "REJECTED_TOTAL",
        RejectedDid = "REJECTED_DID",
        Rejected = "REJECTED",
    }
}

stored_enum! {
    /// Why a call ended as it did.
    CallReason {
        Answered = "answered",
        AllNoAnswer = "all_no_answer",
        AllBusy = "all_busy",
        AllFailed = "all_failed",
        CallerAbandoned = "caller_abandoned",
        DidNotFound = "did_not_found",
        DidInactive = "did_inactive",
        OwnerInactive = "owner_inactive",
        NoActiveCampaignForDid = "no_active_campaign_for_did",
        NoActiveClientsInCampaign = "no_active_clients_in_campaign",
        NoEligibleClientsAvailable = "no_eligible_clients_available",
        CapacityUnavailable = "capacity_unavailable",
        SystemError = "system_error",
        Interrupted = "interrupted",
    }
}

stored_enum! {
    /// What became of one dialled client.
    AttemptResult {
        Answered = "answered",
        NoAnswer = "no_answer",
        Busy = "busy",
        Rejected = "rejected",
        Unreachable = "unreachable",
        Congestion = "congestion",
        Canceled = "canceled",
    }
}

/// A telephone number in E.164: `+`, a country code that doesn't start with 0, 7 to 15 digits in all.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, DeriveValueType,
)]
#[serde(try_from = "String", into = "String")]
pub struct E164(String);

/// Text that isn't an E.164 number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number in E.164 form, such as +442071838750")]
pub struct NotE164 {
    /// What the text would be with its formatting taken away, where that alone makes it E.164.
    pub suggestion: Option<E164>,
}

impl E164 {
    /// Parses a number that is already in E.164 form.
    ///
    /// # Errors
    /// [`NotE164`] for anything else, with the normalised form where spaces,
    /// dashes, dots, brackets or a leading `00` were all that was wrong.
    pub fn parse(text: &str) -> Result<Self, NotE164> {
        if is_e164(text) {
            return Ok(Self(text.to_owned()));
        }
        let mut bare: String =
            text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/')).collect();
        if let Some(rest) = bare.strip_prefix("00") {
            bare = format!("+{rest}");
        }
        Err(NotE164 { suggestion: is_e164(&bare).then_some(Self(bare)) })
    }

    /// Reads the number that a carrier dialled: E.164 with or without its `+`, or with `00`.
    pub fn from_dialled(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+').or_else(|| text.strip_prefix("00")).unwrap_or(text);
        Self::parse(&format!("+{digits}")).ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_e164(text: &str) -> bool {
    let Some(digits) = text.strip_prefix('+') else {
        return false;
    };
    (7..=15).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0')
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for E164 {
    type Error = NotE164;

    fn try_from(text: String) -> Result<Self, NotE164> {
        Self::parse(&text)
    }
}

impl From<E164> for String {
    fn from(number: E164) -> Self {
        number.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formatted_number_is_refused_with_its_normalised_form() {
        let refused = E164::parse("+44 (20) 7183-8750").unwrap_err();
        assert_eq!(refused.suggestion.unwrap().as_str(), "+442071838750");
        assert_eq!(
            E164::parse("0044 2071838750").unwrap_err().suggestion.unwrap().as_str(),
            "+442071838750"
        );
        assert_eq!(E164::parse("020 7183").unwrap_err().suggestion, None);
    }

    #[test]
    fn a_carrier_may_leave_the_plus_away() {
        for dialled in ["+442071838750", "442071838750", "00442071838750"] {
            assert_eq!(E164::from_dialled(dialled).unwrap().as_str(), "+442071838750");
        }
        for hostile in [
            "",
            "+",
            "100/sip:evil@x",
            "+44207183875012345678",
            "+0123456789",
            "44207;1838",
            "+٤٤٢٠٧١٨٣",
        ] {
            assert_eq!(E164::from_dialled(hostile), None, "{hostile}");
        }
    }
}
