//! A call's hands: they carry out effects on the ledger and the switch, strictly in
//! order, and report back as inputs.
//!
//! A command without an answer may have been carried out: then the hands look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::driver::Parts;
use super::errands::Waiting;
use super::machine::{Effect, Input};
use super::outcome::cause;
use super::setup::Place;
use crate::ari::{AriError, Bridge, ChannelId, ChannelState, Done, LegId};
use crate::capacity::{HoldId, Request, Unavailable};
use crate::ids::CallId;

/// How long a call waits for a word about capacity.
pub const LEDGER_TIMEOUT: Duration = Duration::from_millis(500);
/// Asterisk's own dial timeout comes after ours: it only acts if we are gone.
const DIAL_SAFETY_SECONDS: u64 = 3;
/// How often a command is asked for again that came too early, or got lost on its way.
const TRIES: u32 = 5;
/// A connection that breaks does so sooner than this; a switch that hangs answers later.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A channel enters our application within milliseconds of its creation.
const SOON: Duration = Duration::from_millis(20);

pub struct Hands {
    pub call: CallId,
    pub is_ending: Arc<AtomicBool>,
    /// Given back when the first client is dialled, or the caller refused.
    pub place: Mutex<Option<Place>>,
    pub caller: ChannelId,
    pub parts: Arc<Parts>,
    pub results: mpsc::UnboundedSender<Input>,
}

impl Hands {
    pub async fn work(self, mut waiting: Waiting) {
        while let Some(effect) = waiting.next().await {
            self.perform(effect).await;
        }
    }

    async fn perform(&self, effect: Effect) {
        match effect {
            Effect::Reserve(request) => self.reserve(request).await,
            Effect::Settle(hold) => self.parts.keeper.settle(hold).await,
            Effect::Release(hold) => self.parts.keeper.release(hold).await,
            Effect::CreateBridge => self.create_bridge().await,
            Effect::CreateLeg { attempt, endpoint } => self.create_leg(attempt, &endpoint).await,
            Effect::DialLeg { attempt, ring } => self.dial_leg(attempt, ring).await,
            Effect::HangUpLeg { attempt, cause } => {
                let leg = self.leg(attempt);
                self.note("hang up the client", self.parts.switch.hang_up(&leg, cause).await);
            }
            Effect::DetachLeg { attempt } => self.detach_leg(attempt).await,
            Effect::JoinLeg { attempt } => self.join_leg(attempt).await,
            Effect::HangUpCaller { cause } => {
                self.leave_setup();
                let result = self.parts.switch.hang_up(self.caller.as_str(), cause).await;
                self.note("hang up the caller", result);
            }
            Effect::AnswerCaller { attempt } => self.answer_caller(attempt).await,
            Effect::CheckCaller => self.check_caller().await,
            Effect::CheckLeg { attempt } => self.check_leg(attempt).await,
            Effect::DestroyBridge => {
                let bridge = self.call.to_string();
                self.note("destroy the bridge", self.parts.switch.destroy_bridge(&bridge).await);
            }
            // The driver's own.
            Effect::Arm(..) | Effect::Save(_) | Effect::Show(..) | Effect::Close => {}
        }
    }

    fn leave_setup(&self) {
        self.place.lock().take();
    }

    /// The caller may have left while effects waited.
    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    // --- ledger ---

    async fn reserve(&self, request: Request) {
        let attempt = request.hold.attempt;
        // No call that was taken up is refused only because the ledger is just being filled.
        self.parts.opened.cancelled().await;
        let verdict = match timeout(LEDGER_TIMEOUT, self.parts.keeper.reserve(&request)).await {
            Ok(Ok(verdict)) => Some(verdict),
            Ok(Err(Unavailable { reason })) => {
                warn!(reason, "the capacity ledger can't be reached");
                None
            }
            Err(_) => {
                warn!("the capacity ledger didn't answer in time");
                None
            }
        };
        self.report(Input::Verdict { attempt, verdict });
    }

    /// Whether the hold still stands, right before its client is dialled.
    async fn may_dial(&self, attempt: u32) -> bool {
        let hold = HoldId { call: self.call, attempt };
        match timeout(LEDGER_TIMEOUT, self.parts.keeper.reaffirm(hold)).await {
            Ok(Ok(stands)) => stands,
            Ok(Err(Unavailable { .. })) | Err(_) => false,
        }
    }

    // --- switch ---

    async fn create_bridge(&self) {
        let switch = &self.parts.switch;
        let result = match self.make_bridge().await {
            Ok(()) => self.add_to_bridge(self.caller.as_str()).await,
            Err(error) => Err(error),
        };
        let Err(error) = result else { return };
        // Most likely the caller has just hung up.
        match switch.channel(self.caller.as_str()).await {
            Ok(None) => self.report(Input::CallerGone),
            _ => {
                warn!(%error, "the caller could not be bridged");
                self.report(Input::BridgeFailed);
            }
        }
    }

