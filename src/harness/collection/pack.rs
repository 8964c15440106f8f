//! Packs the report and its bulk into one stream with one digest. What a recorder would refuse is left out, and said.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::{
    harness::{delivery, place::Folder, sidecar::Sidecar},
    report::{ARTIFACTS, BULK, DELIVERY_BYTES, REPORT, Report, mebibytes, most_bytes},
};

/// What the report and the stream's own marks may take of a delivery.
const FRAME_BYTES: u64 = 2 << 20;

/// Writes the stream to the outbox; what was collected goes.
pub(in crate::harness) async fn pack(sidecar: &Arc<Sidecar>, report: Report) -> io::Result<()> {
    let folder = sidecar.folder.clone();
    let packed = tokio::task::spawn_blocking(move || write(&folder, report)).await;
    packed.map_err(io::Error::other)?
}

/// Takes the largest file out of the packed stream, because the recorder takes no more; `why` are its words. False: there
/// is nothing left but the report.
pub(in crate::harness) async fn lighten(sidecar: &Arc<Sidecar>, why: &str) -> io::Result<bool> {
    let (folder, why) = (sidecar.folder.clone(), why.to_owned());
    let lighter = tokio::task::spawn_blocking(move || take_out(&folder, &why)).await;
    lighter.map_err(io::Error::other)?
}

