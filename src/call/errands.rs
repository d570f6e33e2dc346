//! What a call still wants done: effects that wait for the call's hands.
//!
//! The hands do one thing after another, and while the switch hangs each takes
//! seconds. Meanwhile the machine's timers go on, and ask again and again to look
//! at a leg or to hang it up. Such a request that still waits isn't written down
//! twice: it will be carried out later than the second was made, which is all that
//! the second wants. Everything else a call asks for once per attempt at most, so
//! the list has a bound whatever the switch does.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::machine::Effect;

/// Who writes errands down. When this is dropped, what waits is still to be done.
pub struct Errands(Arc<Shared>);

/// Who does them.
pub struct Waiting(Arc<Shared>);

#[derive(Default)]
struct Shared {
    list: Mutex<List>,
    changed: Notify,
}

#[derive(Default)]
struct List {
    waiting: VecDeque<Effect>,
    is_closed: bool,
}

/// An empty list.
pub fn errands() -> (Errands, Waiting) {
    let shared = Arc::new(Shared::default());
    (Errands(shared.clone()), Waiting(shared))
}

// === impl Errands ===

impl Errands {
    /// Writes one down, unless it is there already.
    pub fn add(&self, effect: Effect) {
        let mut list = self.0.list.lock();
        if list.waiting.iter().any(|waiting| makes_needless(waiting, &effect)) {
            return;
        }
        list.waiting.push_back(effect);
        self.0.changed.notify_one();
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        self.0.list.lock().is_closed = true;
        self.0.changed.notify_one();
    }
}

// === impl Waiting ===

impl Waiting {
    /// The next one, once there is one; none at the end of all.
    pub async fn next(&mut self) -> Option<Effect> {
        loop {
            {
                let mut list = self.0.list.lock();
                if let Some(effect) = list.waiting.pop_front() {
                    return Some(effect);
                }
                if list.is_closed {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

/// Whether `waiting` will do what `effect` is for.
fn makes_needless(waiting: &Effect, effect: &Effect) -> bool {
    match (waiting, effect) {
        (Effect::CheckCaller, Effect::CheckCaller)
        | (Effect::CreateBridge, Effect::CreateBridge)
        | (Effect::HangUpCaller { .. }, Effect::HangUpCaller { .. }) => true,
        (Effect::CheckLeg { attempt: one }, Effect::CheckLeg { attempt: other })
        | (Effect::DetachLeg { attempt: one }, Effect::DetachLeg { attempt: other })
        | (Effect::AnswerCaller { attempt: one }, Effect::AnswerCaller { attempt: other })
        // A leg that was put back into the bridge is never taken out again.
        | (Effect::JoinLeg { attempt: one }, Effect::JoinLeg { attempt: other })
        | (Effect::HangUpLeg { attempt: one, .. }, Effect::HangUpLeg { attempt: other, .. }) => {
            one == other
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a call asks for them that can't end because the switch hangs.
    #[test]
    fn however_often_the_same_is_asked_for_the_list_stays_short() {
        let (errands, waiting) = errands();
        for _ in 0..10_000 {
            for attempt in 1..=2 {
                errands.add(Effect::HangUpLeg { attempt, cause: 16 });
                errands.add(Effect::CheckLeg { attempt });
                errands.add(Effect::DetachLeg { attempt });
                errands.add(Effect::JoinLeg { attempt });
                errands.add(Effect::AnswerCaller { attempt });
            }
            errands.add(Effect::CreateBridge);
            errands.add(Effect::HangUpCaller { cause: 16 });
            errands.add(Effect::CheckCaller);
        }
        assert_eq!(waiting.0.list.lock().waiting.len(), 13);
    }

    #[tokio::test]
    async fn what_was_taken_may_be_asked_for_again_and_the_order_is_kept() {
        let (errands, mut waiting) = errands();
        errands.add(Effect::CheckCaller);
        errands.add(Effect::CreateBridge);
        errands.add(Effect::CheckCaller);
        assert!(matches!(waiting.next().await, Some(Effect::CheckCaller)));
        errands.add(Effect::CheckCaller);
        drop(errands);
        assert!(matches!(waiting.next().await, Some(Effect::CreateBridge)));
        assert!(matches!(waiting.next().await, Some(Effect::CheckCaller)));
        assert!(waiting.next().await.is_none());
    }

    #[tokio::test]
    async fn who_waits_is_told() {
        let (errands, mut waiting) = errands();
        let taken = tokio::spawn(async move { waiting.next().await });
        tokio::task::yield_now().await;
        errands.add(Effect::CreateBridge);
        assert!(matches!(taken.await.unwrap(), Some(Effect::CreateBridge)));
    }
}
