//! Comparing the switch with the calls, and mending what differs.

use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::warn;

use super::{Arrival, Registry};
use crate::ari::{ChannelId, LegId};
use crate::call::machine::Input;
use crate::call::outcome::cause;
use crate::call::watchdog::{self, Expected, Finding, Found, Listing};
use crate::clock;
use crate::telemetry::{Drift, call_span};

impl Registry {
    /// Lists what is on the switch, beside the registry.
    pub(super) fn audit(&self) {
        if !self.connected.load(Ordering::Acquire) {
            return;
        }
        let (switch, listings) = (self.parts.switch.clone(), self.audits.0.clone());
        let connection = self.watchdog.connection();
        self.tracker.spawn(async move {
            let begun = Instant::now();
            let listed = tokio::try_join!(switch.channels(), switch.bridges())
                .map(|(channels, bridges)| Found { channels, bridges })
                .inspect_err(|error| warn!(%error, "the switch could not be audited"));
            let ended = Instant::now();
            let listing = listed.ok().map(|found| Listing { connection, begun, ended, found });
            // Full means that an earlier audit still waits to be looked at.
            drop(listings.try_send(listing));
        });
    }

    /// Whether it showed anything new.
    pub(super) fn on_listing(&mut self, listing: &Listing) -> bool {
        let is_new = self.connected.load(Ordering::Acquire) && self.watchdog.heeds(listing);
        if is_new {
            self.on_found(&listing.found);
        }
        is_new
    }

    pub(super) fn on_found(&mut self, found: &Found) {
        let expected = Expected {
            mark: self.mark,
            application: self.parts.switch.application(),
            callers: &self.callers,
            held: self.parts.keeper.live_calls(),
        };
        let findings = self.watchdog.look(found, &expected);
        let mut unserved = watchdog::unserved(found, &expected);
        // Of these events told: their calls are over, or are about to begin.
        unserved.retain(|caller| {
            !self.recent.contains(&caller.id)
                && !self.waiting.iter().any(|waiting| waiting.channel.id == caller.id)
        });
        for call in watchdog::incomplete(found, &expected) {
            self.deliver(call, clock::now(), Input::Recheck);
        }
        for leg in found.channels.iter().filter_map(|c| LegId::parse(c.id.as_str())) {
            self.deliver(leg.call, clock::now(), Input::LegSeen { attempt: leg.attempt });
        }
        for finding in findings {
            self.mend(finding);
        }
        for unheard in std::mem::take(&mut self.unheard) {
            warn!(channel.id = %unheard, "of a caller no event told: the list of channels did");
            self.parts.metrics.drifted(Drift::CallerWithoutCall);
        }
        for caller in unserved {
            self.unheard.insert(caller.id.clone());
            self.on_caller(clock::now(), &caller, Arrival::Waited);
        }
    }

    pub(super) fn mend(&self, finding: Finding) {
        let drift = match finding {
            Finding::ChannelWithoutCall(channel) => {
                warn!(channel.id = %channel, "a channel without a call is taken down");
                self.take_down_channel(channel.0);
                Drift::ChannelWithoutCall
            }
            Finding::LeftAlone(channel) => {
                warn!(channel.id = %channel, "a channel that another instance left alone is taken down");
                self.take_down_channel(channel.0);
                Drift::ChannelWithoutCall
            }
            Finding::BridgeWithoutCall(bridge) => {
                warn!(bridge.id = bridge, "a bridge without a call is taken down");
                self.take_down_bridge(bridge);
                Drift::BridgeWithoutCall
            }
            Finding::CallWithoutChannel(call) => {
                call_span(call).in_scope(|| warn!("a call without a caller is looked at again"));
                self.deliver(call, clock::now(), Input::Recheck);
                // The call counts it, once, when it is sure that nobody told of its end.
                return;
            }
            Finding::CallApart(call) => {
                call_span(call)
                    .in_scope(|| warn!("caller and client are put into their bridge again"));
                self.deliver(call, clock::now(), Input::Apart);
                Drift::CallApart
            }
            Finding::HoldWithoutCall(call) => {
                call_span(call).in_scope(|| warn!("a hold without a call is given back"));
                self.parts.keeper.abandon(call);
                Drift::HoldWithoutCall
            }
        };
        self.parts.metrics.drifted(drift);
    }

    pub(super) fn take_down_channel(&self, channel: String) {
        self.take_down(channel, cause::TEMPORARY_FAILURE);
    }

    pub(super) fn take_down(&self, channel: String, cause: i32) {
        let switch = self.parts.switch.clone();
        self.tracker.spawn(async move {
            if let Err(error) = switch.hang_up(&channel, cause).await {
                warn!(channel.id = channel, %error, "could not take a channel down");
            }
        });
    }

    /// The next start has it, if that comes within the dialplan's patience.
    pub(super) fn send_back(&self, caller: ChannelId) {
        let switch = self.parts.switch.clone();
        self.tracker.spawn(async move {
            if let Err(error) = switch.send_back(caller.as_str()).await {
                warn!(channel.id = %caller, %error, "could not give a caller back to the dialplan");
            }
        });
    }

    pub(super) fn take_down_bridge(&self, bridge: String) {
        let switch = self.parts.switch.clone();
        self.tracker.spawn(async move {
            if let Err(error) = switch.destroy_bridge(&bridge).await {
                warn!(bridge.id = bridge, %error, "could not take a bridge down");
            }
        });
    }
}
