//! What was told of runs and does not show yet, and what could not be told: so that nothing is said twice, or again and
//! again to a store that refuses it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{RETRY, queue::Need};
use crate::names::Uid;

/// How long a status that was written may take to come back to us. One that takes longer costs a look at the ledger and
/// a line in the audit trail, no more.
const ECHO: Duration = Duration::from_secs(10);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A write that was refused, again and again.
#[derive(Debug)]
pub(super) struct Refused {
    times: u32,
    why: String,
    again: Instant,
}

impl Refused {
    /// Notes another refusal. True: the error is another one than before, so somebody should hear of it.
    pub(super) fn note(refused: &mut Option<Self>, why: String, now: Instant) -> bool {
        let before = refused.take();
        let news = before.as_ref().is_none_or(|before| before.why != why);
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        let pause = (RETRY * 2_u32.pow(times.min(16) - 1)).min(LONGEST_PAUSE);
        let again = now + pause.mul_f64(rand::random_range(0.8..1.2));
        *refused = Some(Self { times, why, again });
        news
    }

    /// When it is tried again.
    pub(super) fn again(&self) -> Instant {
        self.again
    }
}

/// Both, by run.
#[derive(Debug, Default)]
pub(super) struct Told {
    written: BTreeMap<Uid, (Need, Instant)>,
    refused: BTreeMap<Uid, Refused>,
    /// When the turn began that is under way, or the last one.
    since: Option<Instant>,
}

impl Told {
    /// Begins a turn: forgets what is too old to matter.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        self.written.retain(|_, (_, at)| *at + ECHO > now);
        self.refused.retain(|_, refused| refused.again + LONGEST_PAUSE > now);
    }

    /// True: what this run needs was told and is on its way to us, or is not to be tried again yet.
    pub(super) fn rests(&self, run: &Uid, need: Need) -> bool {
        let now = self.since.unwrap_or_else(Instant::now);
        let told = self.written.get(run).is_some_and(|(of, _)| *of == need);
        told || self.refused.get(run).is_some_and(|refused| refused.again > now)
    }

    /// The status stands that settles a need.
    pub(super) fn written(&mut self, run: &Uid, need: Need, now: Instant) {
        self.refused.remove(run);
        if need != Need::Nothing {
            self.written.insert(run.clone(), (need, now));
        }
    }

    /// The status was not written. True: for another reason than before.
    pub(super) fn refused(&mut self, run: &Uid, why: String, now: Instant) -> bool {
        let mut refused = self.refused.remove(run);
        let news = Refused::note(&mut refused, why, now);
        self.refused.extend(refused.map(|refused| (run.clone(), refused)));
        news
    }

    /// When the next attempt is due. What was due in the last turn and came to nothing waits for something to happen.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = |again: &Instant| self.since.is_none_or(|since| *again > since);
        self.refused.values().map(Refused::again).filter(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        text.parse().unwrap()
    }

    #[test]
    fn pauses_grow_to_a_minute_and_only_another_error_is_news() {
        let now = Instant::now();
        let mut told = Told::default();
        assert!(told.refused(&uid("a"), "forbidden".to_owned(), now));
        let mut pauses = Vec::new();
        for _ in 0..20 {
            pauses.push(told.next().unwrap() - now);
            assert!(!told.refused(&uid("a"), "forbidden".to_owned(), now));
        }
        assert!(pauses[0] < Duration::from_millis(601), "{pauses:?}");
        assert!(pauses[3] > Duration::from_secs(3), "{pauses:?}");
        let last = pauses.pop().unwrap();
        assert!(last > Duration::from_secs(47) && last < Duration::from_secs(73), "{last:?}");
        assert!(told.refused(&uid("a"), "too large".to_owned(), now), "another error");
    }

    #[test]
    fn a_run_rests_until_its_pause_is_over_and_others_do_not() {
        let now = Instant::now();
        let mut told = Told::default();
        told.begin(now);
        told.refused(&uid("a"), "forbidden".to_owned(), now);
        assert!(told.rests(&uid("a"), Need::Record) && !told.rests(&uid("b"), Need::Record));
        let due = told.next().unwrap();
        told.begin(due);
        assert!(!told.rests(&uid("a"), Need::Record));
        assert_eq!(told.next(), None, "a turn that does not come to it does not come again at once");
        told.written(&uid("a"), Need::Nothing, due);
        assert!(told.refused.is_empty());
    }

    #[test]
    fn what_was_told_is_not_told_again_before_it_shows() {
        let now = Instant::now();
        let mut told = Told::default();
        told.begin(now);
        told.written(&uid("a"), Need::Claim, now);
        assert!(told.rests(&uid("a"), Need::Claim));
        assert!(!told.rests(&uid("a"), Need::Record), "another need");
        told.begin(now + ECHO);
        assert!(!told.rests(&uid("a"), Need::Claim), "it never came");
    }
}
