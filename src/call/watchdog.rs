//! Finds what can't be: calls, channels, bridges and holds that don't belong together.
//!
//! The registry lists what is on the switch after every connection and once in a while,
//! and asks here what of it fits no call, and which call fits nothing of it. What is
//! just coming or going doesn't fit either, so a finding counts when it is made twice
//! in a row, half a second apart at least and on one and the same connection. There
//! should never be one: each is counted, logged and mended.
//!
//! Another instance may lead calls on the same Asterisk. They are its own, and are let
//! alone, until somebody is left alone in one of its bridges, and stays so for longer
//! than that instance needs to find it itself. What other programs have there isn't ours
//! to judge, whatever it looks like.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::ari::model::Bridge;
use crate::ari::{Channel, ChannelId, ChannelState, LegId};
use crate::ids::{CallId, Mark};

/// What there is on the switch.
#[derive(Debug)]
pub struct Found {
    pub channels: Vec<Channel>,
    pub bridges: Vec<Bridge>,
}

/// A look at the switch.
#[derive(Debug)]
pub struct Listing {
    /// On which connection to the switch it was begun, see [`Watchdog::connected`].
    pub connection: u64,
    pub begun: Instant,
    pub ended: Instant,
    pub found: Found,
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
    /// A leg or a caller that is left alone in a bridge of another instance.
    LeftAlone(ChannelId),
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
    /// How often in a row each was found.
    suspects: BTreeMap<Finding, u32>,
    /// Counts the connections to the switch.
    connection: u64,
    /// When the last listing was whole.
    looked: Option<Instant>,
}

/// Whatever is just coming or going has come or gone by then.
const APART: Duration = Duration::from_millis(500);

impl Finding {
    /// How often in a row it is found before it is sure.
    const fn sightings(&self) -> u32 {
        match self {
            // Whoever leads it mends what it finds twice.
            Self::LeftAlone(_) => 4,
            _ => 2,
        }
    }
}

impl Watchdog {
    /// Events flow from here on, and some were missed: what was found before proves nothing.
    pub fn connected(&mut self) {
        self.connection += 1;
        self.looked = None;
        self.suspects.clear();
    }

    pub const fn connection(&self) -> u64 {
        self.connection
    }

    /// Whether it shows something new. After a stall there may be several that were made
    /// at one and the same moment.
    pub fn heeds(&mut self, listing: &Listing) -> bool {
        let is_early =
            self.looked.is_some_and(|last| listing.begun.saturating_duration_since(last) < APART);
        if listing.connection != self.connection || is_early {
            return false;
        }
        self.looked = Some(listing.ended);
        true
    }

    /// What was found so often now that it is sure. None of it is a suspect any more.
    pub fn look(&mut self, found: &Found, expected: &Expected<'_>) -> Vec<Finding> {
        let before = std::mem::take(&mut self.suspects);
        let mut sure = Vec::new();
        for finding in compare(found, expected) {
            let times = before.get(&finding).copied().unwrap_or_default() + 1;
            if times < finding.sightings() {
                self.suspects.insert(finding, times);
            } else {
                sure.push(finding);
            }
        }
        sure
    }
}

