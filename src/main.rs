//! The `ostler` binary.

use std::process::ExitCode;

/// Caches are many small pieces that live long, made between the large and short ones of messages: glibc keeps more than
/// twice the memory for that (docs/design/0016).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match ostler::cli::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ostler: {error:#}");
            ExitCode::from(2)
        }
    }
}
