//! Where things stand on the ledger branch.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::names::{Namespace, ObjectName};

/// The folder of claims and results.
pub const RUNS: &str = "runs/";
/// The folder of the index.
pub const INDEX: &str = "index/";
/// For people who look at the branch.
pub const README: &str = "README.md";

/// A run by name. A name is used once in a ledger, whatever its UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
}

impl RunName {
    /// Puts the two together.
    #[must_use]
    pub fn new(namespace: Namespace, name: ObjectName) -> Self {
        Self { namespace, name }
    }

    /// `runs/<namespace>/<hh>/<name>`; `hh` is the first byte of the name's SHA-256, so that no folder grows without end.
    #[must_use]
    pub fn folder(&self) -> String {
        let shard = Sha256::digest(self.name.as_str().as_bytes())[0];
        format!("{RUNS}{}/{shard:02x}/{}", self.namespace, self.name)
    }

    /// The path of one of its files.
    #[must_use]
    pub fn path(&self, file: File) -> String {
        format!("{}/{}", self.folder(), file.as_str())
    }

    /// The reference that holds the run's bulk.
    #[must_use]
    pub fn bulk_ref(&self) -> String {
        format!("refs/ostler/runs/{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not namespace/name")]
pub struct NotARun(pub String);

impl std::str::FromStr for RunName {
    type Err = NotARun;

    fn from_str(text: &str) -> Result<Self, NotARun> {
        let error = || NotARun(text.chars().take(140).collect());
        let (namespace, name) = text.split_once('/').ok_or_else(error)?;
        Ok(Self {
            namespace: namespace.parse().map_err(|_| error())?,
            name: name.parse().map_err(|_| error())?,
        })
    }
}

impl TryFrom<String> for RunName {
    type Error = NotARun;

    fn try_from(text: String) -> Result<Self, NotARun> {
        text.parse()
    }
}

impl From<RunName> for String {
    fn from(run: RunName) -> Self {
        run.to_string()
    }
}

/// The files of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// Written before the run starts.
    Claim,
    /// Written after its end.
    Result,
    /// Written when a run that was recorded as lost reports after all. `result.yaml` stays as it is.
    Late,
    /// The agent's own words.
    Summary,
}

impl File {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim.yaml",
            Self::Result => "result.yaml",
            Self::Late => "late-result.yaml",
            Self::Summary => "summary.md",
        }
    }
}

/// What a path of the branch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file of a run.
    Run(RunName, File),
    /// A file of the index.
    Index,
    /// Below `runs/` or `index/`, but nothing that ostler writes.
    Stray,
    /// Anywhere else: nobody's business.
    Foreign,
}

impl Place {
    /// Reads a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if let Some(month) = path.strip_prefix(INDEX) {
            return if is_month_file(month) { Self::Index } else { Self::Stray };
        }
        let Some(rest) = path.strip_prefix(RUNS) else { return Self::Foreign };
        run_file(rest)
            .filter(|(run, file)| run.path(*file) == path)
            .map_or(Self::Stray, |(run, file)| Self::Run(run, file))
    }
}

fn run_file(rest: &str) -> Option<(RunName, File)> {
    let mut parts = rest.split('/');
    let (namespace, _, name, file) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let file =
        [File::Claim, File::Result, File::Late, File::Summary].into_iter().find(|f| f.as_str() == file)?;
    let run = RunName::new(namespace.parse().ok()?, name.parse().ok()?);
    parts.next().is_none().then_some((run, file))
}

fn is_month_file(name: &str) -> bool {
    let Some(month) = name.strip_suffix(".yaml") else { return false };
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    month.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
}

/// The index file of a moment: `index/<yyyy-mm>.yaml`, in UTC.
#[must_use]
pub fn index_path(at: jiff::Timestamp) -> String {
    format!("{INDEX}{}.yaml", at.strftime("%Y-%m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_back() {
        let run: RunName = "team/fix-login".parse().unwrap();
        for file in [File::Claim, File::Result, File::Late, File::Summary] {
            assert_eq!(Place::of(&run.path(file)), Place::Run(run.clone(), file));
        }
        assert_eq!(Place::of("index/2026-11.yaml"), Place::Index);
        for stray in [
            "runs/team/00/fix-login/claim.yaml",
            "runs/team/fix-login/claim.yaml",
            "runs/x",
            "index/november.yaml",
            "index/2026-11.yaml/x",
        ] {
            assert_eq!(Place::of(stray), Place::Stray, "{stray}");
        }
        assert_eq!(Place::of("notes/runs/x"), Place::Foreign);
        assert_eq!(Place::of("runs"), Place::Foreign, "a file called runs cannot stand beside the folder");
    }

    #[test]
    fn the_shard_is_the_first_byte_of_the_names_digest() {
        // printf fix-login | sha256sum
        let run: RunName = "team/fix-login".parse().unwrap();
        let digest = format!("{:x}", Sha256::digest(b"fix-login"));
        assert_eq!(run.folder(), format!("runs/team/{}/fix-login", &digest[..2]));
        assert_eq!(run.bulk_ref(), "refs/ostler/runs/team/fix-login");
    }

    #[test]
    fn months_are_utc() {
        let at: jiff::Timestamp = "2026-11-30T23:59:59Z".parse().unwrap();
        assert_eq!(index_path(at), "index/2026-11.yaml");
    }
}
