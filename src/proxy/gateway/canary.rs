//! Who reached the port that nobody may reach.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

/// Addresses that are remembered; the one that was here longest ago makes room.
const ADDRESSES: usize = 16 * 1024;
/// Visits whose time is remembered, of each address; of older ones only their number is.
const VISITS: usize = 32;

/// The visits from one address.
#[derive(Debug, Default)]
struct Visits {
    times: VecDeque<Timestamp>,
    /// Those before the times that are remembered.
    earlier: u64,
}

/// The visits, by address. An address goes from one pod to the next, so the time of each counts.
#[derive(Debug, Default)]
pub(super) struct Canary {
    visits: Mutex<HashMap<IpAddr, Visits>>,
}

impl Canary {
    /// Notes a visit.
    pub(super) fn reached(&self, from: IpAddr, at: Timestamp) {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() >= ADDRESSES && !visits.contains_key(&from) {
            let oldest =
                visits.iter().min_by_key(|(_, seen)| seen.times.back().copied()).map(|(from, _)| *from);
            oldest.map(|oldest| visits.remove(&oldest));
        }
        let seen = visits.entry(from).or_default();
        if seen.times.len() >= VISITS {
            seen.times.pop_front();
            seen.earlier = seen.earlier.saturating_add(1);
        }
        seen.times.push_back(at);
    }

    /// How often somebody came from there since then. Each visit makes it larger: a proof compares two such numbers. Of an
    /// address with very many visits, some of before may be among them.
    pub(super) fn saw(&self, from: IpAddr, since: Timestamp) -> u64 {
        let visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = visits.get(&from) else { return 0 };
        let counted = seen.times.iter().filter(|at| **at >= since).count() as u64;
        let all = counted == seen.times.len() as u64;
        if all { counted.saturating_add(seen.earlier) } else { counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn visits_of_the_pod_before_do_not_count() {
        let (canary, from): (Canary, IpAddr) = (Canary::default(), "10.0.0.1".parse().unwrap());
        canary.reached(from, at(1));
        canary.reached(from, at(5));
        canary.reached(from, at(6));
        assert_eq!(canary.saw(from, at(5)), 2);
        assert_eq!(canary.saw("10.0.0.2".parse().unwrap(), at(0)), 0);
    }

    /// A proof compares the numbers before and after its dials: a number that stands still would prove too much, and one
    /// that a proof cannot trust any more would never let it succeed.
    #[test]
    fn every_visit_is_counted_however_many_there_were() {
        let (canary, from): (Canary, IpAddr) = (Canary::default(), "10.0.0.1".parse().unwrap());
        for second in 1..=10 * VISITS as u64 {
            canary.reached(from, at(i64::try_from(second).unwrap()));
            assert_eq!(canary.saw(from, at(0)), second);
        }
        assert_eq!(canary.visits.lock().unwrap()[&from].times.len(), VISITS, "it stays small");

        // the next pod with this address begins at zero, and each of its visits is seen
        let since = at(1000);
        let mut before = canary.saw(from, since);
        assert_eq!(before, 0);
        for second in 1000..1000 + 2 * i64::try_from(VISITS).unwrap() {
            canary.reached(from, at(second));
            let after = canary.saw(from, since);
            assert!(after > before, "{after} after {before}");
            before = after;
        }
    }

    #[test]
    fn the_oldest_visitor_makes_room() {
        let canary = Canary::default();
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..=ADDRESSES {
            canary.reached(address(n), at(i64::try_from(n).unwrap()));
        }
        assert_eq!((canary.saw(address(0), at(0)), canary.saw(address(1), at(0))), (0, 1));
        assert_eq!(canary.visits.lock().unwrap().len(), ADDRESSES);
    }
}
