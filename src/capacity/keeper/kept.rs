//! One hold of this instance, and what the ledger is still to hear of it.
//!
//! Most holds are short: a client is dialled, talks, and is gone. But calls that were
//! answered stay until the records tell of them, and while the database is away these get
//! many. So nothing is kept of them but where they stand, and the ledger hears of them
//! seldom.

use std::time::Duration;

use tokio::time::Instant;

use crate::capacity::{Candidate, Stage, Standing};

pub(super) struct Kept {
    pub(super) standing: Standing,
    /// What it was granted for, until the client answers; none of one that an earlier run took.
    pub(super) candidate: Option<Box<Candidate>>,
    /// What the ledger is known to have heard.
    pub(super) told: Option<Stage>,
    /// When the ledger last promised the capacity, by this instance's clock.
    pub(super) promised: Instant,
    /// It isn't known yet whether the ledger granted it.
    pub(super) asking: bool,
    /// Its client may have been dialled: then it is held, whatever the ledger thinks.
    pub(super) dialled: bool,
    /// Since when the records tell of its call.
    pub(super) recorded: Option<Instant>,
}

/// Where a hold stands when nobody's leg stands behind it any more.
pub(super) const fn without_leg(stage: Stage) -> Stage {
    match stage {
        Stage::Held => Stage::Returned,
        Stage::Used => Stage::Counted,
        over => over,
    }
}

// === impl Kept ===

impl Kept {
    /// One of which the ledger has heard nothing.
    pub(super) fn untold(standing: Standing) -> Self {
        Self {
            standing,
            candidate: None,
            told: None,
            promised: Instant::now(),
            asking: false,
            dialled: false,
            recorded: None,
        }
    }

    /// It never goes back.
    pub(super) fn go_on_to(&mut self, stage: Stage) {
        self.standing.stage = self.standing.stage.max(stage);
        if self.standing.stage > Stage::Held {
            // It is asked for again only before its client is dialled.
            self.candidate = None;
        }
    }

    pub(super) fn is_untold(&self, trusted_for: Duration) -> bool {
        self.is_certain(trusted_for) && self.told != Some(self.standing.stage)
    }

    /// Whether the ledger has to be told again that it is held. What is only counted takes
    /// up nothing that others wait for, so `counted_for` may be a good part of its lease.
    pub(super) fn is_to_be_renewed(&self, trusted_for: Duration, counted_for: Duration) -> bool {
        match self.standing.stage {
            _ if !self.is_certain(trusted_for) => false,
            Stage::Held | Stage::Used => true,
            Stage::Counted => self.promised.elapsed() >= counted_for,
            // Nothing is left of it as soon as that is told.
            Stage::Returned | Stage::Recorded => false,
        }
    }

    /// Whether it is for this instance to say where it stands. What was promised too long
    /// ago may be somebody else's by now: before its client is dialled, it is asked for
    /// again, and until then nothing is said of it.
    fn is_certain(&self, trusted_for: Duration) -> bool {
        let is_waiting = self.standing.stage == Stage::Held && !self.dialled;
        let is_doubtful = is_waiting && self.promised.elapsed() >= trusted_for;
        !(self.asking || is_doubtful)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::{HoldId, Scope};
    use crate::clock;
    use crate::ids::LinkId;

    const TRUSTED_FOR: Duration = Duration::from_secs(60);
    const COUNTED_FOR: Duration = Duration::from_secs(60 * 60);

    fn granted() -> Kept {
        let link = LinkId(1);
        let hold = HoldId { call: clock::new_call_id(), attempt: 1 };
        let scopes = vec![Scope::link(link)];
        let standing = Standing { hold, stage: Stage::Held, moment: clock::now(), scopes };
        let candidate = Some(Box::new(Candidate { link, claims: Vec::new() }));
        Kept { candidate, ..Kept::untold(standing) }
    }

    #[test]
    fn what_it_was_granted_for_is_kept_until_the_client_answers() {
        let mut kept = granted();
        kept.go_on_to(Stage::Held);
        assert!(kept.candidate.is_some(), "it may be asked for again");
        kept.go_on_to(Stage::Used);
        assert!(kept.candidate.is_none());
    }

    #[test]
    fn what_it_was_granted_for_is_not_kept_where_the_client_never_answers() {
        let mut kept = granted();
        kept.go_on_to(without_leg(kept.standing.stage));
        assert_eq!(kept.standing.stage, Stage::Returned);
        assert!(kept.candidate.is_none());
    }

    #[test]
    fn a_hold_never_goes_back() {
        let mut kept = granted();
        kept.go_on_to(Stage::Counted);
        kept.go_on_to(Stage::Used);
        assert_eq!(kept.standing.stage, Stage::Counted);
        kept.go_on_to(without_leg(kept.standing.stage));
        assert_eq!(kept.standing.stage, Stage::Counted, "it stands for a call that was sold");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_only_counted_is_renewed_seldom() {
        let mut kept = granted();
        assert!(kept.is_to_be_renewed(TRUSTED_FOR, COUNTED_FOR));
        kept.go_on_to(Stage::Used);
        assert!(kept.is_to_be_renewed(TRUSTED_FOR, COUNTED_FOR));
        kept.go_on_to(Stage::Counted);
        assert!(!kept.is_to_be_renewed(TRUSTED_FOR, COUNTED_FOR));
        tokio::time::advance(COUNTED_FOR).await;
        assert!(kept.is_to_be_renewed(TRUSTED_FOR, COUNTED_FOR));
    }
}
