//! The command line.

mod columns;
pub mod offline;
mod plugin;
pub mod proxy;
mod reference;
pub mod roles;
pub mod target;
pub mod up;
pub mod verbs;
pub mod verify;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::telemetry;

/// A Git repository as the control plane for coding agents.
#[derive(Debug, Parser)]
#[command(name = "ostler", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(Box<up::UpArgs>),
    Proxy(Box<proxy::ProxyArgs>),
    #[command(flatten)]
    Verbs(verbs::Command),
    #[command(flatten)]
    Offline(offline::Command),
    Controller(Box<roles::controller::ControllerArgs>),
    Recorder(Box<roles::recorder::RecorderArgs>),
    Api(Box<roles::api::ApiArgs>),
    /// Check signatures and digests, offline
    #[command(subcommand)]
    Verify(verify::Verify),
    /// The sidecar of one run; started by `ostler up`
    #[command(hide = true)]
    Harness(crate::harness::HarnessArgs),
    /// PID 1 of an agent's container; started by the sidecar
    #[command(hide = true)]
    Shim(crate::shim::ShimArgs),
    /// Text that is generated from the program
    #[command(subcommand, hide = true)]
    Docs(Docs),
}

/// Text that is generated from the program.
#[derive(Debug, Subcommand)]
enum Docs {
    /// The command line reference, as Markdown
    Cli,
    /// The reference of the kinds' fields, as Markdown
    Manifests,
    /// The HTTP API, as `OpenAPI` 3.1
    Openapi,
}

/// Runs the command of the process' arguments.
///
/// # Errors
/// Whatever the command could not do; `main` shows the chain and ends with 2.
pub fn main() -> anyhow::Result<ExitCode> {
    // the only TLS provider; it is set once, here
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match plugin::Name::of(words.first()) {
        plugin::Name::Ostler => Cli::parse_from(words),
        plugin::Name::Plugin => Cli::from_arg_matches(&plugin::matches(Cli::command(), &words))?,
        plugin::Name::Completer => {
            let answer = plugin::complete(Cli::command(), words.get(1..).unwrap_or_default());
            std::io::stdout().write_all(answer.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match cli.command {
        Command::Up(args) => Ok(runtime()?.block_on(up::run(*args))?),
        Command::Controller(args) => Ok(runtime()?.block_on(roles::controller::run(*args))?),
        Command::Recorder(args) => Ok(runtime()?.block_on(roles::recorder::run(*args))?),
        Command::Api(args) => Ok(runtime()?.block_on(roles::api::run(*args))?),
        Command::Proxy(args) => runtime()?.block_on(proxy::run(*args)),
        Command::Verbs(command) => Ok(runtime()?.block_on(verbs::run(command, Cli::command()))?),
        Command::Offline(command) => command.run(),
        Command::Verify(command) => {
            let code = verify::run(&command, &mut std::io::stdout(), &mut std::io::stderr())?;
            Ok(ExitCode::from(code))
        }
        Command::Harness(args) => {
            let _guard = args.tells().then(logging).transpose()?;
            crate::harness::main(args)
        }
        Command::Shim(args) => {
            let _guard = args.tells().then(logging).transpose()?;
            crate::shim::main(args)
        }
        Command::Docs(docs) => {
            let text = match docs {
                Docs::Cli => reference::cli(Cli::command()),
                Docs::Manifests => reference::manifests(),
                Docs::Openapi => crate::api::openapi(),
            };
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What the parts of a place do is told on standard error, for `kubectl logs` or the place's folder.
fn logging() -> Result<telemetry::Guard, telemetry::init::Error> {
    telemetry::init::init(telemetry::init::Format::Text, telemetry::init::DEFAULT_FILTER)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
