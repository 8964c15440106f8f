//! What a `ConfigRepository` asks of its recorder, with defaults.

use std::time::Duration;

use jiff::tz::TimeZone;
use kube::ResourceExt;

use super::Error;
use crate::{
    git::{Location, commit::Identity, sign::SigningKey, signers::AllowedSigners},
    kinds::{
        ConfigRepository,
        config_repository::{Bulk, ClaimMode},
        shared::{DurationField, KeyRef},
    },
    names::{BranchName, Namespace, ObjectName},
};

/// The field that names whose entries count.
const FIELD: &str = "spec.writeBack.ledgerSigners";

/// The ledger's branch when none is named.
pub const BRANCH: &str = "ostler/results";

/// What a `ConfigRepository` asks of its recorder.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Where the `ConfigRepository` lives; its Secrets are there too.
    pub(super) namespace: Namespace,
    /// The ledger's repository.
    pub(super) location: Location,
    /// The ledger's branch.
    pub(super) branch: BranchName,
    /// The Secret with the push credential.
    pub(super) secret: Option<ObjectName>,
    /// The Secret for reading: the pull credential where the ledger is in the same repository, else the only one there is.
    pub(super) pull: Option<ObjectName>,
    /// The Secret with the HTTP proxy.
    pub(super) proxy: Option<ObjectName>,
    /// The Secret with the signing key; `None`: the one that came with the process.
    pub(super) signing_key: Option<KeyRef>,
    /// Whose entries prove something; empty: ours.
    pub(super) ledger_signers: Vec<String>,
    /// What makes a run start at most once.
    pub(super) claim: ClaimMode,
    /// How long to gather entries for one commit.
    pub(super) window: Duration,
    /// How long to try to record a result.
    pub(super) give_up_after: Duration,
    /// How often to look for what others pushed.
    pub(super) interval: Duration,
    /// Time limit of one operation on the remote.
    pub(super) timeout: Duration,
    /// Where bulk goes.
    pub(super) bulk: Bulk,
    /// Author of the commits.
    pub(super) author: Identity,
}

impl Settings {
    /// # Errors
    /// [`Error::Settings`] names the field.
    pub(super) fn of(repository: &ConfigRepository) -> Result<Self, Error> {
        let spec = &repository.spec;
        let back = spec.write_back.clone().unwrap_or_default();
        let url = back.url.as_ref().unwrap_or(&spec.url);
        let branch: BranchName = parse("spec.writeBack.branch", back.branch.as_deref().unwrap_or(BRANCH))?;
        let followed = spec.reference.as_ref().and_then(|reference| reference.branch.as_deref());
        if *url == spec.url && followed == Some(branch.as_str()) {
            return Err(invalid("spec.writeBack.branch", "it is the branch that is followed; name another"));
        }
        let secret =
            back.secret_ref.as_ref().or_else(|| spec.secret_ref.as_ref().filter(|_| *url == spec.url));
        let secret =
            secret.map(|reference| parse("spec.writeBack.secretRef", &reference.name)).transpose()?;
        let pull = spec.secret_ref.as_ref().filter(|_| *url == spec.url);
        let pull = pull.map(|reference| parse("spec.secretRef", &reference.name)).transpose()?;
        let pull = if *url == spec.url { pull } else { secret.clone() };
        let proxy =
            spec.proxy_secret_ref.as_ref().map(|r| parse("spec.proxySecretRef", &r.name)).transpose()?;
        let (name, email) =
            back.author.as_ref().map_or(("ostler", "ostler@localhost"), |a| (&a.name, &a.email));
        Ok(Self {
            namespace: parse("metadata.namespace", &repository.namespace().unwrap_or_default())?,
            location: parse("spec.writeBack.url", url)?,
            branch,
            secret,
            pull,
            proxy,
            signing_key: back.signing_key_ref,
            ledger_signers: back.ledger_signers,
            claim: back.claim.unwrap_or(ClaimMode::Git),
            window: duration(back.window, Duration::from_millis(200)),
            give_up_after: duration(back.give_up_after, Duration::from_hours(24)),
            interval: duration(spec.interval, Duration::from_mins(1)).max(Duration::from_secs(1)),
            timeout: duration(spec.timeout, Duration::from_mins(1)),
            bulk: back.bulk.unwrap_or(Bulk::Refs),
            author: Identity::new(name, email)
                .map_err(|e| invalid("spec.writeBack.author", &e.to_string()))?,
        })
    }

