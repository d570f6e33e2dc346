//! How calls and attempts end: one value that the record, the log line and the
//! caller's SIP answer all come from.

use capconduit_entity::{AttemptResult, CallReason, CallStatus};
use serde::{Deserialize, Serialize};

use crate::capacity::{Cap, Refusal};

/// How a call ended, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub status: CallStatus,
    pub reason: CallReason,
}

/// Q.850 causes that we send or read.
pub mod cause {
    pub const UNALLOCATED: i32 = 1;
    pub const NO_ROUTE: i32 = 3;
    pub const NORMAL: i32 = 16;
    pub const BUSY: i32 = 17;
    pub const NO_USER_RESPONDING: i32 = 18;
    pub const NO_ANSWER: i32 = 19;
    pub const SUBSCRIBER_ABSENT: i32 = 20;
    pub const REJECTED: i32 = 21;
    pub const NUMBER_CHANGED: i32 = 22;
    pub const OUT_OF_ORDER: i32 = 27;
    pub const CONGESTION: i32 = 34;
    pub const FAILURE: i32 = 38;
    pub const TEMPORARY_FAILURE: i32 = 41;
    pub const EQUIPMENT_CONGESTION: i32 = 42;

    /// The name that Asterisk gives a cause.
    pub const fn text(cause: i32) -> &'static str {
        match cause {
            UNALLOCATED => "Unallocated (unassigned) number",
            NO_ROUTE => "No route to destination",
            NORMAL => "Normal Clearing",
            BUSY => "User busy",
            NO_USER_RESPONDING => "No user responding",
            NO_ANSWER => "User alerting, no answer",
            SUBSCRIBER_ABSENT => "Subscriber absent",
            REJECTED => "Call Rejected",
            NUMBER_CHANGED => "Number changed",
            OUT_OF_ORDER => "Destination out of order",
            CONGESTION => "Circuit/channel congestion",
            FAILURE => "Network out of order",
            TEMPORARY_FAILURE => "Temporary failure",
            EQUIPMENT_CONGESTION => "Switching equipment congestion",
            _ => "Other",
        }
    }
}

impl Outcome {
    pub const fn new(status: CallStatus, reason: CallReason) -> Self {
        Self { status, reason }
    }

    pub const ANSWERED: Self = Self::new(CallStatus::Answered, CallReason::Answered);
    pub const ABANDONED: Self = Self::new(CallStatus::Canceled, CallReason::CallerAbandoned);
    /// A conversation whose end nobody witnessed.
    pub const INTERRUPTED_TALK: Self = Self::new(CallStatus::Answered, CallReason::Interrupted);
    /// A call that wasn't answered, as far as is known, and whose end nobody witnessed.
    pub const INTERRUPTED: Self = Self::new(CallStatus::Failed, CallReason::Interrupted);
    pub const NO_LEDGER: Self = Self::new(CallStatus::Rejected, CallReason::CapacityUnavailable);
    pub const SYSTEM_ERROR: Self = Self::new(CallStatus::Failed, CallReason::SystemError);

    /// Routing found nobody who could have the call.
    pub const fn refused(reason: CallReason) -> Self {
        let status = match reason {
            CallReason::DidNotFound | CallReason::DidInactive => CallStatus::RejectedDid,
            CallReason::SystemError => CallStatus::Failed,
            _ => CallStatus::Rejected,
        };
        Self::new(status, reason)
    }

    /// Nobody was dialled, because no cap had room.
    pub fn no_room(refusals: &[Refusal]) -> Self {
        let all = |test: fn(&Cap) -> bool| refusals.iter().all(|refusal| test(&refusal.cap));
        let status = if all(|cap| matches!(cap, Cap::Concurrency)) {
            CallStatus::RejectedCc
        } else if all(|cap| matches!(cap, Cap::Volume(_))) {
            CallStatus::RejectedTotal
        } else {
            CallStatus::Rejected
        };
        Self::new(status, CallReason::NoEligibleClientsAvailable)
    }

    /// Everybody who could be dialled was, and nobody took the call.
    pub fn unanswered(results: &[AttemptResult]) -> Self {
        let is_failure = |result: &AttemptResult| {
            use AttemptResult::{Congestion, Rejected, Unreachable};
            matches!(result, Rejected | Unreachable | Congestion)
        };
        if results.iter().all(|result| *result == AttemptResult::Busy) {
            Self::new(CallStatus::Busy, CallReason::AllBusy)
        } else if results.iter().all(is_failure) {
            Self::new(CallStatus::Failed, CallReason::AllFailed)
        } else {
            Self::new(CallStatus::NoAnswer, CallReason::AllNoAnswer)
        }
    }

