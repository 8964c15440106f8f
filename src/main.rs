//! The `ostler` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match ostler::cli::main(ostler::cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ostler: {error:#}");
            ExitCode::from(2)
        }
    }
}
