//! What `ostler up` was told, parsed and checked.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    kinds::{
        ConfigRepository,
        config_repository::{ClaimMode, ConfigRepositorySpec, WriteBack},
        shared::GitRef,
    },
    names::{BranchName, Namespace},
    repositories::{Allowed, InvalidPattern},
};

/// Run ostler on this machine: follow a repository, run its sessions, record their results.
///
/// The repository's own branch `ostler/results` is the ledger; its work tree is not touched.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler up .                                  follow the repository in this folder
  ostler up . --until-idle                     run what is there and end
  ostler up https://git.example.com/a.git --secrets ~/secrets
Exit codes with --until-idle: 0 all runs succeeded, 1 some did not or a file has errors, 2 ostler failed.")]
pub struct UpArgs {
    /// The config repository: a folder or a URL; not needed when --config names one
    pub repository: Option<String>,
    /// The branch to follow; default: the remote's own
    #[arg(long)]
    pub branch: Option<BranchName>,
    /// The folder in the repository that holds the manifests
    #[arg(long)]
    pub path: Option<String>,
    /// The namespace of objects that name none
    #[arg(long, default_value = "default")]
    pub namespace: Namespace,
    /// A ConfigRepository manifest; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The state folder; default: one for this repository below the user's state folder
    #[arg(long, value_name = "DIR", env = "OSTLER_STATE")]
    pub state: Option<PathBuf>,
    /// Code repositories that runs may clone and push to, as the patterns of checks.allowedRepositories; default: any
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub allowed_repositories: Option<Vec<String>>,
    /// A folder of Secret manifests
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
    /// `allowed_signers`: only commits signed by one of them have an effect
    #[arg(long, value_name = "FILE")]
    pub signers: Option<PathBuf>,
    /// The OpenSSH key that signs results; default: one made in the user's config folder
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// The repository that holds the ledger; default: the config repository
    #[arg(long, value_name = "URL")]
    pub ledger_url: Option<String>,
    /// `allowed_signers`: whose entries in the ledger count; default: our own key
    #[arg(long, value_name = "FILE")]
    pub ledger_signers: Option<PathBuf>,
    /// What makes a run start at most once: the ledger, or this state folder alone
    #[arg(long, value_enum)]
    pub claim: Option<Claim>,
    /// Keep the objects in a cluster, by its kubeconfig: those of --namespace, which this process then looks after alone
    #[arg(long, value_name = "FILE", requires = "places")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME", requires = "places")]
    pub context: Option<String>,
    /// Where agents run when the objects are in a cluster
    #[arg(long, value_enum)]
    pub places: Option<Places>,
    /// Names and addresses of test servers, in the format of hosts(5)
    #[arg(long, value_name = "FILE")]
    pub egress_hosts: Option<PathBuf>,
    /// Start runs whose written limits this machine cannot enforce
    #[arg(long)]
    pub allow_unenforced_limits: bool,
    /// Where the API listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// End when nothing can progress without a new commit or a person
    #[arg(long)]
    pub until_idle: bool,
    /// The longest wait of --until-idle
    #[arg(long, value_parser = duration, default_value = "1h", requires = "until_idle")]
    pub timeout: Duration,
    /// Progress as JSON lines
    #[arg(long)]
    pub json: bool,
}

/// What makes a run start at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Claim {
    /// The ledger.
    Git,
    /// The state folder alone.
    Cluster,
}

/// Where agents run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Places {
    /// On this machine, under bubblewrap. Pods come with a later version.
    Machine,
}

/// A Go-style duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text.parse().map_err(|e| format!("{e}"))?;
    if parsed.is_negative() { Err("it must not be negative".to_owned()) } else { Ok(parsed.into()) }
}

/// Why the settings do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No repository.
    #[error("no repository: name a folder or URL, or give --config FILE")]
    NoRepository,
    /// A pattern of code repositories is none.
    #[error("--allowed-repositories is refused")]
    Pattern(#[source] InvalidPattern),
    /// The config file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The config file is not a ConfigRepository.
    #[error("{path} is not a ConfigRepository: {why}")]
    Config {
        /// Which file.
        path: String,
        /// What is wrong.
        why: String,
    },
}

/// The name of the ConfigRepository that `up` makes when no file names it.
const DEFAULT_NAME: &str = "config";

/// The ConfigRepository that the settings describe: the file's, with the flags over it.
///
/// # Errors
/// When there is none, or a file cannot be used.
pub fn repository(args: &UpArgs) -> Result<ConfigRepository, SettingsError> {
    let mut repository = match &args.config {
        Some(path) => read(path)?,
        None => ConfigRepository::new(DEFAULT_NAME, ConfigRepositorySpec::default()),
    };
    let spec = &mut repository.spec;
    if let Some(url) = &args.repository {
        spec.url = absolute(url)?;
    }
    if spec.url.is_empty() {
        return Err(SettingsError::NoRepository);
    }
    if let Some(branch) = &args.branch {
        spec.reference = Some(GitRef { branch: Some(branch.to_string()), ..GitRef::default() });
    }
    if let Some(path) = &args.path {
        spec.path = Some(path.clone());
    }
    if let Some(patterns) = &args.allowed_repositories {
        Allowed::new(Some(patterns)).map_err(SettingsError::Pattern)?;
        spec.checks.get_or_insert_default().allowed_repositories = Some(patterns.clone());
    }
    write_back(args, spec)?;
    repository.metadata.namespace.get_or_insert_with(|| args.namespace.to_string());
    Ok(repository)
}

fn write_back(args: &UpArgs, spec: &mut ConfigRepositorySpec) -> Result<(), SettingsError> {
    let mut write_back = spec.write_back.clone().unwrap_or_default();
    if let Some(url) = &args.ledger_url {
        write_back.url = Some(absolute(url)?);
    }
    if let Some(path) = &args.ledger_signers {
        let lines = text(path)?;
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        write_back.ledger_signers = lines.map(str::to_owned).collect();
    }
    if let Some(claim) = args.claim {
        write_back.claim = Some(match claim {
            Claim::Git => ClaimMode::Git,
            Claim::Cluster => ClaimMode::Cluster,
        });
    }
    if write_back != WriteBack::default() {
        spec.write_back = Some(write_back);
    }
    Ok(())
}

/// A URL as it is; a path from the root.
fn absolute(url: &str) -> Result<String, SettingsError> {
    if url.contains("://") {
        return Ok(url.to_owned());
    }
    let canonical = std::fs::canonicalize(url);
    let canonical = canonical.map_err(|source| SettingsError::Read { path: url.to_owned(), source })?;
    Ok(canonical.display().to_string())
}

fn read(path: &PathBuf) -> Result<ConfigRepository, SettingsError> {
    let named = path.display().to_string();
    let config = |why: String| SettingsError::Config { path: named.clone(), why };
    let value: serde_json::Value = serde_saphyr::from_str(&text(path)?).map_err(|e| config(e.to_string()))?;
    crate::schema::check(crate::kinds::Kind::ConfigRepository, &value, None).map_err(|violations| {
        config(
            violations.iter().map(|v| format!("{}: {}", v.pointer, v.message)).collect::<Vec<_>>().join("; "),
        )
    })?;
    serde_json::from_value(value).map_err(|e| config(e.to_string()))
}

fn text(path: &PathBuf) -> Result<String, SettingsError> {
    std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.display().to_string(), source })
}