    /// Whose entries prove something. A recorder that does not trust itself would hold every run that it claims.
    ///
    /// # Errors
    /// [`Error::Settings`] for a line that does not parse, or when `key` is not among them.
    pub(super) fn signers(&self, key: &SigningKey) -> Result<AllowedSigners, Error> {
        let own = key.allowed_signers_line("ostler").map_err(|e| invalid("signing key", &e.to_string()))?;
        let text = if self.ledger_signers.is_empty() { own.clone() } else { self.ledger_signers.join("\n") };
        let signers = allowed(FIELD, &text)?;
        let listed = allowed(FIELD, &own)?.signers().iter().all(|own| signers.lists(own.key().key_data()));
        if listed {
            Ok(signers)
        } else {
            Err(invalid(FIELD, &format!("our own key {} is not among them", key.fingerprint())))
        }
    }

    /// Whose entries prove something to one who signs none; `fallback` counts where the repository names nobody.
    ///
    /// # Errors
    /// [`Error::Settings`] for a line that does not parse, or when nobody is named.
    pub(super) fn readers_signers(&self, fallback: &[String]) -> Result<AllowedSigners, Error> {
        let lines = if self.ledger_signers.is_empty() { fallback } else { &self.ledger_signers };
        if lines.is_empty() {
            return Err(invalid(FIELD, "nobody is named, here or by --ledger-signers, whose entries count"));
        }
        allowed(FIELD, &lines.join("\n"))
    }
}

fn allowed(field: &'static str, lines: &str) -> Result<AllowedSigners, Error> {
    AllowedSigners::parse(lines, &TimeZone::UTC).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        invalid(field, &errors.join("; "))
    })
}

fn duration(field: Option<DurationField>, default: Duration) -> Duration {
    field.map_or(default, Duration::from)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(field: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: T::Err| invalid(field, &error.to_string()))
}

fn invalid(field: &'static str, why: &str) -> Error {
    Error::Settings { field, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{
        config_repository::{ConfigRepositorySpec, WriteBack},
        shared::{GitRef, NameRef},
    };

    fn repository(back: WriteBack) -> ConfigRepository {
        let spec = ConfigRepositorySpec {
            url: "https://git.example.com/a.git".into(),
            reference: Some(GitRef { branch: Some("main".into()), ..GitRef::default() }),
            secret_ref: Some(NameRef { name: "pull".into() }),
            write_back: Some(back),
            ..ConfigRepositorySpec::default()
        };
        let mut repository = ConfigRepository::new("a", spec);
        repository.metadata.namespace = Some("team".into());
        repository
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let settings = Settings::of(&repository(WriteBack::default())).unwrap();
        assert_eq!(settings.branch.as_str(), BRANCH);
        assert_eq!(settings.window, Duration::from_millis(200));
        assert_eq!(settings.give_up_after, Duration::from_hours(24));
        assert_eq!(settings.secret.unwrap().as_str(), "pull");
    }

    #[test]
    fn the_pull_credential_stays_with_its_repository() {
        let back =
            WriteBack { url: Some("https://elsewhere.example.com/l.git".into()), ..WriteBack::default() };
        assert!(Settings::of(&repository(back)).unwrap().secret.is_none());
    }

    #[test]
    fn the_followed_branch_is_refused() {
        let back = WriteBack { branch: Some("main".into()), ..WriteBack::default() };
        assert!(Settings::of(&repository(back)).is_err());
    }

    #[test]
    fn a_recorder_must_trust_itself() {
        let ours = SigningKey::generate("ours").unwrap();
        let theirs = SigningKey::generate("theirs").unwrap().allowed_signers_line("x").unwrap();
        let settings = |lines| {
            Settings::of(&repository(WriteBack { ledger_signers: lines, ..WriteBack::default() })).unwrap()
        };
        assert!(settings(vec![]).signers(&ours).is_ok());
        assert!(settings(vec![theirs.clone()]).signers(&ours).is_err());
        assert!(settings(vec![theirs, ours.allowed_signers_line("o").unwrap()]).signers(&ours).is_ok());
    }
}
