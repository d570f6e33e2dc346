//! In which order links are tried.

use std::cmp::Ordering;
use std::sync::Arc;

use capconduit_entity::Strategy;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::Link;

/// The order in which `links` are to be tried, the same for the same seed.
///
/// Round-robin only sorts by id: where the rotation stands is the ledger's to
/// know, because instances share it.
pub fn order(strategy: Strategy, mut links: Vec<Arc<Link>>, seed: u32) -> Vec<Arc<Link>> {
    links.sort_by_key(|link| link.id);
    match strategy {
        Strategy::RoundRobin => {}
        Strategy::Weighted => shuffle(&mut links, seed),
        Strategy::Priority => {
            shuffle(&mut links, seed);
            links.sort_by_key(|link| link.priority);
        }
    }
    links
}

/// A weighted random order without replacement.
///
/// Each link draws an exponentially distributed time with its weight as the
/// rate; who is first, second, ... is then as if drawn by weight from those
/// that are left (Efraimidis and Spirakis, 2006).
fn shuffle(links: &mut [Arc<Link>], seed: u32) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(u64::from(seed));
    let mut drawn: Vec<(f64, Arc<Link>)> = links
        .iter()
        .map(|link| {
            let uniform: f64 = rng.random();
            let rate = f64::from(link.weight.max(1));
            (-(1.0 - uniform).ln() / rate, link.clone())
        })
        .collect();
    drawn.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
    for (place, (_, link)) in links.iter_mut().zip(drawn) {
        *place = link;
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::tests::link;
    use super::*;

    fn ids(links: &[Arc<Link>]) -> Vec<i64> {
        links.iter().map(|link| link.id.0).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_order() {
        let links: Vec<_> = (1..=8).map(|id| link(id, 1, 10)).collect();
        let first = order(Strategy::Weighted, links.clone(), 7);
        assert_eq!(ids(&first), ids(&order(Strategy::Weighted, links, 7)));
    }

    #[test]
    fn weights_decide_how_often_a_link_comes_first() {
        let links = vec![link(1, 1, 70), link(2, 1, 20), link(3, 1, 10)];
        let mut first = [0_u32; 4];
        for seed in 0..20_000 {
            first[ids(&order(Strategy::Weighted, links.clone(), seed))[0] as usize] += 1;
        }
        // Six standard deviations of a binomial around each share.
        for (id, share) in [(1, 0.7_f64), (2, 0.2), (3, 0.1)] {
            let spread = 6.0 * (20_000.0 * share * (1.0 - share)).sqrt();
            assert!((f64::from(first[id]) - 20_000.0 * share).abs() < spread, "{first:?}");
        }
    }

    #[test]
    fn a_lower_priority_number_comes_first_and_weight_shares_among_equals() {
        let links = vec![link(1, 2, 1), link(2, 1, 1), link(3, 1, 99)];
        let mut first_is_3 = 0;
        for seed in 0..1_000 {
            let order = ids(&order(Strategy::Priority, links.clone(), seed));
            assert_eq!(order[2], 1);
            first_is_3 += i32::from(order[0] == 3);
        }
        assert!((960..1_000).contains(&first_is_3), "{first_is_3}");
    }
}
