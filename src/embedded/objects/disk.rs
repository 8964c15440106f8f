//! The store's folder: one redb file and a lock that names its holder.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::{
    kinds::{Kind, ObjectId},
    names::Uid,
    ports::objects::Told,
};

const OBJECTS: TableDefinition<(&str, &str, &str), &[u8]> = TableDefinition::new("objects");
const TOLD: TableDefinition<(&str, &str, &str), &[u8]> = TableDefinition::new("told");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<&str, &str> = TableDefinition::new("texts");

/// The layout of the tables; a store of a higher one is refused.
const FORMAT: u64 = 1;
/// Memory that redb may use for pages. All objects are in our own memory, so that it only serves writes.
const CACHE_BYTES: usize = 8 << 20;
/// How long a child of another thread may hold the database, from its fork to its program; on a slow machine that is long.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {} is in use{}", folder.display(), holder.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process that has it, where it could be read.
        holder: Option<i32>,
    },
    /// There is no store.
    #[error("there is no store in {}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// A newer version made it.
    #[error("the store in {} has format {found}; this version reads up to {FORMAT}", folder.display())]
    TooNew {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Something in it cannot be read.
    #[error("the store in {} is damaged: {what}", folder.display())]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What cannot be read.
        what: String,
    },
    /// The file system is in the way.
    #[error("{} cannot be opened", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database is in the way.
    #[error("the database in {} cannot be read", folder.display())]
    Database {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
}

/// What a folder held when it was opened.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) id: Uid,
    pub(super) version: u64,
    /// Objects with their bytes as JSON.
    pub(super) objects: Vec<(ObjectId, Value, usize)>,
    pub(super) told: Vec<Vec<Told>>,
}

/// What one commit changes; `None` removes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) version: u64,
    pub(super) objects: BTreeMap<ObjectId, Option<Vec<u8>>>,
    pub(super) told: BTreeMap<ObjectId, Option<Vec<u8>>>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.told.is_empty()
    }
}

/// An open folder. It is locked until this is dropped.
pub(super) struct Disk {
    // before the lock, so that the file is closed when the lock goes
    database: Database,
    _lock: Lock,
}

impl Disk {
    /// Opens a folder for writing, making it when there is none.
    pub(super) fn open(folder: &Path) -> Result<(Self, Loaded), OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
        let lock = lock(folder, FlockOperation::NonBlockingLockExclusive)?;
        let path = folder.join("objects.redb");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let create = || Database::builder().set_cache_size(CACHE_BYTES).create_file(options.open(&path)?);
        let database = patiently(create).map_err(|source| database_error(folder)(source.into()))?;
        let loaded =
            prepare(&database).map_err(database_error(folder)).and_then(|()| load(folder, &database))?;
        Ok((Self { database, _lock: lock }, loaded))
    }

    /// Reads a folder that nobody writes to at the moment, and lets it go.
    pub(super) fn read(folder: &Path) -> Result<Loaded, OpenError> {
        let path = folder.join("objects.redb");
        if !path.exists() {
            return Err(OpenError::Missing { folder: folder.to_owned() });
        }
        let lock = lock(folder, FlockOperation::NonBlockingLockShared)?;
        match patiently(|| Database::builder().set_cache_size(CACHE_BYTES).open_read_only(&path)) {
            Ok(database) => load(folder, &database),
            Err(redb::DatabaseError::RepairAborted) => {
                // its last writer was killed: only a writer can repair it
                drop(lock);
                Self::open(folder).map(|(_, loaded)| loaded)
            }
            Err(error) => Err(database_error(folder)(error.into())),
        }
    }

    /// Writes a batch; it is on the disk when this returns, unless it only tells.
    pub(super) fn commit(&self, batch: &Batch) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        if batch.objects.is_empty() {
            transaction.set_durability(Durability::None)?;
        }
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (id, bytes) in &batch.objects {
                put(&mut objects, id, bytes.as_deref())?;
            }
            let mut told = transaction.open_table(TOLD)?;
            for (id, bytes) in &batch.told {
                put(&mut told, id, bytes.as_deref())?;
            }
            transaction.open_table(NUMBERS)?.insert("version", batch.version)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn put(
    table: &mut redb::Table<'_, (&str, &str, &str), &[u8]>,
    id: &ObjectId,
    bytes: Option<&[u8]>,
) -> Result<(), redb::StorageError> {
    let key = (id.kind.as_str(), id.namespace.as_str(), id.name.as_str());
    match bytes {
        Some(bytes) => table.insert(key, bytes)?,
        None => table.remove(key)?,
    };
    Ok(())
}

