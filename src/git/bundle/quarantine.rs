//! Takes an untrusted bundle in: index its pack in a folder of its own, check it, and only then move it into the repository.

use std::{
    cell::Cell,
    collections::HashSet,
    fs,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use gix::{ObjectId, Repository};

use crate::git::{self, CommitId};

use super::{Accepted, Error, Limits, check::Quarantined, file, header, store};

/// Bytes of a pack before its first object.
const PACK_HEADER: usize = 12;

/// Reads a bundle whose commits must all descend from `base`, checks every object and makes them part of `repository`.
/// No reference is touched and no program is run. On any error the repository is as before.
pub fn accept(
    repository: &git::Repository,
    base: CommitId,
    source: impl Read,
    limits: &Limits,
    interrupt: &AtomicBool,
) -> Result<Accepted, Error> {
    let (repository, base) = (&repository.local(), base.get());
    if repository.find_commit(base).is_err() {
        return Err(Error::NoBase(base));
    }
    let mut source = BufReader::new(Capped { inner: source, left: limits.bytes, exceeded: Cell::new(false) });
    let result = take_in(repository, base, &mut source, limits, interrupt);
    match result {
        // Running into the cap looks like a cut-off file to everything below.
        Err(_) if source.get_ref().exceeded.get() => Err(Error::Limit { what: "bytes", limit: limits.bytes }),
        result => result,
    }
}

fn take_in(
    repository: &Repository,
    base: ObjectId,
    source: &mut dyn BufRead,
    limits: &Limits,
    interrupt: &AtomicBool,
) -> Result<Accepted, Error> {
    let header = header::read(source)?;
    if let Some(other) = header.prerequisites.iter().find(|id| **id != base) {
        return Err(Error::Prerequisite(*other));
    }
    let start = pack_start(source, limits)?;
    let mut pack = Cursor::new(start).chain(source);

    // Inside the repository's folder, so that moving the pack out is a rename.
    let folder = tempfile::Builder::new()
        .prefix("ostler-quarantine-")
        .tempdir_in(repository.common_dir())
        .map_err(file("making a quarantine"))?;
    gix::init_bare(folder.path()).map_err(store("making a quarantine"))?;
    let objects = folder.path().join("objects");
    let indexed = index(repository, &mut pack, &objects.join("pack"), limits, interrupt)?;
    let ids = ids(&indexed)?;

    let ours = absolute(repository.objects.store_ref().path())?;
    let alternates = [ours.as_os_str().as_encoded_bytes(), b"\n"].concat();
    fs::write(objects.join("info/alternates"), alternates).map_err(file("making a quarantine"))?;
    let quarantine = git::repository::options()
        .open(folder.path())
        .map_err(store("opening the quarantine"))?
        .to_thread_local();
    let quarantined = Quarantined {
        repository: &quarantine,
        ours: repository,
        base,
        pack: &ids,
        limits,
        bytes: Cell::new(0),
    };
    let commits = quarantined.check(&header.heads)?;
    let paths = quarantined.paths(&commits)?;
    release(&indexed, &ours.join("pack"))?;
    let heads = header.heads.into_iter().map(|(name, id)| (name, CommitId::new(id))).collect();
    Ok(Accepted { heads, commits: commits.into_iter().map(|(id, _)| CommitId::new(id)).collect(), paths })
}

/// Looks at the number of objects before anything is done with them.
fn pack_start(source: &mut dyn BufRead, limits: &Limits) -> Result<[u8; PACK_HEADER], Error> {
    let mut start = [0; PACK_HEADER];
    source.read_exact(&mut start).map_err(file("reading the pack"))?;
    let (version, objects) = gix_pack::data::header::decode(&start).map_err(Error::Index)?;
    if version != gix_pack::data::Version::V2 {
        return Err(Error::Header("a pack of another version than 2"));
    }
    match objects {
        0 => Err(Error::Empty),
        n if n > limits.objects => Err(Error::Limit { what: "objects", limit: u64::from(limits.objects) }),
        _ => Ok(start),
    }
}

fn index(
    repository: &Repository,
    pack: &mut dyn BufRead,
    folder: &Path,
    limits: &Limits,
    interrupt: &AtomicBool,
) -> Result<gix_pack::bundle::write::Outcome, Error> {
    let options = gix_pack::bundle::write::Options {
        thread_limit: Some(1),
        iteration_mode: gix_pack::data::input::Mode::Verify,
        alloc_limit_bytes: Some(usize::try_from(limits.object_bytes).unwrap_or(usize::MAX)),
        ..Default::default()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (alarm, deadline) = (Arc::clone(&stop), std::time::Instant::now() + limits.time);
        scope.spawn(move || {
            let tick = std::time::Duration::from_millis(50);
            while ended.recv_timeout(tick) == Err(mpsc::RecvTimeoutError::Timeout) {
                if interrupt.load(Ordering::Relaxed) || std::time::Instant::now() > deadline {
                    alarm.store(true, Ordering::Relaxed);
                }
            }
        });
        let outcome = gix_pack::Bundle::write_to_directory(
            &mut { pack },
            Some(folder),
            &mut gix::progress::Discard,
            &stop,
            Some(repository.objects.clone()),
            gix::hash::Kind::Sha1,
            options,
        );
        drop(done);
        outcome.map_err(Error::Index)
    })
}

fn ids(indexed: &gix_pack::bundle::write::Outcome) -> Result<HashSet<ObjectId>, Error> {
    let path = indexed.index_path.as_ref().ok_or(Error::Empty)?;
    let index = gix_pack::index::File::at(path, gix::hash::Kind::Sha1).map_err(Error::Index)?;
    Ok(index.iter().map(|entry| entry.oid).collect())
}

/// The pack first and its index last: a pack is there for readers once its index is.
fn release(indexed: &gix_pack::bundle::write::Outcome, folder: &Path) -> Result<(), Error> {
    let doing = "moving the pack out of quarantine";
    fs::create_dir_all(folder).map_err(file(doing))?;
    for path in [&indexed.data_path, &indexed.index_path].into_iter().flatten() {
        let name = path.file_name().ok_or_else(|| file(doing)(io::ErrorKind::InvalidInput.into()))?;
        fs::File::open(path).and_then(|pack| pack.sync_all()).map_err(file(doing))?;
        fs::rename(path, folder.join(name)).map_err(file(doing))?;
    }
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(file(doing))
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Error> {
    path.canonicalize().map_err(file("finding the object store"))
}

/// Ends the input at the cap and remembers that it was the cap.
struct Capped<R> {
    inner: R,
    left: u64,
    exceeded: Cell<bool>,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let more = self.inner.read(&mut buffer[..1])?;
            self.exceeded.set(more > 0);
            return if more > 0 { Err(io::Error::other("more bytes than allowed")) } else { Ok(0) };
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}
