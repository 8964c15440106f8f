//! What a plan says to people and programs.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::FieldChange;
use crate::{
    kinds::{ObjectId, Reason},
    manifest::{Desired, Diagnostic, Item},
    names::{CommitId, RepoPath},
};

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// An active run is stopped.
    Stop,
    /// It is deleted.
    Delete,
    /// It stays as it is, out of doubt.
    Hold,
    /// A run that has run before and is not made again.
    Recorded,
    /// It is somebody else's.
    Refuse,
    /// It is as asked for.
    Unchanged,
}

impl Action {
    fn sign(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Stop => "x",
            Self::Delete => "-",
            Self::Hold => "!",
            Self::Recorded => "=",
            Self::Refuse => "?",
            Self::Unchanged => " ",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Stop => "stop",
            Self::Delete => "delete",
            Self::Hold => "hold",
            Self::Recorded => "recorded",
            Self::Refuse => "refuse",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What happens to one object, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemReport {
    /// Which object.
    #[serde(flatten)]
    pub id: ObjectId,
    /// What happens.
    pub action: Action,
    /// The file it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<RepoPath>,
    /// The line of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// More words on that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The fields that change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

impl ItemReport {
    pub(super) fn bare(id: &ObjectId, action: Action) -> Self {
        let id = id.clone();
        Self { id, action, path: None, line: None, reason: None, message: String::new(), changes: Vec::new() }
    }

    pub(super) fn of(id: &ObjectId, item: &Item, action: Action) -> Self {
        Self { path: Some(item.path.clone()), line: Some(item.at.line), ..Self::bare(id, action) }
    }

    pub(super) fn because(self, reason: Reason, message: String) -> Self {
        Self { reason: Some(reason), message, ..self }
    }
}

/// How many objects of each action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each is named after its action")]
pub struct Counts {
    pub create: usize,
    pub update: usize,
    pub stop: usize,
    pub delete: usize,
    pub hold: usize,
    pub recorded: usize,
    pub refuse: usize,
    pub unchanged: usize,
}

/// An object that stays as it is, out of doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// `Kind namespace/name`.
    #[serde(serialize_with = "displayed")]
    pub object: ObjectId,
    /// Why.
    pub reason: Reason,
    /// More words on that.
    pub message: String,
}

/// What a plan says; the same for `ostler plan`, status, and reviews.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// The commit that was planned; absent for a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// When.
    pub planned_at: jiff::Timestamp,
    /// How many objects of each action.
    pub counts: Counts,
    /// Objects to which something happens, or would but for a doubt; by kind, namespace and name.
    pub items: Vec<ItemReport>,
    /// Objects that stay out of doubt.
    pub held: Vec<Held>,
    /// Errors and warnings of files.
    pub diagnostics: Vec<Diagnostic>,
    /// Documents of other kinds, left alone.
    pub foreign: usize,
    /// Files that were read.
    pub files: usize,
    /// Objects that are asked for.
    pub objects: usize,
}

impl PlanReport {
    pub(super) fn new(
        items: Vec<ItemReport>,
        diagnostics: Vec<Diagnostic>,
        desired: &Desired,
        commit: Option<CommitId>,
        now: jiff::Timestamp,
    ) -> Self {
        let mut counts = Counts::default();
        for item in &items {
            *counts.of(item.action) += 1;
        }
        let held = items.iter().filter(|item| item.action == Action::Hold).map(|item| Held {
            object: item.id.clone(),
            reason: item.reason.unwrap_or(Reason::ObjectsHeld),
            message: item.message.clone(),
        });
        Self {
            commit,
            planned_at: now,
            counts,
            held: held.collect(),
            items: items
                .into_iter()
                .filter(|i| i.action != Action::Unchanged || i.reason.is_some())
                .collect(),
            diagnostics,
            foreign: desired.foreign,
            files: desired.files,
            objects: desired.objects.len(),
        }
    }

    /// Says of an object that it stays as it is, and why.
    pub(super) fn hold(&mut self, id: &ObjectId, reason: Reason, message: String) {
        for item in self.items.iter_mut().filter(|item| item.id == *id) {
            *self.counts.of(item.action) -= 1;
            self.counts.hold += 1;
            (item.action, item.reason, item.message) = (Action::Hold, Some(reason), message.clone());
            self.held.push(Held { object: id.clone(), reason, message: message.clone() });
        }
        self.held.sort_by(|a, b| a.object.cmp(&b.object));
    }

    /// True when something would change, is in doubt or is wrong.
    #[must_use]
    pub fn differs(&self) -> bool {
        let Counts { create, update, stop, delete, hold, refuse, .. } = self.counts;
        create + update + stop + delete + hold + refuse > 0
            || self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// 0: the same; 1: something differs.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.differs())
    }
}

impl Counts {
    fn of(&mut self, action: Action) -> &mut usize {
        match action {
            Action::Create => &mut self.create,
            Action::Update => &mut self.update,
            Action::Stop => &mut self.stop,
            Action::Delete => &mut self.delete,
            Action::Hold => &mut self.hold,
            Action::Recorded => &mut self.recorded,
            Action::Refuse => &mut self.refuse,
            Action::Unchanged => &mut self.unchanged,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { create, update, stop, delete, hold, recorded, refuse, unchanged } = *self;
        let counts = [
            (create, "to create"),
            (update, "to update"),
            (stop, "to stop"),
            (delete, "to delete"),
            (hold, "held"),
            (refuse, "refused"),
            (recorded, "recorded"),
            (unchanged, "unchanged"),
        ];
        let told: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        f.write_str(&if told.is_empty() { "nothing there".to_owned() } else { told.join(", ") })
    }
}

impl fmt::Display for ItemReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:9} {}", self.action.sign(), self.action.word(), self.id)?;
        if let Some(path) = &self.path {
            write!(f, "  ({path})")?;
        }
        if let Some(reason) = self.reason {
            write!(f, "\n    {reason}: {}", self.message)?;
        }
        for change in &self.changes {
            let side = |value: &Option<serde_json::Value>| {
                value.as_ref().map_or_else(|| "nothing".to_owned(), brief)
            };
            write!(f, "\n    {}: {} -> {}", change.field, side(&change.from), side(&change.to))?;
        }
        Ok(())
    }
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for told in &self.diagnostics {
            writeln!(f, "{told}")?;
        }
        if !self.diagnostics.is_empty() {
            f.write_char('\n')?;
        }
        for item in &self.items {
            writeln!(f, "{item}")?;
        }
        write!(f, "plan: {}", self.counts)?;
        if self.foreign > 0 {
            write!(f, " ({} documents of other kinds left alone)", self.foreign)?;
        }
        writeln!(f)
    }
}

/// A value on one line.
fn brief(value: &serde_json::Value) -> String {
    const MAX: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= MAX {
        text
    } else {
        format!("{}…", text.chars().take(MAX).collect::<String>())
    }
}

fn displayed<S: Serializer>(id: &ObjectId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
