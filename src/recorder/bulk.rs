//! Patch, output, recording, artifacts and bundle as one commit of their own. Blocking.

use std::{io::Read, path::Path};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::Error;
use crate::{
    git::{
        CommitId, Repository,
        commit::{Change, Draft, Identity, Message, Outcome},
        sign::SigningKey,
    },
    ledger::{
        RunName, digest,
        entry::{Bulk, BulkFile},
        trailers,
    },
    report::Delivery,
};

/// Makes the commit; `None` when there is nothing to keep. `skip` leaves a file out.
pub(super) fn commit(
    repository: &Repository,
    delivery: &Delivery,
    skip: Option<&str>,
    author: &Identity,
    key: &SigningKey,
    time: Timestamp,
) -> Result<Option<(CommitId, Bulk)>, Error> {
    let run = RunName::new(delivery.report.run.namespace.clone(), delivery.report.run.name.clone());
    let mut bulk = Bulk { reference: run.bulk_ref(), files: std::collections::BTreeMap::new() };
    let mut changes = Vec::new();
    for (name, length) in delivery.files.iter().filter(|(name, _)| Some(name.as_str()) != skip) {
        let content = read(&delivery.folder.join(name), *length)?;
        let file = BulkFile { sha256: digest::hex(&Sha256::digest(&content)), bytes: content.len() as u64 };
        bulk.files.insert(name.clone(), file);
        changes.push(Change::Write { path: name.clone(), content });
    }
    if changes.is_empty() {
        return Ok(None);
    }
    let (name, uid) = (run.to_string(), delivery.report.run.uid.to_string());
    let labels = [
        (trailers::RUN, name.as_str()),
        (trailers::RUN_UID, &uid),
        (trailers::DIGEST, &delivery.report.digest),
    ];
    let draft = Draft {
        parent: None,
        changes,
        author: author.clone(),
        committer: author.clone(),
        time,
        message: Message::new(&format!("bulk {run}"), "", &labels)?,
    };
    match draft.write(repository, Some(key))? {
        Outcome::Written(id) => Ok(Some((id, bulk))),
        Outcome::Unchanged => Ok(None),
    }
}

fn read(path: &Path, length: u64) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { what: "reading a bulk file of the spool", source };
    let mut content = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(length).read_to_end(&mut content).map_err(io)?;
    Ok(content)
}
