//! The output of an ended run, from the ledger's repository.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use kube::ResourceExt;

use super::super::Error;
use crate::{
    cli::target::Plane,
    git::{self, FetchRequest, Limits, Location, Mirror, Remote, Repository},
    kinds::{ConfigRepository, HarnessRun, Kind, ObjectId, Session},
    ledger::RunName,
    ports::objects::{self, typed},
    recorder, report,
    resolve::record::{Record, record_of},
    telemetry::Chain,
};

/// Most bytes of an output; the sidecar keeps no more than 72 MiB.
const MAX_BYTES: u64 = 128 << 20;

/// Where to look for ledgers, and for their credentials.
#[derive(Clone, Copy)]
pub(super) struct Ledger<'a> {
    pub(super) plane: &'a Plane,
    /// A folder of Secrets, instead of those of the plane.
    pub(super) secrets: Option<&'a Path>,
}

/// Reads the output. A run that is gone is looked for in its namespace's only repository.
pub(super) async fn read(
    ledger: Ledger<'_>,
    id: &ObjectId,
    run: Option<&HarnessRun>,
) -> Result<Vec<u8>, Error> {
    let none = |why: &str| Error::NoLogs { run: id.clone(), why: why.to_owned() };
    let objects = ledger.plane.objects();
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
    let location: Location = url.parse().map_err(|error| none(&Chain(&error).to_string()))?;
    let (source, withheld) = if let Some(path) = location.path() {
        (Source::Local(path.to_owned()), None)
    } else {
        let (remote, withheld) = remote_of(ledger, repository, location).await;
        (Source::Remote(Box::new(remote.map_err(|error| none(&error))?)), withheld)
    };
    let wanted = reference.clone();
    let found = tokio::task::spawn_blocking(move || fetch(&source, &wanted)).await;
    match found.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(none(&format!("{reference} of {url} holds no {}", report::OUTPUT))),
        Err(why) => {
            let withheld = withheld.map(|why| format!("{why}; and without it: ")).unwrap_or_default();
            Err(none(&format!(
                "{withheld}{why}; name a folder with that Secret by --secrets, or use git and a credential of your own: \
                 git fetch {url} {reference} && git show FETCH_HEAD:{}",
                report::OUTPUT
            )))
        }
    }
}

/// Where the ledger is.
enum Source {
    Local(PathBuf),
    Remote(Box<Remote>),
}

/// The ledger's remote. When its Secret cannot be had, it is tried without, since it may be open to all; the text says why.
async fn remote_of(
    ledger: Ledger<'_>,
    repository: &ConfigRepository,
    location: Location,
) -> (Result<Remote, String>, Option<String>) {
    let with_secret = async {
        let secrets = ledger.plane.secrets(ledger.secrets).map_err(|error| Chain(&error).to_string())?;
        recorder::remote(secrets.as_ref(), repository).await.map_err(|error| Chain(&error).to_string())
    };
    match with_secret.await {
        Ok(remote) => (Ok(remote), None),
        Err(why) => {
            let open = Remote::builder(location).build().map_err(|error| Chain(&error).to_string());
            (open, Some(why))
        }
    }
}

/// Reads the file at a reference.
fn fetch(source: &Source, reference: &str) -> Result<Option<Vec<u8>>, String> {
    let found = match source {
        Source::Local(path) => local(path, reference),
        Source::Remote(source) => {
            let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
            remote(source, scratch.path(), reference)
        }
    };
    found.map_err(|error| Chain(&error).to_string())
}

fn local(path: &Path, reference: &str) -> Result<Option<Vec<u8>>, git::Error> {
    let repository = Repository::open(path)?;
    let commit = repository.resolve(reference)?;
    output(&repository, commit)
}

fn remote(remote: &Remote, scratch: &Path, reference: &str) -> Result<Option<Vec<u8>>, git::Error> {
    let mirror = Mirror::open_or_init(scratch)?;
    let request = FetchRequest::new().reference(reference, false)?;
    mirror.fetch(remote, &request, &Limits::default(), &AtomicBool::new(false))?;
    match mirror.tip(reference)? {
        Some(commit) => output(mirror.repository(), commit),
        None => Ok(None),
    }
}

fn output(repository: &Repository, commit: git::CommitId) -> Result<Option<Vec<u8>>, git::Error> {
    let entry = repository.file(commit, report::OUTPUT, &Limits::default())?;
    entry.map(|entry| repository.blob(entry.blob, MAX_BYTES)).transpose()
}
