//! Clones with the run's own credential.

use std::{num::NonZeroU32, path::Path, sync::atomic::AtomicBool, time::Duration};

use crate::{
    git::{
        self, Location, Remote,
        worktree::{self, CheckoutError, Revision},
    },
    harness::{
        control::{GitSecret, Given},
        sidecar::NotStarted,
    },
    kinds::Reason,
    names::CommitId,
    ports::workloads::Checkout,
};

/// How long a clone may take.
const CLONE_TIME: Duration = Duration::from_mins(10);

/// Clones into an empty folder.
pub(super) fn check_out(
    checkout: &Checkout,
    given: &Given,
    directory: &Path,
    interrupt: &AtomicBool,
) -> Result<CommitId, NotStarted> {
    let location: Location =
        checkout.url.parse().map_err(NotStarted::because(Reason::CloneFailed, "the repository's URL"))?;
    let mut remote = Remote::builder(location.clone()).timeout(CLONE_TIME);
    if let Some(secret) = &checkout.secret {
        let found = given.git.iter().find(|given| given.secret == *secret && given.url == checkout.url);
        let found = found.ok_or_else(|| NotStarted {
            reason: Reason::SecretNotFound,
            message: format!("Secret {secret} was not given to this run"),
        })?;
        remote = remote.credential(
            git::secret::credential(&location, |key| value(found, key))
                .map_err(NotStarted::because(Reason::SecretNotAllowed, "the credential"))?,
        );
        if let Some(ca) = value(found, "ca.crt") {
            remote = remote.ca(ca);
        }
    }
    let remote = remote.build().map_err(NotStarted::because(Reason::CloneFailed, &checkout.url))?;
    let work = worktree::Checkout {
        remote: &remote,
        revision: revision(checkout)?,
        branch: checkout.branch.clone(),
        depth: NonZeroU32::new(checkout.depth),
        limits: git::Limits::default(),
    };
    let done = work.run(directory, interrupt).map_err(|error| {
        let refused = matches!(
            &error,
            CheckoutError::Fetch(source)
                if matches!(**source, git::Error::Unauthenticated { .. } | git::Error::Forbidden { .. })
        );
        let reason = if refused { Reason::CloneUnauthorized } else { Reason::CloneFailed };
        NotStarted::because(reason, format!("cloning {}", checkout.url))(error)
    })?;
    done.commit.to_string().parse().map_err(NotStarted::because(Reason::CloneFailed, "the commit"))
}

fn revision(checkout: &Checkout) -> Result<Revision, NotStarted> {
    let Some(reference) = &checkout.reference else { return Ok(Revision::Head) };
    Ok(match (&reference.branch, &reference.tag, &reference.commit) {
        (Some(branch), ..) => Revision::Branch(branch.clone()),
        (_, Some(tag), _) => Revision::Tag(tag.clone()),
        (_, _, Some(commit)) => Revision::Commit(
            commit.parse().map_err(NotStarted::because(Reason::CloneFailed, "the commit to clone"))?,
        ),
        _ => Revision::Head,
    })
}

fn value<'a>(secret: &'a GitSecret, key: &str) -> Option<&'a [u8]> {
    secret.data.iter().find(|(name, _)| name == key).map(|(_, value)| value.expose())
}
