//! The whole life of a call, whatever defect of ours its driver meets with.
//!
//! Two who talk need nobody to go on talking. So where their driver is no more, their call is
//! taken up once more from what was noted of it, as the next run of the service would. Any
//! other call is cut off; and so is one whose second driver meets with a defect too, since
//! what is noted of it may be what no driver can bear.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tracing::error;

use super::adopt;
use super::cut_off::cut_off;
use super::driver::{self, Parts, Stamped};
use super::machine::Machine;
use super::record::CallRecord;
use super::setup::Place;
use crate::clock::{self, Timestamp};
use crate::routing::Current;

/// What the life of a call needs beside its driver.
pub struct Life {
    pub parts: Arc<Parts>,
    pub routing: Arc<Current>,
    /// Whether events flow from the switch.
    pub connected: Arc<AtomicBool>,
}

/// A driver of ours is no more.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
struct Defect {
    said: String,
    /// Until when the call is known to have been up.
    known_until: Timestamp,
}

// === impl Life ===

impl Life {
    /// Leads a call to its end.
    pub async fn lead(
        self,
        machine: Machine,
        mut mailbox: mpsc::Receiver<Stamped>,
        place: Option<Place>,
    ) {
        let arrived = machine.record().clone();
        let Err(defect) = self.drive(machine, &mut mailbox, place).await else { return };
        if let Some(machine) = self.take_up(&arrived, defect.known_until).await {
            error!(error = %defect, "a talk goes on after a defect, and its call is taken up again");
            let Err(second) = self.drive(machine, &mut mailbox, None).await else { return };
            error!(error = %second, "a call was cut off by a second defect");
        } else {
            error!(error = %defect, "a call was cut off by a defect");
        }
        drop(mailbox);
        cut_off(&self.parts, arrived).await;
    }

    /// Leads it to its end, or to a defect, which ends this call's driver alone.
    async fn drive(
        &self,
        machine: Machine,
        mailbox: &mut mpsc::Receiver<Stamped>,
        place: Option<Place>,
    ) -> Result<(), Defect> {
        let mut known_until = clock::now();
        let led = driver::lead(self.parts.clone(), machine, mailbox, &mut known_until, place);
        // Nothing of the driver is left that could be looked at afterwards.
        let led = AssertUnwindSafe(led).catch_unwind().await;
        led.map_err(|panic| Defect { said: words(&*panic), known_until })
    }

    /// What goes on with a call whose caller and client talk, as the journal says.
    async fn take_up(&self, arrived: &CallRecord, seen: Timestamp) -> Option<Machine> {
        let record = self.parts.journal.read(&[arrived.call]).next()?;
        let sold = record.answered_attempt().filter(|_| record.is_talk())?;
        // Whoever led it may not have come as far.
        self.parts.keeper.settle(sold.hold(record.call)).await;
        let machine = adopt::machine((*record).clone(), &self.routing.get(), seen);
        let hears = self.connected.load(Ordering::Acquire);
        let machine = if hears { machine.hearing() } else { machine };
        // The next run has to know, if this one ends before the switch was asked.
        self.parts.journal.save(machine.record().clone());
        Some(machine)
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it said nothing".to_owned())
}
