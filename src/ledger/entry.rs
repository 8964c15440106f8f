//! `claim.yaml` and `result.yaml`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::RunName;
use crate::{
    kinds::{
        Phase, Reason,
        harness_run::{EgressSeen, Startup, Usage},
    },
    names::{CommitId, Uid},
    report::{ArtifactSeen, ChangesSeen},
};

/// The version of both formats. A reader takes fields that it does not know, but no other version.
pub const VERSION: u32 = 1;
/// Longest entry that is read, bytes.
pub const MAX_ENTRY: u64 = 1 << 20;
/// Longest `summary.md`, bytes.
pub const MAX_SUMMARY: usize = 16 * 1024;

/// Why an entry cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not have the fields of an entry.
    #[error("not an entry of the ledger")]
    Malformed(#[source] serde_saphyr::Error),
    /// It is of a version that this ostler does not know.
    #[error("version {0} of the ledger is not known here; a newer ostler wrote it")]
    Version(u32),
    /// It cannot be written as YAML.
    #[error("the entry cannot be written")]
    Unwritable(#[source] serde_saphyr::SerializeError),
}

/// Says that a name is used, by whom and for what. Committed before the run has a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimEntry {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunName,
    /// Its UID.
    pub uid: Uid,
    /// The control plane that runs it, and alone writes its result.
    pub holder: String,
    /// Digest of the run as its author wrote it.
    pub digest: String,
    /// The commit of the config repository that last changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_commit: Option<CommitId>,
    /// When it was claimed.
    pub claimed_at: Timestamp,
}

/// Says how a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultEntry {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunName,
    /// Its UID.
    pub uid: Uid,
    /// The control plane that ran it.
    pub holder: String,
    /// Digest of the run as its author wrote it.
    pub digest: String,
    /// The commit of the config repository that last changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_commit: Option<CommitId>,
    /// The outcome: a terminal phase.
    pub outcome: Phase,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// When the agent was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When this was recorded.
    pub recorded_at: Timestamp,
    /// The exit code that the agent's PID 1 saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What nobody but the agent says.
    #[serde(default, skip_serializing_if = "AgentsWord::is_empty")]
    pub agents_word: AgentsWord,
    /// What the proxy saw.
    pub egress: EgressSeen,
    /// What the proof of egress said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_proof: Option<String>,
    /// Limits that were not enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits_not_enforced: Vec<String>,
    /// What the agent changed: the workspace's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<ChangesSeen>,
    /// What became of its commits.
    pub push: Push,
    /// Where the bulk is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Bulk>,
    /// Steps of the start.
    pub startup: Startup,
    /// Artifacts that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactSeen>,
    /// What went wrong in collecting and recording.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the sidecar did not deliver, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undelivered: Vec<String>,
}

/// What nobody but the agent says: it may be wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentsWord {
    /// Tokens and money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The agent's own session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

impl AgentsWord {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What became of the agent's commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Push {
    /// True: the branch is at the agent's last commit.
    pub pushed: bool,
    /// Why, or why not.
    pub reason: Reason,
    /// The branch that was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Push {
    /// Not pushed, and why.
    #[must_use]
    pub fn withheld(reason: Reason, branch: Option<String>, message: impl Into<String>) -> Self {
        Self { pushed: false, reason, branch, message: message.into() }
    }
}

/// Where the bulk is, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bulk {
    /// The reference that holds it.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The files, by name.
    pub files: BTreeMap<String, BulkFile>,
}

/// A file of the bulk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkFile {
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// Reads the version alone, so that an entry of the future is told from a broken one.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let options = || serde_saphyr::options! { strict_booleans: true };
    let Versioned { version } =
        serde_saphyr::from_str_with_options(text, options()).map_err(Error::Malformed)?;
    if version != VERSION {
        return Err(Error::Version(version));
    }
    serde_saphyr::from_str_with_options(text, options()).map_err(Error::Malformed)
}

macro_rules! yaml {
    ($($name:ident),*) => { $(impl $name {
        /// Reads the file.
        ///
        /// # Errors
        /// [`Error::Malformed`] and [`Error::Version`].
        pub fn from_yaml(text: &str) -> Result<Self, Error> {
            read(text)
        }

        /// Writes the file.
        ///
        /// # Errors
        /// [`Error::Unwritable`].
        pub fn to_yaml(&self) -> Result<String, Error> {
            serde_saphyr::to_string(self).map_err(Error::Unwritable)
        }
    })* };
}
yaml!(ClaimEntry, ResultEntry);

/// Cuts a text to at most `limit` bytes, at a character.
#[must_use]
pub fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ledger) fn claim(run: &str) -> ClaimEntry {
        ClaimEntry {
            version: VERSION,
            run: run.parse().unwrap(),
            uid: "5c1d8a5e-0001".parse().unwrap(),
            holder: "h1".into(),
            digest: "v1:ab".into(),
            config_commit: Some("0123456789012345678901234567890123456789".parse().unwrap()),
            claimed_at: "2026-11-21T10:00:00Z".parse().unwrap(),
        }
    }

    pub(in crate::ledger) fn result(run: &str) -> ResultEntry {
        ResultEntry {
            version: VERSION,
            run: run.parse().unwrap(),
            uid: "5c1d8a5e-0001".parse().unwrap(),
            holder: "h1".into(),
            digest: "v1:ab".into(),
            config_commit: None,
            outcome: Phase::Succeeded,
            reason: Reason::Completed,
            message: "yes: done\n# not a comment".into(),
            started_at: Some("2026-11-21T10:00:00Z".parse().unwrap()),
            ended_at: None,
            recorded_at: "2026-11-21T10:00:01Z".parse().unwrap(),
            exit_code: Some(0),
            agents_word: AgentsWord {
                usage: Some(Usage { usd: Some("0.10".into()), ..Usage::default() }),
                session: None,
            },
            egress: EgressSeen::default(),
            egress_proof: None,
            limits_not_enforced: vec![],
            changes: None,
            push: Push::withheld(Reason::PushNotRequested, None, ""),
            bulk: Some(Bulk {
                reference: "refs/ostler/runs/team/a".into(),
                files: [("output.log".to_owned(), BulkFile { sha256: "00".into(), bytes: 3 })].into(),
            }),
            startup: Startup::default(),
            artifacts: vec![],
            notes: vec!["no".into()],
            undelivered: vec![],
        }
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        let claim = claim("team/a");
        assert_eq!(ClaimEntry::from_yaml(&claim.to_yaml().unwrap()).unwrap(), claim);
        let result = result("team/a");
        assert_eq!(ResultEntry::from_yaml(&result.to_yaml().unwrap()).unwrap(), result);
    }

    #[test]
    fn names_that_look_like_other_types_stay_text() {
        let claim = ClaimEntry { digest: "1e3".into(), holder: "no".into(), ..claim("yes/0x10") };
        assert_eq!(ClaimEntry::from_yaml(&claim.to_yaml().unwrap()).unwrap(), claim);
    }

    #[test]
    fn unknown_fields_are_taken_and_unknown_versions_are_not() {
        let text = claim("team/a").to_yaml().unwrap() + "fromTheFuture: {a: 1}\n";
        assert!(ClaimEntry::from_yaml(&text).is_ok());
        let text = text.replace("version: 1", "version: 2");
        assert!(matches!(ClaimEntry::from_yaml(&text), Err(Error::Version(2))));
        assert!(matches!(ClaimEntry::from_yaml("version: 1\nrun: x"), Err(Error::Malformed(_))));
    }

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
    }
}
