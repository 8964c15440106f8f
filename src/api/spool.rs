//! A delivery on its way to disk: a tar stream, checked as it comes. Blocking.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::Problem;
use crate::{
    ledger::digest,
    names::Uid,
    report::{ARTIFACTS, DELIVERY_BYTES, Delivery, REPORT, Report, mebibytes, most_bytes},
};

/// Bytes that are read of what is refused, so that the sidecar hears why: who is answered while it still writes, and whose
/// connection is closed then, may never see the answer.
const REFUSED_BYTES: u64 = 4 * DELIVERY_BYTES;
/// Most artifacts: as many as a run may ask for.
const MAX_ARTIFACTS: usize = 16;

/// Counts and hashes what is read.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        if self.bytes > DELIVERY_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than a delivery may have"));
        }
        Ok(read)
    }
}

/// Takes a delivery in below `spool`. It lies there whole, or not at all: a folder is renamed into its place at the end.
/// The same delivery again finds its place taken, and is the same.
pub(super) fn take_in(
    spool: &Path,
    mut stream: impl Read,
    expected: Option<&str>,
) -> Result<Delivery, Problem> {
    let taken = take(spool, &mut stream, expected);
    if taken.is_err() {
        // Who breaks off, or sends still more, hears nothing.
        let _ = io::copy(&mut stream.take(REFUSED_BYTES), &mut io::sink());
    }
    taken
}

fn take(spool: &Path, stream: impl Read, expected: Option<&str>) -> Result<Delivery, Problem> {
    let folder = tempfile::Builder::new().prefix(".part-").tempdir_in(spool).map_err(|e| disk(&e))?;
    let mut stream = Hashed { inner: stream, hash: Sha256::new(), bytes: 0 };
    let (report, files) = unpack(&mut stream, folder.path())?;
    // The tar reader stops at the end mark; the digest is over everything that was sent.
    io::copy(&mut stream, &mut io::sink()).map_err(|error| broken(&error))?;
    let digest = digest::hex(&stream.hash.finalize());
    if expected.is_some_and(|expected| !expected.eq_ignore_ascii_case(&digest)) {
        return Err(Problem::malformed("the stream does not have the digest that its header says"));
    }
    let place = place(spool, &report.run.uid, &digest);
    let parent = place.parent().unwrap_or(spool);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|e| disk(&e))?;
    match fs::rename(folder.path(), &place) {
        Err(error) if !place.is_dir() => return Err(disk(&error)),
        _ => {}
    }
    Ok(Delivery { report, digest, folder: place, files })
}

fn place(spool: &Path, run: &Uid, digest: &str) -> PathBuf {
    spool.join(run.as_str()).join(digest)
}

type Files = Vec<(String, u64)>;

fn unpack(stream: impl Read, folder: &Path) -> Result<(Report, Files), Problem> {
    let mut archive = tar::Archive::new(stream);
    let mut report = None;
    let mut files: Files = Vec::new();
    for entry in archive.entries().map_err(|error| broken(&error))? {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let name = entry.path_bytes();
        let name =
            std::str::from_utf8(&name).map_err(|_| Problem::malformed("a name is not UTF-8"))?.to_owned();
        let plain = entry.header().entry_type().is_file();
        let Some(most) = most_bytes(&name).filter(|_| plain) else {
            return Err(Problem::malformed(format!("{:?} is no file of a delivery", shorten(&name))));
        };
        if files.iter().any(|(other, _)| *other == name) || (name == REPORT) != report.is_none() {
            return Err(Problem::malformed(format!("{name} stands twice, or before {REPORT}")));
        }
        if entry.size() > most {
            return Err(Problem::too_large(format!(
                "{} of {} is over the limit of {}",
                shorten(&name),
                mebibytes(entry.size()),
                mebibytes(most)
            )));
        }
        if report.is_none() {
            let text = io::read_to_string(&mut entry).map_err(|error| broken(&error))?;
            let read = serde_json::from_str::<Report>(&text);
            report = Some(read.map_err(|error| Problem::malformed(format!("{REPORT}: {error}")))?);
            continue;
        }
        let length = write(&folder.join(&name), &mut entry)?;
        files.push((name, length));
        if files.iter().filter(|(name, _)| name.starts_with(ARTIFACTS)).count() > MAX_ARTIFACTS {
            return Err(Problem::too_large(format!("more than {MAX_ARTIFACTS} artifacts")));
        }
    }
    let report = report.ok_or_else(|| Problem::malformed(format!("there is no {REPORT}")))?;
    Ok((report, files))
}

