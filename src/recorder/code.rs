//! The agent's commits as a branch of the code repository. Blocking.

use std::{fs::File, path::Path, sync::atomic::AtomicBool};

use kube::ResourceExt;

use super::{Error, write::refuses};
use crate::{
    git::{
        self, CommitId, FetchRequest, Limits, Mirror, Remote, bundle, protected,
        push::{self, Outcome, Push, Rejection, Update},
    },
    kinds::{
        HarnessRun, Reason, Session, harness_run,
        shared::{CodeRepository, NameRef},
    },
    ledger::entry,
    names::BranchName,
    report::{BUNDLE, Delivery},
};

/// Below this, and nowhere else, the agents' branches are.
const PREFIX: &str = "ostler/";
/// The ledger's namespace of branches.
const LEDGER: &str = "results";
/// How often somebody else may be first.
const ATTEMPTS: u32 = 4;

/// What is to be pushed, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// The repository.
    pub(super) repository: CodeRepository,
    /// The Secret with the push credential.
    pub(super) secret: Option<NameRef>,
    branch: BranchName,
    base: CommitId,
    head: CommitId,
}

/// Decides whether there is something to push; if not, says why. Pure.
pub(super) fn wanted(
    run: &HarnessRun,
    session: Option<&Session>,
    delivery: &Delivery,
) -> Result<Wanted, entry::Push> {
    let withheld = |reason, message: &str| entry::Push::withheld(reason, None, message);
    let Some(push) = run.spec.result.as_ref().and_then(|result| result.push.as_ref()) else {
        return Err(withheld(Reason::PushNotRequested, ""));
    };
    let changes = &delivery.report.changes;
    let (Some(base), Some(head)) = (&changes.base, &changes.head) else {
        return Err(withheld(Reason::NoChanges, "the workspace is not a checkout"));
    };
    if changes.commits == 0 || base == head {
        return Err(withheld(Reason::NoChanges, "the agent made no commit"));
    }
    let branch = branch_of(run, push).map_err(|why| withheld(Reason::BranchRefused, &why))?;
    let named = |reason, message: &str| entry::Push::withheld(reason, Some(branch.to_string()), message);
    if !delivery.files.iter().any(|(name, _)| name == BUNDLE) {
        let why = delivery.report.undelivered.iter().find(|why| why.starts_with(BUNDLE));
        let why = why.map_or("the report speaks of commits but brought no bundle", String::as_str);
        return Err(named(Reason::BundleRefused, why));
    }
    let repository = run.spec.repository.clone().or_else(|| session.and_then(|s| s.spec.repository.clone()));
    let Some(repository) = repository else {
        return Err(named(Reason::BranchRefused, "the run has no repository to push to"));
    };
    let id = |id: &crate::names::CommitId| id.as_str().parse().expect("both are 40 hexadecimal digits");
    let secret = push.secret_ref.clone().or_else(|| repository.secret_ref.clone());
    Ok(Wanted { repository, secret, base: id(base), head: id(head), branch })
}

fn branch_of(run: &HarnessRun, push: &harness_run::Push) -> Result<BranchName, String> {
    let namespace = run.namespace().unwrap_or_default();
    if namespace == LEDGER {
        return Err("branches of namespace \"results\" would stand where the ledger stands".to_owned());
    }
    let template = push.branch.as_deref().unwrap_or("ostler/{namespace}/{run}");
    let text = template.replace("{namespace}", &namespace).replace("{run}", &run.name_any());
    let Some(below) = text.strip_prefix(PREFIX) else {
        return Err(format!("branch {text:?} is not below {PREFIX}"));
    };
    if below == LEDGER || below.starts_with("results/") {
        return Err(format!("branch {text:?} would stand where the ledger stands"));
    }
    text.parse().map_err(|error: crate::names::InvalidName| error.to_string())
}

