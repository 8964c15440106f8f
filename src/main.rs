//! The `ostler` binary.

use std::process::ExitCode;

/// Caches are made of many small pieces that live long, beside the large ones of each message: the C library's allocator
/// keeps twice the memory for that, and musl's, in the static binary, lets one thread at a time. See docs/design/0016.
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
