//! Commits made without a work tree: a parent, file changes, people, a message with trailers, a signature.

use gix::{
    ObjectId,
    objs::{Commit, Write as _, WriteTo, tree::EntryKind},
    refs::{
        Target,
        transaction::{Change as RefChange, LogChange, PreviousValue, RefEdit, RefLog},
    },
};
use jiff::Timestamp;

use super::{
    CommitId, Repository,
    sign::{self, SigningKey},
};

/// Changes that one commit may hold.
pub const MAX_CHANGES: usize = 100_000;

/// Why a commit could not be made or a reference not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that must not be in a tree.
    #[error("path {0:?} cannot be in a commit")]
    Path(String),
    /// A name, address or message that would break the commit's format.
    #[error("{what} is empty or holds a character that commits cannot carry")]
    Text {
        /// Which part.
        what: &'static str,
    },
    /// More than [`MAX_CHANGES`] changes.
    #[error("{0} changes in one commit")]
    TooMany(usize),
    /// The reference moved since it was read; nothing was changed.
    #[error("reference {name} moved since it was read")]
    Moved {
        /// The full reference name.
        name: String,
        /// What the store said.
        #[source]
        source: gix::Error,
    },
    /// The object store failed.
    #[error("commit: {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        #[source]
        source: gix::Error,
    },
    /// The signature could not be made.
    #[error("signing the commit")]
    Sign(#[from] sign::Error),
}

fn store(doing: &'static str) -> impl FnOnce(gix::Error) -> Error {
    move |source| Error::Store { doing, source }
}

/// A person or program named in a commit, with the moment. Parsed: it cannot break out of its header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    email: String,
}

impl Identity {
    /// Errors: [`Error::Text`] for line ends, angle brackets, NUL, or an empty name.
    pub fn new(name: &str, email: &str) -> Result<Self, Error> {
        let (name, email) = (name.trim(), email.trim());
        let breaks = |text: &str| text.contains(['<', '>', '\n', '\r', '\0']);
        if name.is_empty() || breaks(name) {
            return Err(Error::Text { what: "a name" });
        }
        if breaks(email) || email.contains(' ') {
            return Err(Error::Text { what: "an address" });
        }
        Ok(Self { name: name.to_owned(), email: email.to_owned() })
    }

    pub(super) fn at(&self, time: Timestamp) -> gix::actor::Signature {
        gix::actor::Signature {
            name: self.name.as_str().into(),
            email: self.email.as_str().into(),
            time: gix::date::Time { seconds: time.as_second(), offset: 0 },
        }
    }
}

/// A subject, an optional body and trailers (git-interpret-trailers(1)) as the last paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    text: String,
}

impl Message {
    /// Errors: [`Error::Text`] for an empty or many-lined subject, NUL, and trailers that are not one `Token: value` line.
    pub fn new(subject: &str, body: &str, trailers: &[(&str, &str)]) -> Result<Self, Error> {
        let subject = subject.trim();
        if subject.is_empty() || subject.contains(['\n', '\r', '\0']) {
            return Err(Error::Text { what: "the subject" });
        }
        if body.contains('\0') {
            return Err(Error::Text { what: "the body" });
        }
        let mut paragraphs = vec![subject.to_owned()];
        let body = body.trim_matches(['\n', '\r']);
        if !body.is_empty() {
            paragraphs.push(body.to_owned());
        }
        let lines =
            trailers.iter().map(|(token, value)| trailer(token, value)).collect::<Result<Vec<_>, _>>()?;
        if !lines.is_empty() {
            paragraphs.push(lines.join("\n"));
        }
        Ok(Self { text: paragraphs.join("\n\n") + "\n" })
    }

    /// The whole text, as it goes into the commit.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn trailer(token: &str, value: &str) -> Result<String, Error> {
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain || value.trim().is_empty() || value.contains(['\n', '\r', '\0']) {
        return Err(Error::Text { what: "a trailer" });
    }
    Ok(format!("{token}: {}", value.trim()))
}

/// One change to the parent's tree. Paths use `/` and are relative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The file holds these bytes afterwards.
    Write {
        /// Path inside the tree.
        path: String,
        /// The whole content.
        content: Vec<u8>,
    },
    /// The file or folder is gone afterwards; removing what is not there is no change.
    Remove {
        /// Path inside the tree.
        path: String,
    },
}

/// Everything that makes a commit; the clock is an input.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The commit to build on; none makes a root commit.
    pub parent: Option<CommitId>,
    /// Changes, applied in order.
    pub changes: Vec<Change>,
    /// Who wrote the change.
    pub author: Identity,
    /// Who made the commit.
    pub committer: Identity,
    /// The moment, for both; seconds count, the zone is UTC.
    pub time: Timestamp,
    /// The message.
    pub message: Message,
}

