//! What was told about objects: the events that `ostler describe` shows.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::{
    kinds::ObjectId,
    ports::objects::{Happening, Severity, Told},
};

/// How long something told is kept after it last happened, as Kubernetes keeps events by default.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// The most kept of one object; the oldest goes first.
const MAX_PER_OBJECT: usize = 32;
/// The most objects of which something is kept; the one told about longest ago goes first.
const MAX_OBJECTS: usize = 2_000;
/// The most bytes of a message, as the port says.
const MAX_MESSAGE_BYTES: usize = 1_024;

impl Told {
    fn first_time(happening: Happening, now: Timestamp) -> Self {
        let Happening { about, uid, severity, reason, mut message } = happening;
        while message.len() > MAX_MESSAGE_BYTES {
            message.pop();
        }
        let warning = severity == Severity::Warning;
        Self { about, uid, warning, reason, message, count: 1, first: now, last: now }
    }

    fn is_repeated_by(&self, other: &Self) -> bool {
        (&self.uid, self.warning, self.reason, &self.message)
            == (&other.uid, other.warning, other.reason, &other.message)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.last + KEPT < now
    }
}

/// All that is kept, by object.
#[derive(Debug, Default)]
pub(super) struct Log(BTreeMap<ObjectId, VecDeque<Told>>);

impl Log {
    /// What is kept of one object, oldest first.
    pub(super) fn of(&self, id: &ObjectId, now: Timestamp) -> Vec<Told> {
        let kept = self.0.get(id).into_iter().flatten();
        kept.filter(|told| !told.is_over(now)).cloned().collect()
    }

    /// Puts back what was stored.
    pub(super) fn restore(&mut self, told: Vec<Told>) {
        if let Some(first) = told.first() {
            self.0.insert(first.about.clone(), told.into());
        }
    }

    /// Takes something in. Returns the objects whose lists changed.
    pub(super) fn tell(&mut self, happening: Happening, now: Timestamp) -> Vec<ObjectId> {
        let new = Told::first_time(happening, now);
        let id = new.about.clone();
        let list = self.0.entry(id.clone()).or_default();
        list.retain(|told| !told.is_over(now));
        let repeated = list.iter().position(|told| told.is_repeated_by(&new)).and_then(|at| list.remove(at));
        list.push_back(match repeated {
            Some(told) => Told { count: told.count.saturating_add(1), last: now, ..told },
            None => new,
        });
        if list.len() > MAX_PER_OBJECT {
            list.pop_front();
        }
        let mut changed = self.drop_oldest(&id, now);
        changed.push(id);
        changed
    }

    /// Makes room; `newest` stays even when the clock went back.
    fn drop_oldest(&mut self, newest: &ObjectId, now: Timestamp) -> Vec<ObjectId> {
        if self.0.len() <= MAX_OBJECTS {
            return Vec::new();
        }
        let last = |list: &VecDeque<Told>| list.back().map(|told| told.last);
        let mut gone: Vec<ObjectId> = self
            .0
            .iter()
            .filter(|(id, list)| *id != newest && list.back().is_none_or(|told| told.is_over(now)))
            .map(|(id, _)| id.clone())
            .collect();
        if gone.is_empty() {
            let others = self.0.iter().filter(|(id, _)| *id != newest);
            gone.extend(others.min_by_key(|(_, list)| last(list)).map(|(id, _)| id.clone()));
        }
        for id in &gone {
            self.0.remove(id);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{Kind, Reason};

    fn happening(name: &str, message: &str) -> Happening {
        Happening {
            about: ObjectId::new(Kind::Session, "default".parse().unwrap(), name.parse().unwrap()),
            uid: "u-1".parse().unwrap(),
            severity: Severity::Warning,
            reason: Reason::ALL[0],
            message: message.to_owned(),
        }
    }

    #[test]
    fn repeats_are_counted_and_old_ones_go() {
        let (mut log, start) = (Log::default(), Timestamp::UNIX_EPOCH);
        let later = start + SignedDuration::from_mins(30);
        log.tell(happening("a", "x"), start);
        log.tell(happening("a", "x"), later);
        log.tell(happening("a", "y"), later);
        let id = happening("a", "").about;
        let told = log.of(&id, later);
        assert_eq!(told.iter().map(|told| told.count).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((told[0].first, told[0].last), (start, later));
        assert!(log.of(&id, later + SignedDuration::from_mins(61)).is_empty());
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut log = Log::default();
        for n in 0..MAX_OBJECTS + 50 {
            log.tell(
                happening(&format!("n{n}"), "x"),
                Timestamp::from_second(i64::try_from(n).unwrap() / 100).unwrap(),
            );
        }
        assert_eq!(log.0.len(), MAX_OBJECTS);
        for n in 0..100 {
            log.tell(happening("a", &format!("{n}{}", "ä".repeat(1_000))), Timestamp::UNIX_EPOCH);
        }
        let told = log.of(&happening("a", "").about, Timestamp::UNIX_EPOCH);
        assert_eq!(told.len(), MAX_PER_OBJECT);
        assert!(told.iter().all(|told| told.message.len() <= MAX_MESSAGE_BYTES));
    }
}