fn write(path: &Path, content: &mut impl Read) -> Result<u64, Problem> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| disk(&e))?;
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| disk(&e))?;
    let mut buffer = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        let read = content.read(&mut buffer).map_err(|error| broken(&error))?;
        if read == 0 {
            return Ok(length);
        }
        file.write_all(&buffer[..read]).map_err(|e| disk(&e))?;
        length += read as u64;
    }
}

/// Removes what a killed process left half-written.
pub(super) fn sweep(spool: &Path) -> io::Result<()> {
    for entry in fs::read_dir(spool)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".part-") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn shorten(name: &str) -> String {
    name.chars().take(120).collect()
}

fn broken(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::FileTooLarge => {
            Problem::too_large(format!("a delivery may have {}", mebibytes(DELIVERY_BYTES)))
        }
        _ => Problem::malformed(format!("the stream is no tar archive, or broke off: {error}")),
    }
}

fn disk(error: &io::Error) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a delivery cannot be spooled");
    Problem::unavailable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::OUTPUT;

    fn report() -> Vec<u8> {
        serde_json::json!({
            "run": {"namespace": "team", "name": "a", "uid": "u-1"}, "place": "p", "digest": "v1:a",
            "end": {"exited": {"code": 0}}, "record": {"verdict": null, "summary": "", "usage": null, "session": null},
            "startedAt": null, "endedAt": null, "startup": {}, "egressProof": null,
            "egress": {"allowed": 0, "denied": 0}, "limitsNotEnforced": [],
            "changes": {"base": null, "head": null, "commits": 0, "files": 0, "additions": 0, "deletions": 0},
            "notes": [], "artifacts": []
        })
        .to_string()
        .into_bytes()
    }

    fn stream(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            // Set by hand: the builder refuses the bad names that an attacker would send.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn code(files: &[(&str, &[u8])]) -> &'static str {
        let spool = tempfile::tempdir().unwrap();
        let result = take_in(spool.path(), stream(files).as_slice(), None);
        let left: Vec<_> = fs::read_dir(spool.path()).unwrap().collect();
        assert!(result.is_ok() || left.is_empty(), "a refused delivery leaves nothing: {left:?}");
        result.map_or_else(|problem| problem.code(), |_| "taken")
    }

    #[test]
    fn only_the_files_of_a_delivery_are_taken() {
        let report = report();
        assert_eq!(code(&[(REPORT, &report), (OUTPUT, b"hi"), ("artifacts/a/b.html", b"x")]), "taken");
        for bad in ["../x", "/etc/passwd", "artifacts/../x", "artifacts/", "other", "changes.bundle/x"] {
            assert_eq!(code(&[(REPORT, &report), (bad, b"x")]), "malformed-delivery", "{bad}");
        }
        assert_eq!(
            code(&[(OUTPUT, b"hi"), (REPORT, &report)]),
            "malformed-delivery",
            "the report comes first"
        );
        assert_eq!(code(&[(REPORT, &report), (OUTPUT, b"a"), (OUTPUT, b"b")]), "malformed-delivery");
        assert_eq!(code(&[(REPORT, b"{}")]), "malformed-delivery");
        assert_eq!(code(&[]), "malformed-delivery");
        assert_eq!(code(&[(REPORT, &vec![b' '; (1 << 20) + 1])]), "too-large");
    }

    #[test]
    fn a_link_is_no_file_of_a_delivery() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o600);
        tar.append_link(&mut header, OUTPUT, "/etc/passwd").unwrap();
        let spool = tempfile::tempdir().unwrap();
        let refused = take_in(spool.path(), tar.into_inner().unwrap().as_slice(), None).unwrap_err();
        assert_eq!(refused.code(), "malformed-delivery");
    }

    #[test]
    fn the_digest_is_checked_and_the_same_again_is_the_same() {
        let spool = tempfile::tempdir().unwrap();
        let bytes = stream(&[(REPORT, &report()), (OUTPUT, b"hi")]);
        let digest = digest::hex(&Sha256::digest(&bytes));
        let first = take_in(spool.path(), bytes.as_slice(), Some(&digest)).unwrap();
        assert_eq!(fs::read(first.folder.join(OUTPUT)).unwrap(), b"hi");
        assert_eq!(take_in(spool.path(), bytes.as_slice(), Some(&digest)).unwrap(), first);
        assert!(take_in(spool.path(), bytes.as_slice(), Some("00")).is_err());
        assert!(take_in(spool.path(), &bytes[..bytes.len() / 2], None).is_err(), "cut off");
    }
}