/// What [`Draft::write`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The changes leave the parent's tree as it is: nothing was written.
    Unchanged,
    /// The new commit. No reference points to it yet.
    Written(CommitId),
}

impl Draft {
    /// Builds the tree, the commit and its signature in memory, then writes the new objects to the repository.
    pub fn write(&self, repository: &Repository, key: Option<&SigningKey>) -> Result<Outcome, Error> {
        if self.changes.len() > MAX_CHANGES {
            return Err(Error::TooMany(self.changes.len()));
        }
        let local = repository.local();
        let mut scratch = local.clone().with_object_memory();
        let before = match self.parent {
            Some(parent) => {
                scratch.find_commit(parent.get()).and_then(|commit| commit.tree_id().map(gix::Id::detach))
            }
            None => Ok(scratch.empty_tree().id),
        }
        .map_err(store("the parent's tree"))?;
        let tree = self.tree(&scratch, before)?;
        if tree == before {
            return Ok(Outcome::Unchanged);
        }
        let commit = self.commit(tree, key)?;
        let id = scratch.write_object(&commit).map_err(store("the commit"))?.detach();
        let objects = scratch.objects.take_object_memory().unwrap_or_default();
        for (kind, data) in objects.values() {
            local.write_buf(*kind, data).map_err(store("writing objects"))?;
        }
        Ok(Outcome::Written(CommitId::new(id)))
    }

    fn tree(&self, scratch: &gix::Repository, before: ObjectId) -> Result<ObjectId, Error> {
        let mut editor = scratch.edit_tree(before).map_err(store("the parent's tree"))?;
        for change in &self.changes {
            match change {
                Change::Write { path, content } => {
                    let blob = scratch.write_blob(content).map_err(store("a file"))?;
                    editor.upsert(checked(path)?, EntryKind::Blob, blob)
                }
                Change::Remove { path } => editor.remove(checked(path)?),
            }
            .map_err(store("editing the tree"))?;
        }
        Ok(editor.write().map_err(store("the tree"))?.detach())
    }

    fn commit(&self, tree: ObjectId, key: Option<&SigningKey>) -> Result<Commit, Error> {
        let mut commit = Commit {
            tree,
            parents: self.parent.map(CommitId::get).into_iter().collect(),
            author: self.author.at(self.time),
            committer: self.committer.at(self.time),
            encoding: None,
            message: self.message.text.as_str().into(),
            extra_headers: Vec::new(),
        };
        if let Some(key) = key {
            let mut payload = Vec::new();
            commit
                .write_to(&mut payload)
                .map_err(|error| store("the commit")(gix::Error::from_error(error)))?;
            commit.extra_headers.push(("gpgsig".into(), key.sign(&payload)?.into()));
        }
        Ok(commit)
    }
}

/// Refuses what Git itself would refuse to check out, on any system.
fn checked(path: &str) -> Result<&str, Error> {
    let valid = |component: &str| {
        gix::validate::path::component(
            component.into(),
            None,
            gix::validate::path::component::Options::default(),
        )
        .is_ok()
    };
    let sound = path.len() <= 4096 && !path.contains('\0') && path.split('/').all(valid);
    sound.then_some(path).ok_or_else(|| Error::Path(path.to_owned()))
}

/// Moves a local reference from `old` (none: it must not exist) to `new`, or changes nothing.
///
/// Errors: [`Error::Moved`] when the reference is not at `old`; read it again, build again.
pub fn update_ref(
    repository: &Repository,
    name: &str,
    old: Option<CommitId>,
    new: CommitId,
) -> Result<(), Error> {
    let moved = |source| Error::Moved { name: name.to_owned(), source };
    let edit = RefEdit {
        change: RefChange::Update {
            log: LogChange {
                mode: RefLog::AndReference,
                force_create_reflog: false,
                message: "ostler".into(),
            },
            expected: match old {
                Some(old) => PreviousValue::MustExistAndMatch(Target::Object(old.get())),
                None => PreviousValue::MustNotExist,
            },
            new: Target::Object(new.get()),
        },
        name: name.try_into().map_err(|_| Error::Text { what: "a reference name" })?,
        deref: false,
    };
    // The reflog names nobody: it must not depend on who runs ostler.
    let committer = Identity { name: "ostler".into(), email: String::new() }.at(Timestamp::UNIX_EPOCH);
    let mut buffer = gix::date::parse::TimeBuf::default();
    repository.local().edit_references_as([edit], Some(committer.to_ref(&mut buffer))).map_err(moved)?;
    Ok(())
}