    /// The Q.850 cause with which an unanswered caller is released. Asterisk
    /// makes a SIP answer of it: 404, 480, 486, 500 or 503.
    pub const fn release_cause(self) -> i32 {
        match self.reason {
            CallReason::DidNotFound | CallReason::DidInactive => cause::UNALLOCATED,
            CallReason::NoEligibleClientsAvailable | CallReason::CapacityUnavailable => {
                cause::CONGESTION
            }
            CallReason::AllBusy => cause::BUSY,
            CallReason::SystemError => cause::FAILURE,
            CallReason::Answered | CallReason::CallerAbandoned | CallReason::Interrupted => {
                cause::NORMAL
            }
            CallReason::AllNoAnswer
            | CallReason::AllFailed
            | CallReason::OwnerInactive
            | CallReason::NoActiveCampaignForDid
            | CallReason::NoActiveClientsInCampaign => cause::NO_ANSWER,
        }
    }
}

/// How a leg ended that wasn't answered, from what the switch said.
///
/// The SIP status says more than the cause: 480 and a ring timeout are both
/// cause 19, 403 and 603 both 21.
pub const fn attempt_result(cause: i32, sip: Option<i32>) -> AttemptResult {
    match sip {
        Some(486 | 600) => AttemptResult::Busy,
        Some(404 | 408 | 410 | 604) => AttemptResult::Unreachable,
        Some(480) => AttemptResult::NoAnswer,
        Some(500..=599) => AttemptResult::Congestion,
        Some(300..=499 | 601..=699) => AttemptResult::Rejected,
        _ => match cause {
            cause::BUSY => AttemptResult::Busy,
            cause::NO_ANSWER => AttemptResult::NoAnswer,
            cause::UNALLOCATED
            | cause::NO_ROUTE
            | cause::NO_USER_RESPONDING
            | cause::SUBSCRIBER_ABSENT
            | cause::NUMBER_CHANGED
            | cause::OUT_OF_ORDER => AttemptResult::Unreachable,
            cause::CONGESTION
            | cause::FAILURE
            | cause::TEMPORARY_FAILURE
            | cause::EQUIPMENT_CONGESTION => AttemptResult::Congestion,
            _ => AttemptResult::Rejected,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::{Scope, ScopeKind, WindowKind};
    use crate::ids::LinkId;

    #[test]
    fn only_attempts_that_were_all_busy_make_a_busy_call() {
        use AttemptResult::{Busy, NoAnswer, Rejected, Unreachable};
        assert_eq!(Outcome::unanswered(&[Busy, Busy]).reason, CallReason::AllBusy);
        assert_eq!(Outcome::unanswered(&[Rejected, Unreachable]).reason, CallReason::AllFailed);
        assert_eq!(Outcome::unanswered(&[Busy, NoAnswer]).reason, CallReason::AllNoAnswer);
        assert_eq!(Outcome::unanswered(&[Busy, Unreachable]).reason, CallReason::AllNoAnswer);
    }

    #[test]
    fn the_sip_status_says_more_than_the_cause() {
        assert_eq!(attempt_result(19, Some(480)), AttemptResult::NoAnswer);
        assert_eq!(attempt_result(18, Some(408)), AttemptResult::Unreachable);
        assert_eq!(attempt_result(21, Some(603)), AttemptResult::Rejected);
        assert_eq!(attempt_result(34, Some(503)), AttemptResult::Congestion);
        assert_eq!(attempt_result(23, Some(302)), AttemptResult::Rejected);
        assert_eq!(attempt_result(20, None), AttemptResult::Unreachable);
    }

    fn status(caps: &[(ScopeKind, Cap)]) -> CallStatus {
        let refusal = |&(kind, cap): &(ScopeKind, Cap)| {
            let scope = Scope { kind, id: 1 };
            Refusal { link: LinkId(1), scope, cap, used: 1, held: 0, limit: 1 }
        };
        Outcome::no_room(&caps.iter().map(refusal).collect::<Vec<_>>()).status
    }

    #[test]
    fn what_kind_of_cap_refused_decides_and_not_whose_it_was() {
        let day = Cap::Volume(WindowKind::Day);
        let all = |cap| ScopeKind::ALL.iter().map(|kind| (*kind, cap)).collect::<Vec<_>>();
        assert_eq!(status(&all(Cap::Concurrency)), CallStatus::RejectedCc);
        assert_eq!(status(&all(day)), CallStatus::RejectedTotal);
        for kind in ScopeKind::ALL {
            let mixed = [(*kind, Cap::Concurrency), (ScopeKind::Link, day)];
            assert_eq!(status(&mixed), CallStatus::Rejected);
        }
    }
}
