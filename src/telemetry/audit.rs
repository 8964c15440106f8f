//! The audit trail: one JSON line for every mutation and every refusal.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, Serializer};

use crate::names::CommitId;

/// Bytes after which the file is set aside and a new one begun.
pub const MAX_BYTES: u64 = 64 << 20;
/// Files that were set aside and are kept, as `<name>.1` (the youngest) to `<name>.8`.
pub const KEPT: u32 = 8;
/// Longest text of one field, in bytes; more is cut off.
const MAX_TEXT: usize = 1024;

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A person or tool, by the name under which it proved itself.
    Person(String),
    /// A commit of a config repository.
    Commit(CommitId),
    /// A part of ostler, by its field manager.
    Controller(&'static str),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => write!(f, "person:{name}"),
            Self::Commit(commit) => write!(f, "commit:{commit}"),
            Self::Controller(manager) => write!(f, "controller:{manager}"),
        }
    }
}

/// What was done, or asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// An object came into being.
    Create,
    /// An object was changed.
    Update,
    /// An object was deleted.
    Delete,
    /// A run's name was claimed in the ledger.
    Claim,
    /// A run's place was made.
    Start,
    /// A run was told to end.
    Stop,
    /// A result was taken in.
    Intake,
    /// A result was recorded in the ledger.
    Record,
    /// A code branch was pushed.
    Push,
    /// An object or repository was suspended.
    Suspend,
    /// It was resumed.
    Resume,
    /// A sync was asked for.
    Reconcile,
    /// Something was read; recorded when it was refused.
    Read,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was allowed and done.
    Allowed,
    /// It was refused.
    Denied,
    /// It was allowed and did not work.
    Failed,
}

/// One line of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// When.
    pub at: jiff::Timestamp,
    /// Who.
    #[serde(serialize_with = "bounded")]
    pub who: Who,
    /// What was done.
    pub verb: Verb,
    /// To what: `Kind namespace/name`, or a ref of a repository.
    #[serde(serialize_with = "bounded")]
    pub object: String,
    /// What became of it.
    pub decision: Decision,
    /// Why, without secrets.
    #[serde(serialize_with = "bounded")]
    pub reason: String,
}

fn bounded<S: Serializer>(text: &impl ToString, to: S) -> Result<S::Ok, S::Error> {
    let mut text = text.to_string();
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    to.serialize_str(&text)
}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trail's file cannot be opened or set aside.
    #[error("the audit trail {} cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The line cannot be written.
    #[error("a line of the audit trail cannot be written")]
    Write(#[source] io::Error),
}

/// The trail.
///
/// # Guarantees
/// Each line reaches the sink in one write before [`AuditLog::record`] returns, so that lines of several threads, or of a
/// process that dies, never mix. Nothing is ever rewritten.
pub struct AuditLog {
    sink: Mutex<Sink>,
}

enum Sink {
    File(TrailFile),
    Writer(Box<dyn Write + Send>),
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditLog")
    }
}

impl AuditLog {
    /// A trail in a file, which is made (mode 0600) or appended to. It is set aside at [`MAX_BYTES`].
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn file(path: &Path) -> Result<Self, Error> {
        Ok(Self { sink: Mutex::new(Sink::File(TrailFile::open(path, MAX_BYTES)?)) })
    }

    /// A trail on standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::writer(Box::new(io::stderr()))
    }

    /// A trail into any sink.
    #[must_use]
    pub fn writer(sink: Box<dyn Write + Send>) -> Self {
        Self { sink: Mutex::new(Sink::Writer(sink)) }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`Error`]; whether the mutation goes on without its line is the caller's decision.
    pub fn record(&self, audit: &Audit) -> Result<(), Error> {
        let mut line = serde_json::to_vec(audit).map_err(|error| Error::Write(error.into()))?;
        line.push(b'\n');
        // A thread that panicked between two writes left no half line behind.
        match &mut *self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::File(file) => file.append(&line),
            Sink::Writer(writer) => writer.write_all(&line).map_err(Error::Write),
        }
    }
}

struct TrailFile {
    path: PathBuf,
    file: File,
    length: u64,
    max: u64,
}

impl TrailFile {
    fn open(path: &Path, max: u64) -> Result<Self, Error> {
        let open = || {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|source| Error::Open { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, length, max })
    }

    fn append(&mut self, line: &[u8]) -> Result<(), Error> {
        let bytes = line.len() as u64;
        if self.length > 0 && self.length + bytes > self.max {
            self.set_aside().map_err(|source| Error::Open { path: self.path.clone(), source })?;
            *self = Self::open(&self.path, self.max)?;
        }
        self.file.write_all(line).map_err(Error::Write)?;
        self.length += bytes;
        Ok(())
    }

    /// Moves `trail` to `trail.1`, `trail.1` to `trail.2` and so on; the oldest is overwritten.
    fn set_aside(&self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::Arc};

    use super::*;

    fn sample(object: &str) -> Audit {
        Audit {
            at: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
            who: Who::Commit("0123456789012345678901234567890123456789".parse().unwrap()),
            verb: Verb::Create,
            object: object.to_owned(),
            decision: Decision::Allowed,
            reason: "first\nline \"quoted\"".to_owned(),
        }
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_one_json_line_with_all_six_fields() {
        let sink = Shared::default();
        let log = AuditLog::writer(Box::new(sink.clone()));
        log.record(&sample("HarnessRun shop/fix")).unwrap();
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "at": "2023-11-14T22:13:20Z",
            "who": "commit:0123456789012345678901234567890123456789",
            "verb": "create",
            "object": "HarnessRun shop/fix",
            "decision": "allowed",
            "reason": "first\nline \"quoted\"",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let line = serde_json::to_value(sample(&"ü".repeat(2000))).unwrap();
        let object = line["object"].as_str().unwrap();
        assert!(object.len() <= MAX_TEXT && object.ends_with('…'), "{} bytes", object.len());
    }

    #[test]
    fn a_file_is_private_and_continued_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        for name in ["a", "b"] {
            AuditLog::file(&path).unwrap().record(&sample(name)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_is_set_aside_and_no_line_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut trail = TrailFile::open(&path, 100).unwrap();
        for number in 0..12 {
            trail.append(format!("{number:059}\n").as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("audit.jsonl"), format!("{:059}\n", 11));
        assert_eq!(read("audit.jsonl.1"), format!("{:059}\n", 10));
        assert_eq!(read("audit.jsonl.8"), format!("{:059}\n", 3));
        assert!(!folder.path().join("audit.jsonl.9").exists(), "only {KEPT} are kept");
    }

    #[test]
    fn a_sink_that_fails_is_an_error_and_not_silence() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let result = AuditLog::writer(Box::new(Full)).record(&sample("a"));
        assert!(matches!(result, Err(Error::Write(_))));
    }
}
