//! Clones with the run's own credential.

use std::{num::NonZeroU32, path::Path, sync::atomic::AtomicBool, time::Duration};

use crate::{
    git::{
        self, Location, Remote, RemoteBuilder,
        worktree::{self, CheckoutError, Revision},
    },
    harness::{
        control::{GitSecret, Given},
        place::PlaceFile,
        pod::Relay,
        sidecar::NotStarted,
    },
    kinds::Reason,
    names::CommitId,
    ports::workloads::Checkout,
    proxy::tunnel::{Client, OpenError},
};

/// How long a clone may take.
const CLONE_TIME: Duration = Duration::from_mins(10);

/// Where clones come from.
pub(super) enum Source<'a> {
    /// The repositories themselves, with the credentials that were given.
    Direct(&'a Given),
    /// The egress proxy of a cluster, which has the credentials.
    Tunnel(Client),
}

impl<'a> Source<'a> {
    /// That of a place.
    pub(super) fn of(place: &PlaceFile, given: &'a Given) -> Result<Self, NotStarted> {
        let Some(pod) = place.pod() else { return Ok(Self::Direct(given)) };
        pod.client().map(Self::Tunnel).map_err(NotStarted::because(Reason::PlaceFailed, "the egress proxy"))
    }

    /// Clones into an empty folder.
    pub(super) fn check_out(
        &self,
        checkout: &Checkout,
        directory: &Path,
        interrupt: &AtomicBool,
    ) -> Result<CommitId, NotStarted> {
        let location: Location =
            checkout.url.parse().map_err(NotStarted::because(Reason::CloneFailed, "the repository's URL"))?;
        match self {
            Self::Direct(given) => {
                let remote = credential(Remote::builder(location.clone()), &location, checkout, given)?;
                clone(remote, None, checkout, directory, interrupt)
            }
            Self::Tunnel(client) => {
                let what = format!("cloning {}", checkout.url);
                let relay = Relay::open(client.clone(), &checkout.url)
                    .map_err(NotStarted::because(Reason::CloneFailed, what.as_str()))?;
                let way: Location =
                    relay.url().parse().map_err(NotStarted::because(Reason::CloneFailed, what))?;
                let cloned = clone(Remote::builder(way), Some(location), checkout, directory, interrupt);
                cloned.map_err(|seen| relay.refusal().map_or(seen, |refusal| refused(checkout, refusal)))
            }
        }
    }
}

/// What the proxy said is the reason; Git only saw connections that ended.
fn refused(checkout: &Checkout, refusal: OpenError) -> NotStarted {
    let reason = match refusal {
        OpenError::Denied { .. } => Reason::CloneUnauthorized,
        _ => Reason::CloneFailed,
    };
    NotStarted::because(reason, format!("cloning {}", checkout.url))(refusal)
}

fn credential(
    mut remote: RemoteBuilder,
    location: &Location,
    checkout: &Checkout,
    given: &Given,
) -> Result<RemoteBuilder, NotStarted> {
    let Some(secret) = &checkout.secret else { return Ok(remote) };
    let found = given.git.iter().find(|given| given.secret == *secret && given.url == checkout.url);
    let found = found.ok_or_else(|| NotStarted {
        reason: Reason::SecretNotFound,
        message: format!("Secret {secret} was not given to this run"),
    })?;
    remote = remote.credential(
        git::secret::credential(location, |key| value(found, key))
            .map_err(NotStarted::because(Reason::SecretNotAllowed, "the credential"))?,
    );
    Ok(match value(found, "ca.crt") {
        Some(ca) => remote.ca(ca),
        None => remote,
    })
}

fn clone(
    remote: RemoteBuilder,
    origin: Option<Location>,
    checkout: &Checkout,
    directory: &Path,
    interrupt: &AtomicBool,
) -> Result<CommitId, NotStarted> {
    let remote = remote
        .timeout(CLONE_TIME)
        .build()
        .map_err(NotStarted::because(Reason::CloneFailed, &checkout.url))?
        .staying();
    let work = worktree::Checkout {
        remote: &remote,
        origin,
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
