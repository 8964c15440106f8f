//! Fights: an object that another writer changes as often as it is put back. Pure; the time is a parameter.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::kinds::ObjectId;

/// Corrections of one object in a [`SPELL`]; one more would be a fight.
pub(super) const MOST: usize = 5;
/// In this time corrections are counted, and this long nobody may have written before an object is corrected again.
const SPELL: SignedDuration = SignedDuration::from_mins(1);

/// May the object be corrected?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes.
    Correct,
    /// No, from now on.
    Stop,
    /// No, and that was said before.
    Wait,
}

/// What is remembered of one object.
#[derive(Debug, Default)]
struct Bout {
    /// Corrections, oldest first; at most [`MOST`].
    corrections: VecDeque<Timestamp>,
    /// Set while nothing is corrected: when somebody else wrote last.
    stopped: Option<Timestamp>,
}

impl Bout {
    /// True when a whole spell has passed since anything happened.
    fn is_over(&self, now: Timestamp) -> bool {
        let last = self.stopped.max(self.corrections.back().copied());
        last.is_none_or(|last| now.duration_since(last) >= SPELL)
    }
}

/// The objects of one repository that were corrected of late.
#[derive(Debug, Default)]
pub(super) struct Fights(BTreeMap<ObjectId, Bout>);

impl Fights {
    /// Decides whether an object that differs is put back.
    pub(super) fn judge(&mut self, id: &ObjectId, now: Timestamp) -> Verdict {
        self.expire(now);
        let Some(bout) = self.0.get_mut(id) else { return Verdict::Correct };
        if bout.stopped.is_some() {
            return Verdict::Wait;
        }
        bout.corrections.retain(|at| now.duration_since(*at) < SPELL);
        if bout.corrections.len() < MOST {
            return Verdict::Correct;
        }
        bout.stopped = Some(now);
        Verdict::Stop
    }

    /// Notes that an object was put back.
    pub(super) fn corrected(&mut self, id: &ObjectId, now: Timestamp) {
        let bout = self.0.entry(id.clone()).or_default();
        bout.corrections.push_back(now);
        if bout.corrections.len() > MOST {
            bout.corrections.pop_front();
        }
    }

    /// True when the object is not corrected for now. The other writer is still at it: the calm begins anew.
    pub(super) fn goes_on(&mut self, id: &ObjectId, now: Timestamp) -> bool {
        let stopped = self.0.get_mut(id).and_then(|bout| bout.stopped.as_mut());
        stopped.map(|last| *last = now).is_some()
    }

    /// When the first of the objects that are let alone has been so for long enough.
    pub(super) fn calm_at(&self) -> Option<Timestamp> {
        let stopped = self.0.values().filter_map(|bout| bout.stopped);
        stopped.min().map(|last| last.saturating_add(SPELL).unwrap_or(Timestamp::MAX))
    }

    /// Forgets what has been calm for long enough.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.0.retain(|_, bout| !bout.is_over(now));
    }

    /// Everybody gets a fresh start: there is a new commit, or somebody asked.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;

    /// What happens at a second: the object differs and is judged (and put back if it may be), the other writer writes,
    /// or all is forgotten.
    enum At {
        Differs(i64, Verdict),
        Written(i64, bool),
        Asked,
    }
    use At::{Asked, Differs, Written};
    use Verdict::{Correct, Stop, Wait};

    #[test]
    fn five_corrections_a_minute_and_then_calm() {
        let fast = || (0..5).map(|second| Differs(second, Correct));
        let cases: [(&str, Vec<At>); 6] = [
            ("the sixth is not made", fast().chain([Differs(5, Stop), Differs(6, Wait)]).collect()),
            ("one every 13 seconds goes on for ever", (0..50).map(|n| Differs(n * 13, Correct)).collect()),
            (
                "a calm minute ends it, and it may begin anew",
                fast()
                    .chain([Differs(5, Stop), Differs(64, Wait), Differs(65, Correct), Written(66, false)])
                    .collect(),
            ),
            (
                "who writes on prolongs it",
                fast()
                    .chain([Differs(5, Stop), Written(60, true), Differs(119, Wait), Differs(120, Correct)])
                    .collect(),
            ),
            (
                "a new commit or a request ends it",
                fast().chain([Differs(5, Stop), Asked, Differs(6, Correct)]).collect(),
            ),
            ("the minute slides", fast().chain([Differs(60, Correct), Differs(60, Stop)]).collect()),
        ];
        let id = ObjectId::new(Kind::Agent, "team".parse().unwrap(), "a".parse().unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        for (what, steps) in cases {
            let mut fights = Fights::default();
            for step in steps {
                match step {
                    Differs(second, expected) => {
                        assert_eq!(fights.judge(&id, at(second)), expected, "{what}, at {second}");
                        if expected == Correct {
                            fights.corrected(&id, at(second));
                        }
                        assert_eq!(
                            fights.calm_at().is_some(),
                            expected != Correct,
                            "{what}, at {second}: when to look again"
                        );
                    }
                    Written(second, stopped) => {
                        assert_eq!(fights.goes_on(&id, at(second)), stopped, "{what}, at {second}");
                    }
                    Asked => fights.forget(),
                }
            }
        }
    }

    #[test]
    fn one_object_s_fight_is_not_another_s_and_old_ones_are_forgotten() {
        let id = |name: &str| ObjectId::new(Kind::Agent, "team".parse().unwrap(), name.parse().unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut fights = Fights::default();
        for second in 0..5 {
            fights.corrected(&id("a"), at(second));
        }
        assert_eq!(fights.judge(&id("a"), at(5)), Stop);
        assert_eq!(fights.judge(&id("b"), at(5)), Correct);
        assert_eq!(fights.calm_at(), Some(at(65)));
        assert_eq!(fights.judge(&id("b"), at(65)), Correct);
        assert!(fights.0.is_empty());
    }
}