fn database_error(folder: &Path) -> impl FnOnce(redb::Error) -> OpenError {
    let folder = folder.to_owned();
    move |source| OpenError::Database { folder, source: Box::new(source) }
}

fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(OBJECTS)?;
        transaction.open_table(TOLD)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        if numbers.get("format")?.is_none() {
            numbers.insert("format", FORMAT)?;
        }
        let mut texts = transaction.open_table(TEXTS)?;
        if texts.get("id")?.is_none() {
            texts.insert("id", uuid::Uuid::new_v4().to_string().as_str())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn load(folder: &Path, database: &impl ReadableDatabase) -> Result<Loaded, OpenError> {
    let damaged = |what: String| OpenError::Damaged { folder: folder.to_owned(), what };
    let raw = read_all(database).map_err(database_error(folder))?;
    if raw.format > FORMAT {
        return Err(OpenError::TooNew { folder: folder.to_owned(), found: raw.format });
    }
    let id = raw.id.parse().map_err(|_| damaged("its id".to_owned()))?;
    let mut objects = Vec::new();
    for (key, bytes) in raw.objects {
        let id = object_id(&key).ok_or_else(|| damaged(key.join("/")))?;
        let value = serde_json::from_slice(&bytes).map_err(|_| damaged(id.to_string()))?;
        objects.push((id, value, bytes.len()));
    }
    // a told line that cannot be read is no reason to refuse the objects
    let told = raw.told.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect();
    Ok(Loaded { id, version: raw.version, objects, told })
}

type Rows = Vec<([String; 3], Vec<u8>)>;

struct Raw {
    format: u64,
    version: u64,
    id: String,
    objects: Rows,
    told: Rows,
}

fn read_all(database: &impl ReadableDatabase) -> Result<Raw, redb::Error> {
    let transaction = database.begin_read()?;
    let rows = |definition: TableDefinition<(&str, &str, &str), &[u8]>| -> Result<Rows, redb::Error> {
        let table = transaction.open_table(definition)?;
        let mut rows = Rows::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let (kind, namespace, name) = key.value();
            rows.push(([kind, namespace, name].map(str::to_owned), value.value().to_vec()));
        }
        Ok(rows)
    };
    let numbers = transaction.open_table(NUMBERS)?;
    let number = |key| Ok::<_, redb::Error>(numbers.get(key)?.map_or(0, |value| value.value()));
    let texts = transaction.open_table(TEXTS)?;
    let id = texts.get("id")?.map(|text| text.value().to_owned()).unwrap_or_default();
    Ok(Raw {
        format: number("format")?,
        version: number("version")?,
        id,
        objects: rows(OBJECTS)?,
        told: rows(TOLD)?,
    })
}

fn object_id([kind, namespace, name]: &[String; 3]) -> Option<ObjectId> {
    let kind: Kind = kind.parse().ok()?;
    Some(ObjectId::new(kind, namespace.parse().ok()?, name.parse().ok()?))
}

/// Opens a database whose folder is locked by us: who else has it open is a child that another thread is just starting and
/// that is not yet at its program, so that it goes by itself.
fn patiently<T>(open: impl Fn() -> Result<T, redb::DatabaseError>) -> Result<T, redb::DatabaseError> {
    let deadline = Instant::now() + OPEN_TIME;
    loop {
        match open() {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// The folder's lock, given back on drop: closing the file alone would not do while a child that another thread is just
/// starting, not yet at its program, holds it, too.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the folder's lock, which goes with the process. An exclusive holder writes its process id into the file.
fn lock(folder: &Path, operation: FlockOperation) -> Result<Lock, OpenError> {
    let path = folder.join("lock");
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io)?;
    match flock(&file, operation) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = (&file).take(32).read_to_string(&mut text);
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::InUse { folder: folder.to_owned(), holder });
        }
        Err(errno) => return Err(io(errno.into())),
    }
    if operation == FlockOperation::NonBlockingLockExclusive {
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
    }
    Ok(Lock(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_although_a_child_still_holds_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let exclusive = || lock(folder.path(), FlockOperation::NonBlockingLockExclusive);
        let first = exclusive().unwrap();
        assert!(matches!(exclusive(), Err(OpenError::InUse { .. })));
        // As a fork does, until it executes its program.
        let inherited = first.0.try_clone().unwrap();
        drop(first);
        exclusive().unwrap();
        drop(inherited);
    }
}
