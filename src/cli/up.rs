//! `ostler up`: every role in one process on one machine.

mod callers;
mod engine;
mod idle;
mod key;
mod places;
mod progress;
mod roles;
pub mod settings;
pub mod state_folder;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

pub use settings::UpArgs;
use state_folder::{StateFolder, default_for};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::roles::{self as shared, asked_to_end},
    telemetry,
};

/// Why `ostler up` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings do not fit together.
    #[error("the settings cannot be used")]
    Settings(#[from] settings::SettingsError),
    /// The state folder cannot be used.
    #[error("the state folder cannot be used")]
    State(#[from] state_folder::StateError),
    /// The object store cannot be opened.
    #[error("the object store cannot be opened")]
    Objects(#[from] crate::embedded::objects::OpenError),
    /// The repository's object cannot be written.
    #[error("failed to store the ConfigRepository")]
    Store(#[from] crate::ports::objects::Error),
    /// What `up` shares with the roles of a cluster cannot be set up.
    #[error(transparent)]
    Role(#[from] shared::Error),
    /// A part of the process cannot be set up.
    #[error("failed to {what}")]
    Setup {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    fn setup(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Setup { what: what.into(), source: source.into() }
    }
}

/// Runs until a signal, or with `--until-idle` until nothing can progress without a commit or a person.
///
/// # Errors
/// When a part cannot be set up; a repository that cannot be reached is no error, it is waited for.
pub async fn run(args: UpArgs) -> Result<ExitCode, Error> {
    let format = if args.json { telemetry::Format::Json } else { telemetry::Format::Text };
    let _guard = telemetry::init(format, "warn").map_err(|e| Error::setup("set up logging", e))?;
    let repository = settings::repository(&args)?;
    let folder: PathBuf = match &args.state {
        Some(folder) => folder.clone(),
        None => default_for(&repository.spec.url)?,
    };
    let state = StateFolder::open(&folder)?;
    let stop = CancellationToken::new();
    let roles = roles::start(&args, repository, &state, stop.clone()).await?;
    let shown = progress::show(&roles, args.json, stop.clone());
    let ended = if args.until_idle {
        idle::wait(&roles, args.timeout, &stop).await
    } else {
        tokio::select! {
            code = signal(&stop) => idle::Ended { code, text: String::new() },
            () = roles.displaced() => idle::displaced(),
        }
    };
    stop.cancel();
    roles.ended().await;
    // it ends with the token
    let _ = shown.await;
    if args.json && !ended.text.is_empty() {
        println!("{}", serde_json::json!({"what": "idle", "text": ended.text.trim_end()}));
    } else {
        print!("{}", ended.text);
    }
    Ok(ended.code)
}

async fn signal(stop: &CancellationToken) -> ExitCode {
    tokio::select! {
        () = asked_to_end() => {}
        () = stop.cancelled() => {}
    }
    ExitCode::SUCCESS
}

/// The time, as everybody in this process gets it.
fn clock() -> crate::clock::Clock {
    Arc::new(jiff::Timestamp::now)
}