    async fn create_leg(&self, attempt: u32, endpoint: &str) {
        let leg = self.leg(attempt);
        if self.is_ending() {
            self.report(Input::LegNotCreated { attempt });
            return;
        }
        if !self.may_dial(attempt).await {
            warn!(attempt, "the capacity was lost before the client was dialled");
            self.report(Input::LegNotCreated { attempt });
            return;
        }
        let endpoint = format!("PJSIP/{endpoint}");
        match self.make_leg(&leg, &endpoint).await {
            Ok(()) => {}
            // It may exist: the leg's entry or the setup timer will tell.
            Err(error) if error.is_outcome_unknown() => {
                warn!(%error, "whether a leg was made is not known yet");
            }
            Err(error) => {
                info!(attempt, %error, "the client can't be reached");
                self.report(Input::LegNotCreated { attempt });
            }
        }
    }

    async fn dial_leg(&self, attempt: u32, ring: Duration) {
        let leg = self.leg(attempt);
        let seconds = u32::try_from(ring.as_secs() + DIAL_SAFETY_SECONDS).unwrap_or(u32::MAX);
        if let Err(error) = self.add_to_bridge(&leg).await {
            debug!(%error, "the client could not be bridged");
            self.leave_setup();
            return self.report(Input::LegNotDialled { attempt });
        }
        // The caller left meanwhile; the leg is about to be hung up.
        if self.is_ending() {
            return;
        }
        let result = self.dial(&leg, seconds).await;
        self.leave_setup();
        match result {
            Ok(()) => self.report(Input::LegDialled { attempt }),
            Err(error @ AriError::OutcomeUnknown { .. }) => {
                warn!(%error, "whether the client was dialled is not known");
            }
            Err(error) => {
                debug!(%error, "the client could not be dialled");
                self.report(Input::LegNotDialled { attempt });
            }
        }
    }

    async fn detach_leg(&self, attempt: u32) {
        let (switch, leg, bridge) = (&self.parts.switch, self.leg(attempt), self.call.to_string());
        let removed = switch.remove_from_bridge(&bridge, &leg).await;
        if removed.is_err() && !self.is_out_of_bridge(&leg).await {
            // An answer would still reach the caller. The machine asks again.
            self.note("take the client out of the bridge", removed);
            return;
        }
        let answered = match switch.channel(&leg).await {
            Ok(Some(channel)) => channel.state == ChannelState::Up,
            // Whether it was answered before, only the caller shows.
            Ok(None) => return self.report(Input::LegGone { attempt, cause: None, sip: None }),
            Err(error) => {
                // It may be answered: until that is known it is neither had nor given up.
                debug!(%error, "a leg could not be checked");
                return;
            }
        };
        self.report(Input::LegDetached { attempt, answered });
    }

    async fn join_leg(&self, attempt: u32) {
        let (switch, leg) = (&self.parts.switch, self.leg(attempt));
        if let Err(error) = self.add_to_bridge(&leg).await {
            warn!(%error, "the client could not be put back into the bridge");
            self.note("hang up the client", switch.hang_up(&leg, cause::NORMAL).await);
        }
    }

    /// Answers the caller, once the client is up and in the bridge: nobody is answered to
    /// nobody. Where that isn't so, or not known, the machine asks again.
    async fn answer_caller(&self, attempt: u32) {
        let (switch, leg) = (&self.parts.switch, self.leg(attempt));
        match switch.channel(&leg).await {
            Ok(Some(client)) if client.state == ChannelState::Up => {}
            Ok(Some(_)) => return,
            Ok(None) => return self.report(Input::LegGone { attempt, cause: None, sip: None }),
            Err(error) => return debug!(%error, "a leg could not be checked"),
        }
        match self.bridge().await {
            // The caller left meanwhile.
            Ok(_) if self.is_ending() => {}
            Ok(Some(bridge)) if has(&bridge, &leg) => {
                self.note("answer the caller", switch.answer(self.caller.as_str()).await);
                self.check_caller().await;
            }
            // It was taken out, and putting it back got lost.
            Ok(_) => self.join_leg(attempt).await,
            Err(error) => debug!(%error, "the bridge could not be checked"),
        }
    }

    // --- commands whose answer may be lost ---

