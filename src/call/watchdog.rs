//! Finds what can't be: calls, channels, bridges and holds that don't belong together.
//!
//! The registry lists what is on the switch after every connection and once in a while,
//! and asks here what of it fits no call, and which call fits nothing of it. What is
//! just coming or going doesn't fit either, so a finding counts when it is made twice
//! in a row. There should never be one: each is counted, logged and mended.
//!
//! Another instance may lead calls on the same Asterisk. They are its own, and are let
//! alone, until somebody is left alone in one of its bridges.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::ari::model::Bridge;
use crate::ari::{Channel, ChannelId, ChannelState, LegId};
use crate::ids::{CallId, Mark};

/// What there is on the switch.
#[derive(Debug)]
pub struct Found {
    pub channels: Vec<Channel>,
    pub bridges: Vec<Bridge>,
}

/// What there should be.
pub struct Expected<'a> {
    /// By which calls of this instance are known.
    pub mark: Mark,
    /// The Stasis application that calls come to.
    pub application: &'a str,
    /// Every live call, by its caller.
    pub callers: &'a BTreeMap<ChannelId, CallId>,
    /// Calls that capacity is held for.
    pub held: HashSet<CallId>,
}

/// Something that can't be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A channel of ours that belongs to no call.
    ChannelWithoutCall(ChannelId),
    /// A bridge of ours that belongs to no call.
    BridgeWithoutCall(String),
    /// A call whose caller isn't on the switch.
    CallWithoutChannel(CallId),
    /// A call whose caller and client are both there, answered, and not in one bridge.
    CallApart(CallId),
    /// Capacity that is held for no call.
    HoldWithoutCall(CallId),
}

/// Remembers what was found last.
#[derive(Debug, Default)]
pub struct Watchdog {
    suspects: BTreeSet<Finding>,
}

impl Watchdog {
    /// What was found the last time too. None of it is a suspect any more.
    pub fn look(&mut self, found: &Found, expected: &Expected<'_>) -> Vec<Finding> {
        let findings = compare(found, expected);
        let (sure, suspects): (BTreeSet<_>, _) =
            findings.into_iter().partition(|finding| self.suspects.contains(finding));
        self.suspects = suspects;
        sure.into_iter().collect()
    }
}

/// Callers who wait to be served, and of whom no call knows.
pub fn unserved(found: &Found, expected: &Expected<'_>) -> Vec<Channel> {
    let waits = |channel: &&Channel| {
        is_caller(channel, expected.application)
            && channel.state == ChannelState::Ring
            && !expected.callers.contains_key(&channel.id)
            && !is_led_elsewhere(found, expected, &channel.id)
    };
    found.channels.iter().filter(waits).cloned().collect()
}

/// Calls of which a channel isn't there: an event may have been missed, or is on its way.
pub fn incomplete(found: &Found, expected: &Expected<'_>) -> Vec<CallId> {
    let listed: HashSet<&ChannelId> = found.channels.iter().map(|channel| &channel.id).collect();
    let with_leg: HashSet<CallId> = legs(found).map(|(leg, _)| leg.call).collect();
    let is_incomplete = |(caller, call): &(&ChannelId, &CallId)| {
        !listed.contains(caller) || !with_leg.contains(call)
    };
    expected.callers.iter().filter(is_incomplete).map(|(_, call)| *call).collect()
}

fn compare(found: &Found, expected: &Expected<'_>) -> BTreeSet<Finding> {
    let calls: HashSet<CallId> = expected.callers.values().copied().collect();
    let mut findings = BTreeSet::new();
    for channel in &found.channels {
        let is_stranger = match LegId::parse(channel.id.as_str()) {
            Some(leg) => expected.is_ours(leg.call) && !calls.contains(&leg.call),
            None => {
                is_caller(channel, expected.application)
                    && channel.state != ChannelState::Ring
                    && !expected.callers.contains_key(&channel.id)
                    && !is_led_elsewhere(found, expected, &channel.id)
            }
        };
        if is_stranger {
            findings.insert(Finding::ChannelWithoutCall(channel.id.clone()));
        }
    }
    let channels: BTreeMap<_, _> = found.channels.iter().map(|c| (&c.id, c.state)).collect();
    for bridge in &found.bridges {
        let Some(call) = CallId::parse(&bridge.id) else { continue };
        if calls.contains(&call) {
            continue;
        }
        if expected.is_ours(call) {
            findings.insert(Finding::BridgeWithoutCall(bridge.id.clone()));
        } else if let [alone] = &bridge.channels[..]
            && channels.get(alone) == Some(&ChannelState::Up)
        {
            // Whoever led it would have let go by now of one who talks to nobody.
            findings.insert(Finding::ChannelWithoutCall(alone.clone()));
        }
    }
    for (caller, call) in expected.callers {
        match channels.get(caller) {
            None => {
                findings.insert(Finding::CallWithoutChannel(*call));
            }
            Some(ChannelState::Up) if is_apart(found, caller, *call) => {
                findings.insert(Finding::CallApart(*call));
            }
            Some(_) => {}
        }
    }
    findings.extend(expected.held.difference(&calls).map(|call| Finding::HoldWithoutCall(*call)));
    findings
}

/// Whether the caller and an answered client aren't in the call's bridge.
fn is_apart(found: &Found, caller: &ChannelId, call: CallId) -> bool {
    let bridge = found.bridges.iter().find(|bridge| CallId::parse(&bridge.id) == Some(call));
    let inside = |id: &ChannelId| bridge.is_some_and(|bridge| bridge.channels.contains(id));
    let mut answered =
        legs(found).filter(|(leg, channel)| leg.call == call && channel.state == ChannelState::Up);
    answered.any(|(_, channel)| !inside(caller) || !inside(&channel.id))
}

