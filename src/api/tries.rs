//! How often signing in may fail.
//!
//! A failure is counted for the account that was named, there or not, and for
//! the address that it came from. A try is counted before the password is
//! looked at, and taken back if it was right, so that tries sent at once can't
//! outrun the count. Counts are kept in memory: they end with the process.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use chrono::TimeDelta;
use parking_lot::Mutex;

use crate::clock::Timestamp;

/// How many failures are borne within [`WINDOW`]; 0 = any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryLimits {
    pub per_account: u32,
    pub per_address: u32,
}

/// Failed sign-ins of late.
#[derive(Debug)]
pub struct Tries {
    limits: TryLimits,
    failures: Mutex<HashMap<Culprit, Failures>>,
}

/// What failures are counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Culprit {
    Account(String),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// From then on, they are forgotten.
    until: Timestamp,
}

/// Too many tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Seconds until the next try is looked at.
    pub seconds: u64,
}

/// How long failures are remembered, from the first.
const WINDOW: TimeDelta = TimeDelta::minutes(15);

/// Accounts and addresses remembered at once. Beyond it the oldest are forgotten.
const MOST: usize = 10_000;

impl Default for TryLimits {
    fn default() -> Self {
        Self { per_account: 10, per_address: 50 }
    }
}

impl Tries {
    pub fn new(limits: TryLimits) -> Self {
        Self { limits, failures: Mutex::default() }
    }

    /// Counts a try as a failure, unless one too many was counted before it.
    ///
    /// # Errors
    /// When the try must not be looked at.
    pub fn begin(
        &self,
        account: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), Blocked> {
        let mut failures = self.failures.lock();
        let counted = self.counted(account, address);
        for (culprit, limit) in &counted {
            match failures.get(culprit) {
                Some(known) if known.until > now && known.count >= *limit => {
                    let seconds = (known.until - now).num_milliseconds().unsigned_abs();
                    return Err(Blocked { seconds: seconds.div_ceil(1000) });
                }
                _ => {}
            }
        }
        for (culprit, _) in counted {
            make_room(&mut failures, &culprit, now);
            let entry =
                failures.entry(culprit).or_insert(Failures { count: 0, until: now + WINDOW });
            if entry.until <= now {
                *entry = Failures { count: 0, until: now + WINDOW };
            }
            entry.count += 1;
        }
        Ok(())
    }

    /// The try was right: forgets the account's failures, and that the address tried.
    pub fn succeeded(&self, account: &str, address: Option<IpAddr>) {
        let mut failures = self.failures.lock();
        for (culprit, _) in self.counted(account, address) {
            match (&culprit, failures.get_mut(&culprit)) {
                (Culprit::Address(_), Some(entry)) if entry.count > 1 => entry.count -= 1,
                _ => {
                    failures.remove(&culprit);
                }
            }
        }
    }

    fn counted(&self, account: &str, address: Option<IpAddr>) -> Vec<(Culprit, u32)> {
        let account = (Culprit::Account(account.to_owned()), self.limits.per_account);
        let address =
            address.map(|address| (Culprit::Address(network(address)), self.limits.per_address));
        [Some(account), address].into_iter().flatten().filter(|(_, limit)| *limit > 0).collect()
    }
}

/// What one sender has at their disposal: an address, or in IPv6 a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Forgets what is over; if that isn't enough, the oldest.
fn make_room(failures: &mut HashMap<Culprit, Failures>, newcomer: &Culprit, now: Timestamp) {
    if failures.len() < MOST || failures.contains_key(newcomer) {
        return;
    }
    failures.retain(|_, known| known.until > now);
    if failures.len() < MOST {
        return;
    }
    let oldest = failures.iter().min_by_key(|(_, known)| known.until);
    if let Some(oldest) = oldest.map(|(culprit, _)| culprit.clone()) {
        failures.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(number.into()))
    }

    #[test]
    fn an_account_is_blocked_until_its_failures_are_old() {
        let tries = Tries::new(TryLimits { per_account: 2, per_address: 0 });
        assert_eq!(tries.begin("joe", address(1), at(0)), Ok(()));
        assert_eq!(tries.begin("joe", address(2), at(60)), Ok(()));
        assert_eq!(tries.begin("joe", address(3), at(61)), Err(Blocked { seconds: 839 }));
        assert_eq!(tries.begin("ann", address(1), at(61)), Ok(()));
        assert_eq!(tries.begin("joe", address(1), at(900)), Ok(()));
    }

    #[test]
    fn success_forgets_the_account_and_not_what_else_the_address_tried() {
        let tries = Tries::new(TryLimits { per_account: 2, per_address: 3 });
        for _ in 0..5 {
            assert_eq!(tries.begin("joe", address(1), at(0)), Ok(()));
            tries.succeeded("joe", address(1));
        }
        for name in ["a", "b", "c"] {
            assert_eq!(tries.begin(name, address(1), at(0)), Ok(()));
        }
        assert!(tries.begin("joe", address(1), at(0)).is_err());
        assert_eq!(tries.begin("joe", address(2), at(0)), Ok(()));
    }

    #[test]
    fn one_sender_has_a_whole_network_in_ipv6() {
        let tries = Tries::new(TryLimits { per_account: 0, per_address: 1 });
        let of = |text: &str| Some(text.parse().unwrap());
        assert_eq!(tries.begin("joe", of("2001:db8::1"), at(0)), Ok(()));
        assert!(tries.begin("joe", of("2001:db8::ffff:2"), at(0)).is_err());
        assert_eq!(tries.begin("joe", of("2001:db8:0:1::1"), at(0)), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let tries = Tries::new(TryLimits { per_account: 1, per_address: 0 });
        tries.begin("first", None, at(0)).unwrap();
        tries.begin("second", None, at(1)).unwrap();
        for number in 0..MOST - 1 {
            tries.begin(&number.to_string(), None, at(2)).unwrap();
        }
        assert_eq!(tries.failures.lock().len(), MOST);
        assert_eq!(tries.begin("first", None, at(3)), Ok(()));
        assert!(tries.begin("0", None, at(3)).is_err());
    }
}
