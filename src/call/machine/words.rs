//! What a machine is told, and what it wants done.

use std::time::Duration;

use crate::call::record::CallRecord;
use crate::capacity::{HoldId, Request, Verdict};
use crate::clock::Timestamp;
use crate::live::LiveState;

/// Something that happened. Legs are named by their attempt.
#[derive(Clone, Debug)]
pub enum Input {
    /// The call begins, or goes on after a restart of the service. Given once, first.
    Started,
    /// The ledger's answer; none = it can't be reached.
    Verdict {
        attempt: u32,
        verdict: Option<Verdict>,
    },
    /// The caller could not be put into a bridge.
    BridgeFailed,
    /// The switch would not make the leg: nothing was sent to the client.
    LegNotCreated {
        attempt: u32,
    },
    /// The leg is on the switch: what an audit found.
    LegSeen {
        attempt: u32,
    },
    /// The leg exists and may be dialled.
    LegEntered {
        attempt: u32,
    },
    /// The leg exists, but could not be dialled.
    LegNotDialled {
        attempt: u32,
    },
    /// The switch has sent the call to the leg's client.
    LegDialled {
        attempt: u32,
    },
    LegRinging {
        attempt: u32,
    },
    /// The leg exists and does nothing: what a check found.
    LegIdle {
        attempt: u32,
    },
    LegAnswered {
        attempt: u32,
    },
    /// The leg is out of the bridge, where its answer can't reach the caller any more.
    LegDetached {
        attempt: u32,
        /// It had been answered before.
        answered: bool,
    },
    /// The leg left our application; most likely it is gone.
    LegLeft {
        attempt: u32,
    },
    /// A check found no such leg: the events that say why may be on their way.
    LegMissing {
        attempt: u32,
    },
    /// The leg is no more.
    LegGone {
        attempt: u32,
        cause: Option<i32>,
        sip: Option<i32>,
    },
    CallerAnswered,
    /// The caller is there and not answered: what a check found.
    CallerWaiting,
    /// Why the caller's leg is about to end.
    CallerCause {
        cause: i32,
        sip: Option<i32>,
    },
    /// A check found no leg of the caller: the events that say why may be on their way.
    CallerMissing,
    /// The caller's leg is no more.
    CallerGone,
    Timer(Timer),
    /// An operator ends the call, or the service stops; then nothing is told of it.
    HangUp {
        told: Option<String>,
    },
    /// Events flow, and some may have been missed: ask the switch.
    Recheck,
    /// Caller and client are both up, and not in one bridge.
    Apart,
    /// The switch has started anew: what was on it is no more.
    SwitchRestarted,
    /// Nothing is heard from the switch; the call was last known to be up then.
    Unseen {
        since: Timestamp,
    },
}

/// Something to be done. Effects on the switch are carried out in order.
#[derive(Clone, Debug)]
pub enum Effect {
    Reserve(Request),
    Settle(HoldId),
    Release(HoldId),
    /// Makes the bridge and puts the caller into it.
    CreateBridge,
    CreateLeg {
        attempt: u32,
        endpoint: String,
    },
    /// Puts the leg into the bridge and sends the INVITE.
    DialLeg {
        attempt: u32,
        ring: Duration,
    },
    HangUpLeg {
        attempt: u32,
        cause: i32,
    },
    /// Takes the leg out of the bridge, and looks whether it was answered.
    DetachLeg {
        attempt: u32,
    },
    /// Puts the leg back into the bridge.
    JoinLeg {
        attempt: u32,
    },
    HangUpCaller {
        cause: i32,
    },
    /// Answers the caller, if the client is up and in the bridge.
    AnswerCaller {
        attempt: u32,
    },
    CheckCaller,
    CheckLeg {
        attempt: u32,
    },
    DestroyBridge,
    Arm(Timer, Duration),
    /// The record must survive a crash from here on. Final if it has an end.
    Save(Box<CallRecord>),
    /// What operators see from here on, and since when it has been so.
    Show(LiveState, Timestamp),
    /// The call is over; nothing follows.
    Close,
}

/// A wait that has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// The leg was asked for and should be in our application by now.
    Setup(u32),
    /// The client has been rung for as long as the campaign allows.
    Ring(u32),
    /// The client answered, and the caller should be answered by now.
    Answer(u32),
    /// Had the caller's hang-up met the answer, it would be known by now.
    Settle(u32),
    /// The caller, for whom the next client is to be asked, should have been found by now.
    Next,
    /// The leg should be gone by now.
    Gone(u32),
    /// No leg of the client is there, and no event will say more.
    LegMissing(u32),
    /// The caller hung up, and its leg should be gone by now.
    CallerGone,
    /// No leg of the caller is there, and no event will say more.
    CallerMissing,
    /// Both legs should be gone by now.
    End,
}