    /// Makes the bridge. Whether it was made is looked up where nobody said.
    async fn make_bridge(&self) -> Done {
        let (switch, bridge) = (&self.parts.switch, self.call.to_string());
        match switch.create_bridge(&bridge).await {
            Err(error) if error.is_outcome_unknown() => match self.bridge().await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => switch.create_bridge(&bridge).await,
                Err(_) => Err(error),
            },
            result => result,
        }
    }

    /// Puts a channel into the bridge, and looks whether it is in it where nobody said.
    async fn add_to_bridge(&self, channel: &str) -> Done {
        let (switch, bridge) = (&self.parts.switch, self.call.to_string());
        let mut result = switch.add_to_bridge(&bridge, channel).await;
        for _ in 0..TRIES {
            match &result {
                Err(error) if error.is_outcome_unknown() => match self.bridge().await {
                    Ok(Some(found)) if has(&found, channel) => return Ok(()),
                    Ok(_) => {}
                    Err(_) => return result,
                },
                // It is about to enter our application.
                Err(error) if error.is_not_in_application() => sleep(SOON).await,
                _ => return result,
            }
            result = switch.add_to_bridge(&bridge, channel).await;
        }
        result
    }

    /// Whether the channel is known not to be in the call's bridge.
    async fn is_out_of_bridge(&self, channel: &str) -> bool {
        self.bridge().await.is_ok_and(|bridge| !bridge.is_some_and(|found| has(&found, channel)))
    }

    async fn bridge(&self) -> Result<Option<Bridge>, AriError> {
        let name = self.call.to_string();
        let bridges = self.parts.switch.bridges().await?;
        Ok(bridges.into_iter().find(|bridge| bridge.id == name))
    }

    /// Makes a leg. Where the connection broke, and no leg is there, the request got
    /// lost, and is made again; one that hung may still be carried out, and is not.
    async fn make_leg(&self, leg: &str, endpoint: &str) -> Done {
        let (switch, asked) = (&self.parts.switch, Instant::now());
        let mut result = switch.create_channel(leg, endpoint, self.caller.as_str()).await;
        if let Err(error) = &result
            && error.is_outcome_unknown()
            && asked.elapsed() < AT_ONCE
            && matches!(switch.channel(leg).await, Ok(None))
            && !self.is_ending()
        {
            result = switch.create_channel(leg, endpoint, self.caller.as_str()).await;
        }
        match result {
            Err(AriError::Refused { status: 409, .. }) => {
                debug!("the leg was there already");
                Ok(())
            }
            Err(error) if error.is_outcome_unknown() => match switch.channel(leg).await {
                Ok(Some(_)) => Ok(()),
                _ => Err(error),
            },
            result => result,
        }
    }

    /// Dials a leg, once: a second INVITE would ring a second time. Refused with
    /// 409, it isn't in our application yet or was dialled before; its state tells.
    async fn dial(&self, leg: &str, seconds: u32) -> Done {
        let switch = &self.parts.switch;
        let mut result = switch.dial(leg, self.caller.as_str(), seconds).await;
        for _ in 0..TRIES {
            if !result.as_ref().is_err_and(AriError::is_not_in_application) {
                break;
            }
            match switch.channel(leg).await {
                Ok(Some(channel)) if channel.state != ChannelState::Down => return Ok(()),
                Ok(Some(_)) => sleep(SOON).await,
                Ok(None) | Err(_) => break,
            }
            if self.is_ending() {
                return Ok(());
            }
            result = switch.dial(leg, self.caller.as_str(), seconds).await;
        }
        result
    }

    // --- looking ---

    async fn check_caller(&self) {
        match self.parts.switch.channel(self.caller.as_str()).await {
            Ok(None) => self.report(Input::CallerMissing),
            Ok(Some(channel)) if channel.state == ChannelState::Up => {
                self.report(Input::CallerAnswered);
            }
            Ok(Some(_)) => self.report(Input::CallerWaiting),
            Err(error) => debug!(%error, "the caller could not be checked"),
        }
    }

    async fn check_leg(&self, attempt: u32) {
        match self.parts.switch.channel(&self.leg(attempt)).await {
            Ok(None) => self.report(Input::LegMissing { attempt }),
            Ok(Some(channel)) => match channel.state {
                ChannelState::Up => self.report(Input::LegAnswered { attempt }),
                ChannelState::Ringing => self.report(Input::LegRinging { attempt }),
                ChannelState::Down => self.report(Input::LegIdle { attempt }),
                _ => {}
            },
            Err(error) => debug!(%error, "a leg could not be checked"),
        }
    }

    fn leg(&self, attempt: u32) -> String {
        LegId { call: self.call, attempt }.to_string()
    }

    fn note(&self, what: &str, result: Result<(), AriError>) {
        if let Err(error) = result {
            warn!(%error, "could not {what}");
        }
    }

    fn report(&self, input: Input) {
        if self.results.send(input).is_err() {
            debug!("a result came after the end of its call");
        }
    }
}

/// Whether the channel is in the bridge.
fn has(bridge: &Bridge, channel: &str) -> bool {
    bridge.channels.iter().any(|inside| inside.as_str() == channel)
}