/// Pushes. What the remote or the rules say no to is an answer; errors are worth another try.
pub(super) fn push(
    wanted: &Wanted,
    delivery: &Delivery,
    folder: &Path,
    remote: &Remote,
    interrupt: &AtomicBool,
) -> Result<entry::Push, Error> {
    let withheld =
        |reason, message: String| Ok(entry::Push::withheld(reason, Some(wanted.branch.to_string()), message));
    let reference = wanted.branch.to_ref();
    let quarantine = Quarantine::open(folder)?;
    let mirror = &quarantine.mirror;
    let mut accepted = None;
    for _ in 0..ATTEMPTS {
        let old = match fetch(mirror, wanted, &reference, remote, interrupt) {
            Ok(old) => old,
            Err(error) if refuses(&error) => return withheld(Reason::PushRefused, error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if old == Some(wanted.head) {
            return Ok(pushed(wanted));
        }
        if accepted.is_none() {
            match take_in(mirror, wanted, delivery, interrupt)? {
                Ok(bundle) => accepted = Some(bundle),
                Err((reason, message)) => return withheld(reason, message),
            }
        }
        let leads = |old: CommitId| {
            old == wanted.base || accepted.as_ref().is_some_and(|bundle| bundle.commits.contains(&old))
        };
        if let Some(old) = old.filter(|old| !leads(*old)) {
            return withheld(
                Reason::BranchDiverged,
                format!("the branch is at {old}, which the agent's work is not built on"),
            );
        }
        let update = Update::new(&reference, old, wanted.head)?;
        let report = match Push::new(vec![update])?.known([wanted.base]).send(
            mirror.repository(),
            remote,
            interrupt,
        ) {
            Ok(report) => report,
            // Fetching again shows whether it took effect.
            Err(push::Error::Unknown(_)) => continue,
            Err(push::Error::Remote(error)) if refuses(&error) => {
                return withheld(Reason::PushRefused, error.to_string());
            }
            Err(error) => return Err(error.into()),
        };
        match report.refs.into_iter().next().map(|(_, outcome)| outcome) {
            Some(Outcome::Done) => return Ok(pushed(wanted)),
            Some(Outcome::Rejected(Rejection::Stale)) | None => {}
            Some(Outcome::Rejected(rejection @ Rejection::NotFastForward)) => {
                return withheld(Reason::BranchDiverged, rejection.to_string());
            }
            Some(Outcome::Rejected(rejection)) => {
                return withheld(Reason::PushRefused, rejection.to_string());
            }
        }
    }
    Err(Error::Contended(ATTEMPTS))
}

fn pushed(wanted: &Wanted) -> entry::Push {
    entry::Push {
        pushed: true,
        reason: Reason::BranchPushed,
        branch: Some(wanted.branch.to_string()),
        message: format!("at {}", wanted.head),
    }
}

/// Brings the base and says where the branch stands.
fn fetch(
    mirror: &Mirror,
    wanted: &Wanted,
    reference: &str,
    remote: &Remote,
    interrupt: &AtomicBool,
) -> Result<Option<CommitId>, git::Error> {
    let limits = Limits::default();
    let branch = FetchRequest::new().reference(reference, true)?;
    if !mirror.repository().has_commit(wanted.base) {
        let by_name = mirror.fetch(remote, &branch.clone().commit(wanted.base), &limits, interrupt);
        match by_name {
            Err(
                git::Error::NotFound { .. } | git::Error::Refused { .. } | git::Error::Unsupported { .. },
            ) => {
                // The server gives no commits by name: the base is somewhere in the branches.
                mirror.fetch(
                    remote,
                    &FetchRequest::new().below("refs/heads")?.depth(None),
                    &limits,
                    interrupt,
                )?;
            }
            other => {
                other?;
            }
        }
    }
    let fetched = mirror.fetch(remote, &branch, &limits, interrupt)?;
    Ok(fetched.tips.get(reference).map(|tip| tip.commit))
}

/// Accepts the bundle, or says why not.
fn take_in(
    mirror: &Mirror,
    wanted: &Wanted,
    delivery: &Delivery,
    interrupt: &AtomicBool,
) -> Result<Result<bundle::Accepted, (Reason, String)>, Error> {
    let file = File::open(delivery.folder.join(BUNDLE))
        .map_err(|source| Error::Io { what: "opening the bundle in the spool", source })?;
    let limits = bundle::Limits::default();
    let accepted = match bundle::accept(mirror.repository(), wanted.base, file, &limits, interrupt) {
        Ok(accepted) => accepted,
        Err(error @ bundle::Error::Store { .. }) => return Err(Error::Bundle(error)),
        Err(error) => return Ok(Err((Reason::BundleRefused, crate::telemetry::Chain(&error).to_string()))),
    };
    if !accepted.heads.iter().any(|(_, head)| *head == wanted.head) {
        return Ok(Err((Reason::BundleRefused, format!("the bundle does not lead to {}", wanted.head))));
    }
    let rules = protected::Rules::ci_and(&[]).expect("our own globs compile");
    let touched = protected::protected(accepted.paths.iter().map(String::as_str), &rules);
    if touched.is_empty() {
        return Ok(Ok(accepted));
    }
    let shown = touched.iter().take(8).copied().collect::<Vec<_>>().join(", ");
    let message =
        format!("{} protected paths are touched ({shown}); the bundle is kept in the record", touched.len());
    Ok(Err((Reason::ProtectedPath, message)))
}

/// A mirror that goes with its scope: what an agent made is kept nowhere else.
struct Quarantine {
    mirror: Mirror,
    _folder: tempfile::TempDir,
}

impl Quarantine {
    fn open(parent: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { what: "making a quarantine", source };
        std::fs::create_dir_all(parent).map_err(io)?;
        let folder = tempfile::Builder::new().prefix("code-").tempdir_in(parent).map_err(io)?;
        Ok(Self { mirror: Mirror::open_or_init(folder.path())?, _folder: folder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::harness_run::{HarnessRunSpec, Push};

    fn branch(namespace: &str, template: Option<&str>) -> Result<String, String> {
        let mut run = HarnessRun::new("fix", HarnessRunSpec::default());
        run.metadata.namespace = Some(namespace.to_owned());
        let push = Push { branch: template.map(str::to_owned), secret_ref: None };
        branch_of(&run, &push).map(|branch| branch.to_string())
    }

    #[test]
    fn branches_stay_below_ostler_and_off_the_ledger() {
        assert_eq!(branch("team", None).unwrap(), "ostler/team/fix");
        assert_eq!(branch("team", Some("ostler/x-{run}")).unwrap(), "ostler/x-fix");
        for bad in ["main", "ostlerx/a", "ostler/results", "ostler/results/a", "ostler/a..b", "ostler/"] {
            assert!(branch("team", Some(bad)).is_err(), "{bad}");
        }
        assert!(branch("results", None).is_err());
    }
}
