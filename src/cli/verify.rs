//! `ostler verify results`: is a ledger what it says? Offline but for the repository itself.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use etcetera::BaseStrategy;
use jiff::tz::TimeZone;

use crate::{
    git::{self, Location, signers::AllowedSigners},
    names::BranchName,
    recorder::{self, BRANCH, Verified},
    telemetry::Chain,
};

/// Where the public half of the user's signing key is, below the user's configuration folder.
const OWN_KEY: &str = "ostler/signing_key.pub";

/// What to verify.
#[derive(Debug, Subcommand)]
pub enum Verify {
    /// Check claims and results: signatures, trailers, digests and the index. Exit code 0: all is trustworthy; 1: some path is
    /// not; 2: it could not be checked.
    Results(Results),
}

/// Options of `verify results`.
#[derive(Debug, Args)]
pub struct Results {
    /// The repository that holds the ledger: a path or URL.
    repo: String,
    /// Who may sign, as in ssh-keygen(1) ALLOWED SIGNERS. Default: the public key in your configuration folder.
    #[arg(long, value_name = "FILE")]
    signers: Option<PathBuf>,
    /// The ledger's branch.
    #[arg(long, default_value = BRANCH)]
    branch: BranchName,
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines.
    Text,
    /// One JSON object.
    Json,
}

/// Why a ledger could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to trust.
    #[error(
        "whose signatures count? give --signers FILE (ssh-keygen allowed_signers), or put the recorder's public key at {}",
        path.display()
    )]
    NoSigners {
        /// Where the default would be.
        path: PathBuf,
    },
    /// The file of signers cannot be read.
    #[error("the signers in {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of signers has errors.
    #[error("{}: {lines}", path.display())]
    Signers {
        /// The file.
        path: PathBuf,
        /// Each refused line.
        lines: String,
    },
    /// The repository is none.
    #[error("{repo:?} is not a repository's location")]
    Location {
        /// As written.
        repo: String,
        /// Why.
        #[source]
        source: crate::git::LocationError,
    },
    /// A folder for the copy could not be made.
    #[error("a temporary folder cannot be made")]
    Scratch(#[source] io::Error),
    /// The ledger is not open to all.
    #[error(
        "{repo} wants a credential, and this command holds none; with yours: `git clone --mirror {repo} ledger.git`, \
         then `ostler verify results ledger.git`"
    )]
    Private {
        /// Where it is.
        repo: Location,
    },
    /// The ledger could not be read.
    #[error("the ledger cannot be read")]
    Ledger(#[source] recorder::Error),
    /// The configuration folder is unknown.
    #[error("your configuration folder is unknown; give --signers FILE")]
    NoHome(#[source] etcetera::HomeDirError),
}

/// Verifies, prints what was found, and answers with the exit code.
///
/// # Errors
/// When the answer cannot be printed.
pub fn run(verify: &Verify, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let Verify::Results(results) = verify;
    let verified = match check(results) {
        Ok(verified) => verified,
        Err(error) => {
            writeln!(err, "error: {}", Chain(&error))?;
            return Ok(2);
        }
    };
    match results.output {
        Output::Text => text(&verified, out)?,
        Output::Json => json(&verified, out)?,
    }
    Ok(u8::from(!verified.findings.is_empty()))
}

fn check(results: &Results) -> Result<Verified, Error> {
    let signers = signers(results.signers.as_deref())?;
    let location = location(&results.repo)?;
    let scratch = tempfile::tempdir().map_err(Error::Scratch)?;
    let verified = recorder::verify(&location, &results.branch, &signers, scratch.path());
    verified.map_err(|error| match error {
        recorder::Error::Git(git::Error::Unauthenticated { location: repo, .. }) => Error::Private { repo },
        other => Error::Ledger(other),
    })
}

fn location(repo: &str) -> Result<Location, Error> {
    if let Ok(path) = Path::new(repo).canonicalize() {
        return Ok(Location::from_path(path));
    }
    repo.parse().map_err(|source| Error::Location { repo: repo.to_owned(), source })
}

fn signers(file: Option<&Path>) -> Result<AllowedSigners, Error> {
    let (path, text) = match file {
        Some(path) => (path.to_owned(), read(path)?),
        None => own_key()?,
    };
    AllowedSigners::parse(&text, &TimeZone::system()).map_err(|errors| {
        let lines = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Error::Signers { path, lines }
    })
}

/// The user's own key, as a line of allowed signers.
fn own_key() -> Result<(PathBuf, String), Error> {
    let path = etcetera::choose_base_strategy().map_err(Error::NoHome)?.config_dir().join(OWN_KEY);
    if !path.exists() {
        return Err(Error::NoSigners { path });
    }
    let key = read(&path)?;
    Ok((path, format!("ostler namespaces=\"git\" {}", key.trim())))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })
}

fn text(verified: &Verified, out: &mut dyn Write) -> io::Result<()> {
    for finding in &verified.findings {
        writeln!(out, "{}: {}", finding.path, finding.why)?;
    }
    let Verified { tip, commits, runs, findings } = verified;
    match findings.len() {
        0 => writeln!(out, "ok: {runs} runs in {commits} commits up to {tip}"),
        wrong => writeln!(out, "{wrong} problems in {runs} runs, {commits} commits up to {tip}"),
    }
}

fn json(verified: &Verified, out: &mut dyn Write) -> io::Result<()> {
    let findings = verified.findings.iter().map(|f| serde_json::json!({"path": f.path, "why": f.why}));
    let answer = serde_json::json!({
        "tip": verified.tip,
        "commits": verified.commits,
        "runs": verified.runs,
        "findings": findings.collect::<Vec<_>>(),
    });
    writeln!(out, "{answer:#}")
}