/// Callers who wait to be served, and of whom no call knows.
pub fn unserved(found: &Found, expected: &Expected<'_>) -> Vec<Channel> {
    let led_elsewhere = led_elsewhere(found, expected);
    let waits = |channel: &&Channel| {
        is_caller(channel, expected.application)
            && channel.state == ChannelState::Ring
            && !expected.callers.contains_key(&channel.id)
            && !led_elsewhere.contains(&channel.id)
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
    let led_elsewhere = led_elsewhere(found, expected);
    let mut findings = BTreeSet::new();
    for channel in &found.channels {
        let is_stranger = match LegId::parse(channel.id.as_str()) {
            Some(leg) => expected.is_ours(leg.call) && !calls.contains(&leg.call),
            None => {
                is_caller(channel, expected.application)
                    && channel.state != ChannelState::Ring
                    && !expected.callers.contains_key(&channel.id)
                    && !led_elsewhere.contains(&channel.id)
            }
        };
        if is_stranger {
            findings.insert(Finding::ChannelWithoutCall(channel.id.clone()));
        }
    }
    let channels: Channels<'_> = found.channels.iter().map(|c| (&c.id, c)).collect();
    for (call, bridge) in bridges(found).filter(|(call, _)| !calls.contains(call)) {
        if expected.is_ours(call) {
            findings.insert(Finding::BridgeWithoutCall(bridge.id.clone()));
        } else if let Some(alone) = left_alone(&channels, expected, bridge, call) {
            findings.insert(Finding::LeftAlone(alone.clone()));
        }
    }
    let apart = apart(found, expected);
    for (caller, call) in expected.callers {
        match channels.get(caller).map(|channel| channel.state) {
            None => {
                findings.insert(Finding::CallWithoutChannel(*call));
            }
            Some(ChannelState::Up) if apart.contains(call) => {
                findings.insert(Finding::CallApart(*call));
            }
            Some(_) => {}
        }
    }
    findings.extend(expected.held.difference(&calls).map(|call| Finding::HoldWithoutCall(*call)));
    findings
}

/// What is on the switch, by its name. Of thousands of calls each is looked up, not looked for.
type Channels<'a> = HashMap<&'a ChannelId, &'a Channel>;

/// Calls whose caller and answered client aren't both in their bridge.
fn apart(found: &Found, expected: &Expected<'_>) -> HashSet<CallId> {
    let inside: HashMap<CallId, &[ChannelId]> =
        bridges(found).map(|(call, bridge)| (call, &bridge.channels[..])).collect();
    let is_inside = |call, id: &ChannelId| inside.get(&call).is_some_and(|all| all.contains(id));
    let caller_of: HashMap<CallId, &ChannelId> =
        expected.callers.iter().map(|(caller, call)| (*call, caller)).collect();
    let mut apart = HashSet::new();
    for (LegId { call, .. }, client) in legs(found) {
        let both = || [Some(&client.id), caller_of.get(&call).copied()].into_iter().flatten();
        if client.state == ChannelState::Up && both().any(|channel| !is_inside(call, channel)) {
            apart.insert(call);
        }
    }
    apart
}

/// Who talks to nobody in this bridge of another instance's call. Anybody but a leg of
/// that call or a caller of our application is some other program's.
fn left_alone<'a>(
    channels: &Channels<'a>,
    expected: &Expected<'_>,
    bridge: &Bridge,
    call: CallId,
) -> Option<&'a ChannelId> {
    let [alone] = &bridge.channels[..] else { return None };
    let channel = channels.get(alone)?;
    let is_of_a_call = match LegId::parse(alone.as_str()) {
        Some(leg) => leg.call == call,
        None => is_caller(channel, expected.application) && !expected.callers.contains_key(alone),
    };
    (is_of_a_call && channel.state == ChannelState::Up).then_some(&channel.id)
}

/// Who is in a bridge of another instance.
fn led_elsewhere<'a>(found: &'a Found, expected: &Expected<'_>) -> HashSet<&'a ChannelId> {
    let foreign = bridges(found).filter(|(call, _)| !expected.is_ours(*call));
    foreign.flat_map(|(_, bridge)| &bridge.channels).collect()
}

impl Expected<'_> {
    fn is_ours(&self, call: CallId) -> bool {
        call.mark() == self.mark
    }
}

