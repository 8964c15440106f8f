//! Brings a mirror up to date.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicBool;

use gix::ObjectId;
use gix::protocol::fetch::Shallow;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};

use super::budget::Budget;
use super::id::CommitId;
use super::mirror::local_name;
use super::request::{FetchRequest, Want};
use super::session::Session;
use super::{Ancestry, Error, Limits, Mirror, Remote};

/// What a fetch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Each wanted reference that the remote has, by its full name. A commit wanted by its own name is here under
    /// that name.
    pub tips: BTreeMap<String, Tip>,
    /// References that the mirror had and the remote no longer has, with their last commit.
    pub deleted: BTreeMap<String, CommitId>,
    /// Whether any reference was added, moved or deleted.
    pub changed: bool,
    /// Bytes received, protocol included.
    pub received_bytes: u64,
    /// Objects received.
    pub objects: u64,
}

/// Where a reference stands now, and how it got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Its commit; of a tag, the tagged commit.
    pub commit: CommitId,
    /// Since the fetch before.
    pub movement: Movement,
}

/// How a reference moved since the fetch before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// It did not.
    Same,
    /// The mirror did not have it.
    New,
    /// It moved away from this commit. Whether that is acceptable is the caller's policy.
    Moved {
        /// Where it stood.
        from: CommitId,
        /// How the new commit relates to that one.
        ancestry: Ancestry,
    },
}

impl Mirror {
    /// Asks the remote where the wanted references stand; changes nothing. The ids are those of commits or tags.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a reference that is not optional.
    pub fn list(
        remote: &Remote,
        request: &FetchRequest,
        limits: &Limits,
        interrupt: &AtomicBool,
    ) -> Result<BTreeMap<String, String>, Error> {
        let budget = Budget::new(remote, limits, interrupt);
        let listed = Session::open(remote, &budget)?.references(&request.prefixes())?;
        let chosen = request.choose(&listed, &remote.location().to_string())?;
        Ok(chosen.into_iter().map(|(name, id)| (name, id.to_string())).collect())
    }

    /// Brings what is wanted. When nothing moved, the remote is asked for its list of references and nothing else.
    ///
    /// # Errors
    /// The mirror's references move all together or, on any error, not at all.
    pub fn fetch(
        &self,
        remote: &Remote,
        request: &FetchRequest,
        limits: &Limits,
        interrupt: &AtomicBool,
    ) -> Result<Fetched, Error> {
        let _turn = self.take_turn();
        let budget = Budget::new(remote, limits, interrupt);
        let mut session = Session::open(remote, &budget)?;
        let listed = session.references(&request.prefixes())?;
        let chosen = request.choose(&listed, &remote.location().to_string())?;

        let before = self.before(request, &chosen)?;
        let (known, new): (Vec<_>, Vec<_>) = chosen
            .iter()
            .filter(|(name, id)| before.get(*name) != Some(id))
            .partition(|(name, _)| before.contains_key(*name));
        // A reference that is new to the mirror starts shallow without moving the boundary of the others.
        let depth = request.commits().map_or(Shallow::NoChange, Shallow::DepthAtRemote);
        let mut objects = session.receive(self.repository(), &new, &depth, limits)?;
        if !new.is_empty() && !known.is_empty() && !session.is_repeatable() {
            session = Session::open(remote, &budget)?;
        }
        objects += session.receive(self.repository(), &known, &Shallow::NoChange, limits)?;

        let fetched = self.judge(&before, &chosen, remote)?;
        self.record(&before, &chosen)?;
        if let Err(error) = self.repack() {
            // The fetch is good; the next one tries again.
            tracing::warn!(mirror = %self.path().display(), %error, "cannot put packs together");
        }
        Ok(Fetched { received_bytes: budget.received(), objects, ..fetched })
    }

