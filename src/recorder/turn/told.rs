//! What was told and does not show yet, and what could not be told: so that nothing is said twice, or again and again to
//! a store that refuses it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kube::ResourceExt;

use super::RETRY;
use crate::{
    kinds::{ConfigRepository, HarnessRun},
    names::Uid,
};

/// How long a state that was written is waited for: longer than any watch is behind. A store whose versions went back,
/// because it was restored from a backup, is believed after this.
const ECHO: Duration = Duration::from_mins(5);
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

/// Both, by run, and what was told of the repository.
#[derive(Debug, Default)]
pub(in crate::recorder) struct Told {
    /// The state in which a run was when its status was written last.
    written: BTreeMap<Uid, (String, Instant)>,
    refused: BTreeMap<Uid, Refused>,
    /// The same of the repository.
    repository: Option<(String, Instant)>,
    /// When the turn began that is under way, or the last one.
    since: Option<Instant>,
}

impl Told {
    /// Begins a turn: forgets what is too old to matter.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
        self.written.retain(|_, (_, at)| *at + ECHO > now);
        self.repository.take_if(|(_, at)| *at + ECHO <= now);
        self.refused.retain(|_, refused| refused.again + LONGEST_PAUSE > now);
    }

    /// True: a later state of the run is known than this one, because we wrote it. Nothing is decided by an earlier one.
    pub(in crate::recorder) fn is_ahead(&self, run: &HarnessRun) -> bool {
        let uid = run.metadata.uid.as_ref().and_then(|uid| uid.parse::<Uid>().ok());
        let written = uid.and_then(|uid| self.written.get(&uid));
        written.is_some_and(|(version, _)| is_earlier(run.resource_version().as_deref(), version))
    }

    /// The same of the repository.
    pub(super) fn is_ahead_of(&self, repository: &ConfigRepository) -> bool {
        let written = self.repository.as_ref();
        written.is_some_and(|(version, _)| is_earlier(repository.resource_version().as_deref(), version))
    }

    /// True: what this run needs was told and is on its way to us, or is not to be tried again yet.
    pub(super) fn rests(&self, uid: &Uid, run: &HarnessRun) -> bool {
        let now = self.since.unwrap_or_else(Instant::now);
        self.is_ahead(run) || self.refused.get(uid).is_some_and(|refused| refused.again > now)
    }

    /// A run's status stands, in this state of it.
    pub(super) fn written(&mut self, run: &Uid, version: Option<String>, now: Instant) {
        self.refused.remove(run);
        self.written.extend(version.map(|version| (run.clone(), (version, now))));
    }

    /// The repository's status stands, in this state of it.
    pub(super) fn repository_written(&mut self, version: Option<String>, now: Instant) {
        self.repository = version.map(|version| (version, now)).or_else(|| self.repository.take());
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

/// True when `seen` is a state before `known`: versions are numbers that grow (Kubernetes KEP-5504; the embedded store's
/// are so, too). Of others nothing is known, and what is done twice is found in the ledger.
fn is_earlier(seen: Option<&str>, known: &str) -> bool {
    let number = |version: &str| version.parse::<u64>().ok();
    seen.and_then(number).zip(number(known)).is_some_and(|(seen, known)| seen < known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(uid: &str, version: &str) -> HarnessRun {
        let object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun", "spec": {},
            "metadata": {"namespace": "team", "name": "r", "uid": uid, "resourceVersion": version}});
        serde_json::from_value(object).unwrap()
    }

    fn rests(told: &Told, of: &str) -> bool {
        told.rests(&uid(of), &run(of, "5"))
    }

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
        assert!(rests(&told, "a") && !rests(&told, "b"));
        let due = told.next().unwrap();
        told.begin(due);
        assert!(!rests(&told, "a"));
        assert_eq!(told.next(), None, "a turn that does not come to it does not come again at once");
        told.written(&uid("a"), None, due);
        assert!(told.refused.is_empty());
    }

    #[test]
    fn what_was_told_is_not_told_again_before_it_shows() {
        let now = Instant::now();
        let mut told = Told::default();
        told.begin(now);
        told.written(&uid("a"), Some("10".to_owned()), now);
        for (version, rests) in [("9", true), ("10", false), ("11", false), ("odd", false)] {
            assert_eq!(told.rests(&uid("a"), &run("a", version)), rests, "{version}");
        }
        assert!(!told.rests(&uid("b"), &run("b", "9")), "another run");
        told.begin(now + ECHO / 2);
        assert!(told.is_ahead(&run("a", "9")), "however slow the watch is");
        told.begin(now + ECHO);
        assert!(!told.is_ahead(&run("a", "9")), "it never came");
    }
}