fn write(folder: &Folder, mut report: Report) -> io::Result<()> {
    let outbox = folder.outbox();
    let found = found(&outbox, &report)?;
    let (files, undelivered) = fitting(found);
    report.undelivered = undelivered;
    seal(folder, |tar| {
        first(tar, &report)?;
        for File { name, path, bytes } in &files {
            tar.append_data(&mut header(*bytes), name, fs::File::open(path)?)?;
        }
        Ok(())
    })?;
    match fs::remove_dir_all(outbox.join("collected")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file that could be delivered.
#[derive(Debug, PartialEq, Eq)]
struct File {
    name: String,
    path: PathBuf,
    bytes: u64,
}

/// What lies in the outbox, in the order of the stream: what matters most comes first.
fn found(outbox: &Path, report: &Report) -> io::Result<Vec<File>> {
    let collected = outbox.join("collected");
    let bulk = BULK.iter().filter_map(|name| {
        let places = [outbox.join(name), collected.join(name)];
        places.into_iter().find(|path| path.exists()).map(|path| ((*name).to_owned(), path))
    });
    let artifacts = report.artifacts.iter().enumerate().filter_map(|(number, artifact)| {
        let path = collected.join("artifacts").join(number.to_string());
        artifact.bytes.map(|_| (format!("{ARTIFACTS}{}", artifact.path), path))
    });
    let file = |(name, path): (String, PathBuf)| {
        let found = fs::symlink_metadata(&path)?;
        if !found.is_file() {
            return Err(io::Error::other(format!("{name} in the outbox is not a file")));
        }
        Ok(File { name, path, bytes: found.len() })
    };
    bulk.chain(artifacts).map(file).collect()
}

/// What a recorder takes of the files, and why not of the others.
fn fitting(files: Vec<File>) -> (Vec<File>, Vec<String>) {
    let mut left = DELIVERY_BYTES - FRAME_BYTES;
    let mut undelivered = Vec::new();
    let fits = |file: &File| {
        let (name, size) = (&file.name, mebibytes(file.bytes));
        let most = most_bytes(name).unwrap_or_default();
        if file.bytes > most {
            undelivered.push(format!("{name}: {size} is over the limit of {}", mebibytes(most)));
            return false;
        }
        let rest = left.checked_sub(file.bytes);
        if rest.is_none() {
            let whole = mebibytes(DELIVERY_BYTES);
            undelivered.push(format!("{name}: with {size} the delivery would be over its limit of {whole}"));
        }
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let files = files.into_iter().filter(fits).collect();
    (files, undelivered)
}

fn take_out(folder: &Folder, why: &str) -> io::Result<bool> {
    let packed = delivery::result_file(folder);
    let mut largest: Option<(PathBuf, u64)> = None;
    let mut report = None;
    for entry in tar::Archive::new(fs::File::open(&packed)?).entries()? {
        let mut entry = entry?;
        let (path, bytes) = (entry.path()?.into_owned(), entry.size());
        if path == Path::new(REPORT) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            report = Some(serde_json::from_str::<Report>(&text)?);
        } else if largest.as_ref().is_none_or(|(_, most)| bytes > *most) {
            largest = Some((path, bytes));
        }
    }
    let mut report = report.ok_or_else(|| io::Error::other("the packed result has no report"))?;
    let Some((largest, bytes)) = largest else { return Ok(false) };
    report.undelivered.push(format!("{} of {}: {why}", largest.display(), mebibytes(bytes)));
    seal(folder, |tar| {
        first(tar, &report)?;
        for entry in tar::Archive::new(fs::File::open(&packed)?).entries()? {
            let entry = entry?;
            let path = entry.path()?.into_owned();
            if path != Path::new(REPORT) && path != largest {
                tar.append_data(&mut header(entry.size()), path, entry)?;
            }
        }
        Ok(())
    })?;
    Ok(true)
}

type Stream<'a> = tar::Builder<Hashed<'a>>;

/// Writes a stream and its digest in place of an earlier one.
fn seal(folder: &Folder, fill: impl FnOnce(&mut Stream<'_>) -> io::Result<()>) -> io::Result<()> {
    let outbox = folder.outbox();
    let mut file = tempfile::NamedTempFile::new_in(&outbox)?;
    let mut tar = tar::Builder::new(Hashed { to: file.as_file_mut(), hash: Sha256::new() });
    fill(&mut tar)?;
    let digest = format!("sha256:{:x}", tar.into_inner()?.hash.finalize());
    file.as_file().sync_all()?;
    super::super::place::write_atomically(&delivery::digest_file(folder), digest.as_bytes())?;
    file.persist(delivery::result_file(folder))?;
    fs::File::open(&outbox)?.sync_all()
}

/// The report comes first.
fn first(tar: &mut Stream<'_>, report: &Report) -> io::Result<()> {
    let json = serde_json::to_vec(report)?;
    tar.append_data(&mut header(json.len() as u64), REPORT, json.as_slice())
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header
}

/// Hashes what passes.
struct Hashed<'a> {
    to: &'a mut fs::File,
    hash: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{BUNDLE, OUTPUT, PATCH, RECORDING};

    fn file(name: &str, mebibytes: u64) -> File {
        File { name: name.to_owned(), path: PathBuf::new(), bytes: mebibytes << 20 }
    }

    fn names(files: Vec<File>) -> (Vec<String>, Vec<String>) {
        let (files, undelivered) = fitting(files);
        (files.into_iter().map(|file| file.name).collect(), undelivered)
    }

    #[test]
    fn what_is_over_a_limit_is_left_out_and_said() {
        let (files, undelivered) = names(vec![file(BUNDLE, 300), file(OUTPUT, 1)]);
        assert_eq!(files, [OUTPUT]);
        assert_eq!(undelivered, [format!("{BUNDLE}: 300 MiB is over the limit of 256 MiB")]);
    }

    #[test]
    fn what_fits_in_all_goes_and_what_matters_most_goes_first() {
        let artifact = |number| file(&format!("{ARTIFACTS}{number}"), 16);
        let mut all = vec![file(BUNDLE, 256), file(PATCH, 64), file(OUTPUT, 80), file(RECORDING, 64)];
        all.extend((0..4).map(artifact));
        all.push(file("artifacts/small", 1));
        let (files, undelivered) = names(all);
        assert_eq!(files.len(), 7, "{files:?}");
        assert_eq!(files[4..], ["artifacts/0", "artifacts/1", "artifacts/small"]);
        assert_eq!(undelivered.len(), 2);
        assert!(undelivered[0].contains("over its limit of 512 MiB"), "{undelivered:?}");
    }

    fn report() -> Report {
        serde_json::from_value(serde_json::json!({
            "run": {"namespace": "team", "name": "a", "uid": "u-1"}, "place": "p", "digest": "v1:a",
            "end": {"exited": {"code": 0}}, "record": {"verdict": null, "summary": "", "usage": null, "session": null},
            "startedAt": null, "endedAt": null, "startup": {}, "egressProof": null,
            "egress": {"allowed": 0, "denied": 0}, "limitsNotEnforced": [],
            "changes": {"base": null, "head": null, "commits": 0, "files": 0, "additions": 0, "deletions": 0},
            "notes": [], "artifacts": [{"path": "a/b", "bytes": 3, "cut": false}]
        }))
        .unwrap()
    }

    fn packed(folder: &Folder) -> (Report, Vec<String>) {
        let bytes = fs::read(delivery::result_file(folder)).unwrap();
        let digest = fs::read_to_string(delivery::digest_file(folder)).unwrap();
        assert_eq!(digest, format!("sha256:{:x}", Sha256::digest(&bytes)));
        let mut report = None;
        let mut names = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            match entry.path().unwrap().to_str().unwrap() {
                REPORT => report = Some(serde_json::from_reader(entry).unwrap()),
                name => names.push(name.to_owned()),
            }
        }
        (report.unwrap(), names)
    }

    #[test]
    fn the_largest_file_goes_until_the_report_is_left() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().to_owned());
        let collected = folder.outbox().join("collected");
        fs::create_dir_all(collected.join("artifacts")).unwrap();
        fs::write(collected.join("artifacts/0"), "art").unwrap();
        fs::write(collected.join(PATCH), vec![b'p'; 3000]).unwrap();
        fs::write(folder.outbox().join(OUTPUT), vec![b'o'; 2000]).unwrap();
        // A file with a hole: it takes no room, and its length counts.
        fs::File::create(collected.join(BUNDLE)).unwrap().set_len(300 << 20).unwrap();
        write(&folder, report()).unwrap();
        let (first, names) = packed(&folder);
        assert_eq!(names, [PATCH, OUTPUT, "artifacts/a/b"]);
        assert_eq!(first.undelivered.len(), 1, "{:?}", first.undelivered);
        assert!(!collected.exists());
        for left in [&[OUTPUT, "artifacts/a/b"][..], &["artifacts/a/b"], &[]] {
            assert!(take_out(&folder, "too much").unwrap());
            assert_eq!(packed(&folder).1, left);
        }
        assert!(!take_out(&folder, "too much").unwrap());
        let said = packed(&folder).0.undelivered;
        assert_eq!(
            said[1..],
            [PATCH, OUTPUT, "artifacts/a/b"].map(|name| format!("{name} of 1 MiB: too much"))
        );
    }
}
