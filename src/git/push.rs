//! `git push` on gix plumbing (gitprotocol-pack(5), "Pushing Data To a Server"): report-status, side-band-64k, atomic.
//!
//! Every update says what it expects to replace (compare-and-swap), nothing is ever forced, and nothing is deleted.

mod rejection;
mod report;
mod send;

pub use rejection::Rejection;

use std::{collections::HashSet, sync::atomic::AtomicBool};

use gix::{ObjectId, bstr::ByteSlice, protocol::Handshake};

use super::{CommitId, pack};

/// References that may be replaced without descending from what they replace: each holds one run's bulk.
pub const BULK_NAMESPACE: &str = "refs/ostler/runs/";

/// Updates in one push.
pub const MAX_UPDATES: usize = 256;

/// Why a push did not happen, or ended without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a full name below `refs/`, or a name Git refuses.
    #[error("{0:?} is not a full reference name")]
    Name(String),
    /// No updates, more than [`MAX_UPDATES`], or the same name twice.
    #[error("a push of {0} updates: expected 1 to {MAX_UPDATES}, each of another reference")]
    Updates(usize),
    /// The objects to send could not be put together.
    #[error("collecting what to push")]
    Pack(#[from] pack::Error),
    /// The server lacks something that a safe push needs.
    #[error("the server does not offer {0}")]
    Unsupported(&'static str),
    /// The remote could not be talked to before anything was sent.
    #[error("talking to the remote")]
    Remote(#[source] Box<super::Error>),
    /// The connection broke, or time was up, after updates had been sent: they may or may not have taken effect.
    #[error("the remote gave no complete answer; the push may or may not have taken effect")]
    Unknown(#[source] Box<super::Error>),
}

/// One reference to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    name: String,
    old: Option<ObjectId>,
    new: ObjectId,
}

impl Update {
    /// `old` is what the reference must be at, none that it must not exist.
    pub fn new(name: &str, old: Option<CommitId>, new: CommitId) -> Result<Self, Error> {
        let (old, new) = (old.map(CommitId::get), new.get());
        let sound = name.starts_with("refs/") && gix::validate::reference::name(name.into()).is_ok();
        if !sound || new.is_null() || old.is_some_and(|old| old.is_null()) {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), old, new })
    }

    /// The full reference name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What became of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The reference is at the new commit.
    Done,
    /// It is not, and this is why.
    Rejected(Rejection),
}

/// The answer to a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One entry per update, in order.
    pub refs: Vec<(String, Outcome)>,
    /// What hooks and the server printed, without control characters, at most 4 KiB.
    pub text: String,
    /// Objects sent.
    pub objects: usize,
}

impl Report {
    /// True when every reference moved.
    #[must_use]
    pub fn done(&self) -> bool {
        self.refs.iter().all(|(_, outcome)| *outcome == Outcome::Done)
    }

    /// True when somebody else pushed first: fetch, build again, push again.
    #[must_use]
    pub fn stale(&self) -> bool {
        self.refs.iter().any(|(_, outcome)| *outcome == Outcome::Rejected(Rejection::Stale))
    }
}

/// A push before it is sent: the updates, and commits the server is known to have besides those it advertises
/// (such as the base of a shallow fetch that the branch has since moved on from).
#[derive(Debug, Clone)]
pub struct Push {
    updates: Vec<Update>,
    known: Vec<ObjectId>,
    limits: pack::Limits,
}

impl Push {
    /// Errors: [`Error::Updates`]. More than one update is atomic: all or none.
    pub fn new(updates: Vec<Update>) -> Result<Self, Error> {
        let names: HashSet<&str> = updates.iter().map(Update::name).collect();
        if updates.is_empty() || updates.len() > MAX_UPDATES || names.len() < updates.len() {
            return Err(Error::Updates(updates.len()));
        }
        Ok(Self { updates, known: Vec::new(), limits: pack::Limits::default() })
    }

    /// Commits that the server has, though no reference may point to them any more.
    #[must_use]
    pub fn known(mut self, commits: impl IntoIterator<Item = CommitId>) -> Self {
        self.known.extend(commits.into_iter().map(CommitId::get));
        self
    }

    /// Other caps than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: pack::Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What can be said from the server's advertisement alone, without sending anything; none: send it.
    fn decide(
        &self,
        repository: &gix::Repository,
        server: &Advertised,
    ) -> Result<Option<Vec<Outcome>>, Error> {
        let mut refused = false;
        let mut outcomes = Vec::with_capacity(self.updates.len());
        for update in &self.updates {
            let outcome = match (update.old, server.at(&update.name)) {
                (_, Some(now)) if now == update.new => Outcome::Done,
                (old, now) if old != now => Outcome::Rejected(Rejection::Stale),
                (Some(old), _)
                    if !update.name.starts_with(BULK_NAMESPACE)
                        && !pack::descends(repository, update.new, old, &self.limits)? =>
                {
                    Outcome::Rejected(Rejection::NotFastForward)
                }
                _ => Outcome::Done,
            };
            refused |= outcome != Outcome::Done;
            outcomes.push(outcome);
        }
        let nothing = self.updates.iter().all(|update| server.at(&update.name) == Some(update.new));
        if !refused {
            return Ok(nothing.then_some(outcomes));
        }
        for outcome in outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Done) {
            *outcome = Outcome::Rejected(Rejection::Aborted);
        }
        Ok(Some(outcomes))
    }

    fn report(&self, outcomes: Vec<Outcome>, text: String, objects: usize) -> Report {
        let names = self.updates.iter().map(|update| update.name.clone());
        Report { refs: names.zip(outcomes).collect(), text, objects }
    }
}

/// References and capabilities as the server announced them.
struct Advertised {
    refs: Vec<(String, ObjectId)>,
    capabilities: HashSet<String>,
}

impl Advertised {
    fn new(handshake: &Handshake) -> Self {
        let refs = handshake.refs.iter().flatten().filter_map(|reference| {
            let (name, target, _) = reference.unpack();
            Some((name.to_str().ok()?.to_owned(), target?.to_owned()))
        });
        let capabilities = handshake.capabilities.iter().map(|capability| capability.name().to_string());
        Self { refs: refs.collect(), capabilities: capabilities.collect() }
    }

    fn at(&self, name: &str) -> Option<ObjectId> {
        self.refs.iter().find(|(other, _)| other == name).map(|(_, id)| *id)
    }

    fn offers(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }
}