    /// Brings `commits` more commits of history behind each shallow boundary of the wanted references.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn deepen(
        &self,
        remote: &Remote,
        request: &FetchRequest,
        commits: NonZeroU32,
        limits: &Limits,
        interrupt: &AtomicBool,
    ) -> Result<(), Error> {
        let _turn = self.take_turn();
        let budget = Budget::new(remote, limits, interrupt);
        let mut session = Session::open(remote, &budget)?;
        let listed = session.references(&request.prefixes())?;
        let chosen = request.choose(&listed, &remote.location().to_string())?;
        let wants: Vec<_> = chosen.iter().collect();
        session.receive(self.repository(), &wants, &Shallow::Deepen(commits.get()), limits)?;
        Ok(())
    }

    /// What the mirror knows of the wanted references.
    fn before(
        &self,
        request: &FetchRequest,
        chosen: &BTreeMap<String, ObjectId>,
    ) -> Result<BTreeMap<String, ObjectId>, Error> {
        let mut before = BTreeMap::new();
        for name in chosen.keys() {
            before.extend(self.tracked(name)?.map(|id| (name.clone(), id)));
        }
        for want in request.wants() {
            match want {
                Want::Reference { name, .. } => {
                    before.extend(self.tracked(name)?.map(|id| (name.clone(), id)));
                }
                Want::Below { prefix } => before.extend(self.tracked_below(prefix)?),
                Want::Commit(_) => {}
            }
        }
        Ok(before)
    }

    fn judge(
        &self,
        before: &BTreeMap<String, ObjectId>,
        chosen: &BTreeMap<String, ObjectId>,
        remote: &Remote,
    ) -> Result<Fetched, Error> {
        let mut tips = BTreeMap::new();
        for (name, id) in chosen {
            let Some(commit) = self.commit_of(*id) else {
                let what = format!("a commit at {name}");
                return Err(Error::NotFound { what, place: remote.location().to_string() });
            };
            let movement = match before.get(name).map(|old| self.commit_of(*old)) {
                None | Some(None) => Movement::New,
                Some(Some(from)) if from == commit => Movement::Same,
                Some(Some(from)) => {
                    Movement::Moved { from, ancestry: self.repository().ancestry(from, commit)? }
                }
            };
            tips.insert(name.clone(), Tip { commit, movement });
        }
        let gone = before.iter().filter(|(name, _)| !chosen.contains_key(*name));
        let deleted: BTreeMap<_, _> =
            gone.filter_map(|(name, id)| Some((name.clone(), self.commit_of(*id)?))).collect();
        let changed = !deleted.is_empty() || tips.values().any(|tip| tip.movement != Movement::Same);
        Ok(Fetched { tips, deleted, changed, received_bytes: 0, objects: 0 })
    }

    /// Moves the mirror's references in one transaction; none when nothing moved.
    fn record(
        &self,
        before: &BTreeMap<String, ObjectId>,
        chosen: &BTreeMap<String, ObjectId>,
    ) -> Result<(), Error> {
        let moved = chosen.iter().filter(|(name, id)| before.get(*name) != Some(id));
        let updates = moved.map(|(name, id)| {
            let new = gix::refs::Target::Object(*id);
            (name, Change::Update { log: LogChange::default(), expected: PreviousValue::Any, new })
        });
        let gone = before.keys().filter(|name| !chosen.contains_key(*name));
        let deletions = gone
            .map(|name| (name, Change::Delete { expected: PreviousValue::Any, log: RefLog::AndReference }));
        let mut edits = Vec::new();
        for (name, change) in updates.chain(deletions) {
            let name = gix::refs::FullName::try_from(local_name(name))
                .map_err(|_| Error::Malformed { text: name.clone(), wanted: "the name of a reference" })?;
            edits.push(RefEdit { change, name, deref: false });
        }
        if edits.is_empty() {
            return Ok(());
        }
        let written = self.repository().local().edit_references_as(edits, None);
        written.map(drop).map_err(Error::gix("write the references of the mirror"))
    }
}
