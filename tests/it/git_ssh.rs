//! Git over ssh, against OpenSSH's server: `git` and `ssh-keygen` are the second opinion.

#![allow(clippy::unwrap_used, reason = "what a test builds on fails the test")]

mod faults;
mod hosts;
mod identities;
mod transfer;

use std::sync::atomic::AtomicBool;

use ostler::git::{Credential, Error, FetchRequest, Fetched, Limits, Mirror, Remote, SshIdentity};

use crate::servers::{repo::Repo, ssh::Ssh};

/// Nobody interrupts.
static NEVER: AtomicBool = AtomicBool::new(false);

const MAIN: &str = "refs/heads/main";

/// An identity with a `known_hosts` file.
fn identity(private: &str, known_hosts: &str) -> Credential {
    Credential::Ssh(SshIdentity::new(&private.into(), None, known_hosts).unwrap())
}

fn remote(server: &Ssh, repo: &Repo, credential: Credential) -> Remote {
    Remote::builder(server.url(&repo.bare()).parse().unwrap()).credential(credential).build().unwrap()
}

fn main_branch() -> FetchRequest {
    FetchRequest::new().branch("main").unwrap()
}

fn mirror(repo: &Repo) -> Mirror {
    Mirror::open_or_init(&repo.root().join("mirror")).unwrap()
}

fn fetch(mirror: &Mirror, remote: &Remote) -> Result<Fetched, Error> {
    mirror.fetch(remote, &main_branch(), &Limits::default(), &NEVER)
}

/// An error with all its causes, as a user reads it.
fn told(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Text that hardly compresses: 16 digits for each number.
fn noise(numbers: u64) -> String {
    let scattered = (0..numbers).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).reverse_bits());
    scattered.map(|number| format!("{number:016x}")).collect::<Vec<_>>().concat()
}