/// The bridges of calls, whoever leads them.
fn bridges(found: &Found) -> impl Iterator<Item = (CallId, &Bridge)> {
    found.bridges.iter().filter_map(|bridge| Some((CallId::parse_name(&bridge.id)?, bridge)))
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
        let alone = Finding::LeftAlone(found.channels[0].id.clone());
        let mut watchdog = Watchdog::default();
        for _ in 0..3 {
            let findings = watchdog.look(&found, &expected(&none, &[]));
            assert_eq!(findings, [], "its own instance may be about to find it");
        }
        assert_eq!(watchdog.look(&found, &expected(&none, &[])), [alone]);
    }

    /// Somebody who is up and alone in a bridge.
    fn alone(who: Channel, bridge: &str) -> Found {
        let bridge = Bridge { id: bridge.to_owned(), channels: vec![who.id.clone()] };
        Found { channels: vec![who], bridges: vec![bridge] }
    }

    /// Whether anything is ever found.
    fn is_suspicious(found: &Found, callers: &BTreeMap<ChannelId, CallId>) -> bool {
        let mut watchdog = Watchdog::default();
        (0..10).any(|_| !watchdog.look(found, &expected(callers, &[])).is_empty())
    }

    #[test]
    fn who_is_alone_in_a_bridge_of_another_program_is_let_alone() {
        let none = BTreeMap::new();
        let elsewhere = |id: &str| {
            let mut channel = channel(id, ChannelState::Up);
            channel.dialplan.app_data = "another".to_owned();
            channel
        };
        let by_asterisk = "0b2f7e0c-6a0d-4c59-8f3e-3f0a7f1f6f11";
        assert!(!is_suspicious(&alone(elsewhere("1.0"), by_asterisk), &none));
        // One that names its bridges as we do.
        let anothers = clock::new_call_id().led_by(Mark::of_instance("two"));
        assert!(!is_suspicious(&alone(elsewhere("1.0"), &anothers.to_string()), &none));
        let other = clock::new_call_id().led_by(Mark::of_instance("two"));
        let leg = LegId { call: other, attempt: 1 }.to_string();
        assert!(!is_suspicious(&alone(elsewhere(&leg), &anothers.to_string()), &none));
        let leg = LegId { call: anothers, attempt: 1 }.to_string();
        assert!(is_suspicious(&alone(elsewhere(&leg), &anothers.to_string()), &none));
    }

    #[test]
    fn a_caller_who_is_alone_in_anothers_bridge_is_let_alone_only_if_led_here() {
        let anothers = clock::new_call_id().led_by(Mark::of_instance("two"));
        let found = alone(channel("1.0", ChannelState::Up), &anothers.to_string());
        assert!(is_suspicious(&found, &BTreeMap::new()));
        let call = clock::new_call_id().led_by(mark());
        let callers = BTreeMap::from([(ChannelId("1.0".to_owned()), call)]);
        assert!(!is_suspicious(&found, &callers));
    }

    /// A listing that took so long, and began so long after the other.
    fn listing(connection: u64, begun: Instant, took_ms: u64) -> Listing {
        let ended = begun + Duration::from_millis(took_ms);
        let found = Found { channels: Vec::new(), bridges: Vec::new() };
        Listing { connection, begun, ended, found }
    }

    #[test]
    fn a_listing_that_began_when_the_last_had_hardly_ended_confirms_nothing() {
        let ms = Duration::from_millis;
        let begun = Instant::now();
        for (after, is_heeded) in [(0, false), (1_000, false), (1_499, false), (1_500, true)] {
            let mut watchdog = Watchdog::default();
            assert!(watchdog.heeds(&listing(0, begun, 1_000)));
            let next = listing(0, begun + ms(after), 1_500);
            assert_eq!(watchdog.heeds(&next), is_heeded, "{after}");
        }
    }

    #[test]
    fn what_was_listed_or_found_on_an_earlier_connection_confirms_nothing() {
        let (found, _, call) = talking();
        let none = BTreeMap::new();
        let expected = expected(&none, &[call]);
        let begun = Instant::now();
        let mut watchdog = Watchdog::default();
        assert!(watchdog.heeds(&listing(0, begun, 10)));
        assert_eq!(watchdog.look(&found, &expected), []);
        watchdog.connected();
        let later = begun + Duration::from_secs(5);
        assert!(!watchdog.heeds(&listing(0, later, 10)));
        assert!(watchdog.heeds(&listing(watchdog.connection(), begun, 10)), "the first is new");
        assert_eq!(watchdog.look(&found, &expected), [], "it was seen once since then");
        assert_ne!(watchdog.look(&found, &expected), []);
    }
}
