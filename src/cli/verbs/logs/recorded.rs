//! The output of an ended run, from the ledger's repository.

use std::{path::Path, sync::atomic::AtomicBool};

use kube::ResourceExt;

use super::super::Error;
use crate::{
    git::{self, FetchRequest, Limits, Location, Mirror, Remote, Repository},
    kinds::{ConfigRepository, HarnessRun, Kind, ObjectId, Session},
    ledger::RunName,
    ports::{
        Objects,
        objects::{self, typed},
    },
    report,
    resolve::record::{Record, record_of},
    telemetry::Chain,
};

/// Most bytes of an output; the sidecar keeps no more than 72 MiB.
const MAX_BYTES: u64 = 128 << 20;

/// Reads the output. A run that is gone is looked for in its namespace's only repository.
pub(super) async fn read(
    objects: &dyn Objects,
    id: &ObjectId,
    run: Option<&HarnessRun>,
) -> Result<Vec<u8>, Error> {
    let none = |why: &str| Error::NoLogs { run: id.clone(), why: why.to_owned() };
    let listed = match objects.list(Kind::ConfigRepository, None).await {
        // whoever may read one namespace only finds the repositories there
        Err(objects::Error::Forbidden(_)) => {
            objects.list(Kind::ConfigRepository, Some(&id.namespace)).await?
        }
        listed => listed?,
    };
    let known: Vec<ConfigRepository> = listed.into_iter().filter_map(|object| typed(object).ok()).collect();
    let repositories: Vec<&ConfigRepository> = known.iter().collect();
    let repository = if let Some(run) = run {
        let session = match &run.spec.session_ref {
            Some(session) => {
                let name = session.name.parse()?;
                objects::get::<Session>(objects, &id.namespace, &name).await?
            }
            None => None,
        };
        match record_of(run, session.as_ref(), &repositories) {
            Record::In(repository) => Some(repository),
            Record::Gone(name) => return Err(none(&format!("its repository {name} is gone"))),
            Record::Nowhere => return Err(none("it was recorded nowhere, and its place is gone")),
        }
    } else {
        let mut own = repositories.iter().filter(|r| r.namespace().as_deref() == Some(id.namespace.as_str()));
        own.next().copied().filter(|_| own.next().is_none())
    };
    let repository = repository.ok_or_else(|| Error::NotFound(id.clone()))?;
    let written = repository.spec.write_back.as_ref().and_then(|back| back.url.clone());
    let url = written.unwrap_or_else(|| repository.spec.url.clone());
    let reference = RunName::new(id.namespace.clone(), id.name.clone()).bulk_ref();
    let (at, wanted) = (url.clone(), reference.clone());
    let found = tokio::task::spawn_blocking(move || fetch(&at, &wanted)).await;
    match found.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(none(&format!("{reference} of {url} holds no {}", report::OUTPUT))),
        Err(why) => Err(none(&format!(
            "{why}; with a credential of your own: git fetch {url} {reference} && git show FETCH_HEAD:{}",
            report::OUTPUT
        ))),
    }
}

/// Reads the file at a reference; from a remote without a credential, since the verbs hold none.
fn fetch(url: &str, reference: &str) -> Result<Option<Vec<u8>>, String> {
    let location: Location = url.parse().map_err(|error| Chain(&error).to_string())?;
    let found = if let Some(path) = location.path() {
        local(path, reference)
    } else {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        remote(location, scratch.path(), reference)
    };
    found.map_err(|error| Chain(&error).to_string())
}

fn local(path: &Path, reference: &str) -> Result<Option<Vec<u8>>, git::Error> {
    let repository = Repository::open(path)?;
    let commit = repository.resolve(reference)?;
    output(&repository, commit)
}

fn remote(location: Location, scratch: &Path, reference: &str) -> Result<Option<Vec<u8>>, git::Error> {
    let mirror = Mirror::open_or_init(scratch)?;
    let remote = Remote::builder(location).build()?;
    let request = FetchRequest::new().reference(reference, false)?;
    mirror.fetch(&remote, &request, &Limits::default(), &AtomicBool::new(false))?;
    match mirror.tip(reference)? {
        Some(commit) => output(mirror.repository(), commit),
        None => Ok(None),
    }
}

fn output(repository: &Repository, commit: git::CommitId) -> Result<Option<Vec<u8>>, git::Error> {
    let entry = repository.file(commit, report::OUTPUT, &Limits::default())?;
    entry.map(|entry| repository.blob(entry.blob, MAX_BYTES)).transpose()
}
