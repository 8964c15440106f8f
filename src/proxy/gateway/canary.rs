//! Who reached the port that nobody may reach.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

/// Addresses that are remembered; the one that was here longest ago makes room.
const ADDRESSES: usize = 16 * 1024;
/// Visits that are remembered of each; a further one pushes the oldest out.
const VISITS: usize = 32;

/// The visits, by address. An address goes from one pod to the next, so the time of each counts.
#[derive(Debug, Default)]
pub(super) struct Canary {
    visits: Mutex<HashMap<IpAddr, VecDeque<Timestamp>>>,
}

impl Canary {
    /// Notes a visit.
    pub(super) fn reached(&self, from: IpAddr, at: Timestamp) {
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        if visits.len() >= ADDRESSES && !visits.contains_key(&from) {
            let oldest = visits.iter().min_by_key(|(_, times)| times.back().copied()).map(|(from, _)| *from);
            oldest.map(|oldest| visits.remove(&oldest));
        }
        let times = visits.entry(from).or_default();
        if times.len() >= VISITS {
            times.pop_front();
        }
        times.push_back(at);
    }

    /// How often somebody came from there since then; 32 means that often or more.
    pub(super) fn saw(&self, from: IpAddr, since: Timestamp) -> u64 {
        let visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.get(&from).map_or(0, |times| times.iter().filter(|at| **at >= since).count() as u64)
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
        (10..100).for_each(|second| canary.reached(from, at(second)));
        assert_eq!(canary.saw(from, at(0)), VISITS as u64);
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
