//! Packs the report and its bulk into one stream with one digest.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::{
    harness::{delivery, place::Folder, sidecar::Sidecar},
    report::{ARTIFACTS, BULK, REPORT, Report},
};

/// Writes the stream to the outbox; what was collected goes.
pub(in crate::harness) async fn pack(sidecar: &Arc<Sidecar>, report: Report) -> io::Result<()> {
    let folder = sidecar.folder.clone();
    let packed = tokio::task::spawn_blocking(move || write(&folder, &report)).await;
    packed.map_err(io::Error::other)?
}

fn write(folder: &Folder, report: &Report) -> io::Result<()> {
    let outbox = folder.outbox();
    let mut file = tempfile::NamedTempFile::new_in(&outbox)?;
    let mut hashed = Hashed { to: file.as_file_mut(), hash: Sha256::new() };
    stream(&outbox, report, &mut hashed)?;
    let digest = format!("sha256:{:x}", hashed.hash.finalize());
    file.as_file().sync_all()?;
    super::super::place::write_atomically(&delivery::digest_file(folder), digest.as_bytes())?;
    file.persist(delivery::result_file(folder))?;
    fs::File::open(&outbox)?.sync_all()?;
    match fs::remove_dir_all(outbox.join("collected")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn stream(outbox: &Path, report: &Report, to: &mut impl Write) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    let json = serde_json::to_vec(report)?;
    tar.append_data(&mut header(json.len() as u64), REPORT, json.as_slice())?;
    for name in BULK {
        let places = [outbox.join(name), outbox.join("collected").join(name)];
        append(&mut tar, places.iter().find(|path| path.exists()), name)?;
    }
    for (number, artifact) in report.artifacts.iter().enumerate() {
        let path: PathBuf = outbox.join("collected/artifacts").join(number.to_string());
        append(&mut tar, artifact.bytes.map(|_| &path), &format!("{ARTIFACTS}{}", artifact.path))?;
    }
    tar.into_inner()?.flush()
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: Option<&PathBuf>, name: &str) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let found = fs::symlink_metadata(path)?;
    if !found.is_file() {
        return Err(io::Error::other(format!("{name} in the outbox is not a file")));
    }
    tar.append_data(&mut header(found.len()), name, fs::File::open(path)?)
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