/// Whether it is in a bridge of another instance.
fn is_led_elsewhere(found: &Found, expected: &Expected<'_>, channel: &ChannelId) -> bool {
    let foreign =
        |bridge: &&Bridge| CallId::parse(&bridge.id).is_some_and(|call| !expected.is_ours(call));
    found.bridges.iter().filter(foreign).any(|bridge| bridge.channels.contains(channel))
}

impl Expected<'_> {
    fn is_ours(&self, call: CallId) -> bool {
        call.mark() == self.mark
    }
}

fn legs(found: &Found) -> impl Iterator<Item = (LegId, &Channel)> {
    found.channels.iter().filter_map(|c| Some((LegId::parse(c.id.as_str())?, c)))
}

fn is_caller(channel: &Channel, application: &str) -> bool {
    LegId::parse(channel.id.as_str()).is_none()
        && channel.dialplan.app_name == "Stasis"
        && channel.dialplan.app_data.split(',').next() == Some(application)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ari::model::Dialplan;
    use crate::clock;

    const APPLICATION: &str = "capconduit";

    fn mark() -> Mark {
        Mark::of_instance("one")
    }

    fn expected<'a>(callers: &'a BTreeMap<ChannelId, CallId>, held: &[CallId]) -> Expected<'a> {
        let held = held.iter().copied().collect();
        Expected { mark: mark(), application: APPLICATION, callers, held }
    }

    fn channel(id: &str, state: ChannelState) -> Channel {
        let dialplan = Dialplan {
            exten: "+15550001".to_owned(),
            app_name: "Stasis".to_owned(),
            app_data: APPLICATION.to_owned(),
        };
        Channel { id: ChannelId(id.to_owned()), state, caller: Default::default(), dialplan }
    }

    /// A call that talks, as it should be; and its id.
    fn talking() -> (Found, BTreeMap<ChannelId, CallId>, CallId) {
        let call = clock::new_call_id().led_by(mark());
        let leg = LegId { call, attempt: 1 }.to_string();
        let inside = vec![ChannelId("1.0".to_owned()), ChannelId(leg.clone())];
        let found = Found {
            channels: vec![channel("1.0", ChannelState::Up), channel(&leg, ChannelState::Up)],
            bridges: vec![Bridge { id: call.to_string(), channels: inside }],
        };
        (found, BTreeMap::from([(ChannelId("1.0".to_owned()), call)]), call)
    }

    /// What is found the second time.
    fn seen_twice(
        found: &Found,
        callers: &BTreeMap<ChannelId, CallId>,
        held: &[CallId],
    ) -> Vec<Finding> {
        let expected = expected(callers, held);
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.look(found, &expected), [], "it may be just coming or going");
        watchdog.look(found, &expected)
    }

    #[test]
    fn nothing_is_found_of_a_call_that_is_as_it_should_be() {
        let (found, callers, call) = talking();
        assert_eq!(seen_twice(&found, &callers, &[call]), []);
    }

    #[test]
    fn whatever_belongs_to_no_call_is_found() {
        let (found, _, call) = talking();
        let findings = seen_twice(&found, &BTreeMap::new(), &[call]);
        let leg = ChannelId(LegId { call, attempt: 1 }.to_string());
        let all = [
            Finding::ChannelWithoutCall(leg),
            Finding::ChannelWithoutCall(ChannelId("1.0".to_owned())),
            Finding::BridgeWithoutCall(call.to_string()),
            Finding::HoldWithoutCall(call),
        ];
        assert_eq!(BTreeSet::from_iter(findings), BTreeSet::from(all));
    }

    #[test]
    fn a_call_without_its_caller_is_found() {
        let (mut found, callers, call) = talking();
        found.channels.remove(0);
        assert_eq!(seen_twice(&found, &callers, &[]), [Finding::CallWithoutChannel(call)]);
    }

    #[test]
    fn a_bridge_with_one_leg_is_found() {
        for missing in [0, 1] {
            let (mut found, callers, call) = talking();
            found.bridges[0].channels.remove(missing);
            assert_eq!(seen_twice(&found, &callers, &[]), [Finding::CallApart(call)]);
        }
    }

    #[test]
    fn a_caller_who_waits_is_served_and_not_taken_down() {
        let (mut found, _, _) = talking();
        found.channels = vec![channel("2.0", ChannelState::Ring)];
        found.bridges.clear();
        let callers = BTreeMap::new();
        assert_eq!(seen_twice(&found, &callers, &[]), []);
        assert_eq!(unserved(&found, &expected(&callers, &[])).len(), 1);
        let others = Expected { application: "other", ..expected(&callers, &[]) };
        assert_eq!(unserved(&found, &others), []);
    }

    #[test]
    fn a_call_of_another_instance_is_let_alone_until_it_is_half_a_call() {
        let (mut found, _, call) = talking();
        let others = call.led_by(Mark::of_instance("two"));
        let leg = ChannelId(LegId { call: others, attempt: 1 }.to_string());
        found.channels[1].id = leg.clone();
        found.bridges[0] =
            Bridge { id: others.to_string(), channels: vec![ChannelId("1.0".to_owned()), leg] };
        let none = BTreeMap::new();
        assert_eq!(seen_twice(&found, &none, &[]), []);
        found.channels[0].state = ChannelState::Ring;
        assert_eq!(unserved(&found, &expected(&none, &[])), [], "its caller is served");
        found.channels[0].state = ChannelState::Up;
        let left = found.bridges[0].channels.remove(0);
        found.channels.remove(0);
        assert_ne!(left, found.channels[0].id);
        let alone = Finding::ChannelWithoutCall(found.channels[0].id.clone());
        assert_eq!(seen_twice(&found, &none, &[]), [alone]);
    }
}
