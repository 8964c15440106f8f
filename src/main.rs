//! The `ostler` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    match ostler::cli::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ostler: {error:#}");
            ExitCode::from(2)
        }
    }
}
