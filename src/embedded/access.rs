//! The Access port on one machine: scoped tokens in a file that holds only their hashes.
//!
//! A token is 32 random bytes behind `ost_`, so that a plain SHA-256 protects it: there is nothing to guess.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::ports::{
    Access,
    access::{Audience, Error as AccessError, Identity, Request, User},
    workloads::RunKey,
};

/// What every token begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "ost_";
/// The most tokens of people, and of runs, that are kept.
const MAX_TOKENS: usize = 10_000;
/// The most tokens of one run; each start of its sidecar makes one.
const MAX_TOKENS_PER_RUN: usize = 4;
/// The most bytes of the file.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Look: `get`, `list` and `watch`.
    Read,
    /// Everything.
    Admin,
}

/// Why the tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system is in the way.
    #[error("the tokens in {} cannot be {what}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read or write the file.
    #[error("{} has mode {mode:o}; it must be 0600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold tokens.
    #[error("{} does not hold tokens", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is a token of that name.
    #[error("there is a token named {0:?} already")]
    NameTaken(String),
    /// There are too many.
    #[error("there are {MAX_TOKENS} tokens already")]
    TooMany,
}

/// The hash of a token, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hash(String);

impl Hash {
    fn of(token: &str) -> Self {
        Self(format!("{:x}", Sha256::digest(token.as_bytes())))
    }

    fn is(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct UserToken {
    name: String,
    hash: Hash,
    scope: Scope,
    expires: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RunToken {
    run: RunKey,
    hash: Hash,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tokens {
    users: Vec<UserToken>,
    runs: Vec<RunToken>,
}

/// The tokens of a state folder. What is minted or dropped is in the file before the call returns, so that a restart
/// knows it.
pub struct EmbeddedAccess {
    path: PathBuf,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    tokens: Mutex<Tokens>,
}

impl EmbeddedAccess {
    /// Opens the file `tokens` of a state folder. One process at a time may do so: hold the folder's lock.
    ///
    /// # Errors
    /// When there is a file and it cannot be read, or others can read it.
    pub fn open(state: &Path) -> Result<Self, Error> {
        Self::open_with_clock(state, Arc::new(Timestamp::now))
    }

    /// The same with a clock of one's own.
    ///
    /// # Errors
    /// As [`EmbeddedAccess::open`].
    pub fn open_with_clock(
        state: &Path,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Result<Self, Error> {
        let path = state.join("tokens");
        let tokens = Mutex::new(read(&path)?);
        Ok(Self { path, clock, tokens })
    }

    /// Makes a token. It is shown once: only its hash is kept.
    ///
    /// # Errors
    /// [`Error::NameTaken`] for a name that a valid token has; when the file cannot be written.
    pub fn mint(&self, name: &str, scope: Scope, expires: Option<Timestamp>) -> Result<SecretString, Error> {
        let now = (self.clock)();
        self.change(|tokens| {
            tokens.users.retain(|token| !is_over(token, now));
            if tokens.users.iter().any(|token| token.name == name) {
                return Err(Error::NameTaken(name.to_owned()));
            }
            if tokens.users.len() >= MAX_TOKENS {
                return Err(Error::TooMany);
            }
            let (token, hash) = random();
            tokens.users.push(UserToken { name: name.to_owned(), hash, scope, expires });
            Ok(token)
        })
    }

    /// Takes a token back. Does nothing when there is none of that name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), Error> {
        self.change(|tokens| {
            tokens.users.retain(|token| token.name != name);
            Ok(())
        })
    }

    /// Makes a token with which the sidecar of a run delivers its result. Up to four of a run are good at the same time,
    /// so that a sidecar that is adopted keeps its own.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn mint_run_token(&self, run: &RunKey) -> Result<SecretString, Error> {
        self.change(|tokens| {
            let of_run = |token: &RunToken| token.run == *run;
            if tokens.runs.iter().filter(|token| of_run(token)).count() >= MAX_TOKENS_PER_RUN
                && let Some(oldest) = tokens.runs.iter().position(of_run)
            {
                tokens.runs.remove(oldest);
            }
            if tokens.runs.len() >= MAX_TOKENS {
                return Err(Error::TooMany);
            }
            let (token, hash) = random();
            tokens.runs.push(RunToken { run: run.clone(), hash });
            Ok(token)
        })
    }

    /// Takes back all tokens of a run that is done. Does nothing when there are none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn drop_run(&self, run: &crate::names::Uid) -> Result<(), Error> {
        if self.lock().runs.iter().all(|token| token.run.uid != *run) {
            return Ok(());
        }
        self.change(|tokens| {
            tokens.runs.retain(|token| token.run.uid != *run);
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a copy, writes it, and only then takes it over.
    fn change<T>(&self, change: impl FnOnce(&mut Tokens) -> Result<T, Error>) -> Result<T, Error> {
        let mut tokens = self.lock();
        let mut changed = tokens.clone();
        let result = change(&mut changed)?;
        let io = |source| Error::Io { path: self.path.clone(), what: "written", source };
        let text = serde_json::to_vec(&changed).map_err(|error| io(error.into()))?;
        replace(&self.path, &text).map_err(io)?;
        *tokens = changed;
        Ok(result)
    }
}

#[async_trait]
impl Access for EmbeddedAccess {
    async fn authenticate(&self, token: &SecretString, audience: Audience) -> Result<Identity, AccessError> {
        let (hash, now) = (Hash::of(token.expose_secret()), (self.clock)());
        let tokens = self.lock();
        let found = match audience {
            Audience::Ostler => tokens
                .users
                .iter()
                .find(|token| token.hash.is(&hash) && !is_over(token, now))
                .map(|token| Identity::User(User::named(&token.name))),
            Audience::Result => tokens.runs.iter().find(|token| token.hash.is(&hash)).map(|token| {
                let RunKey { namespace, name, uid } = token.run.clone();
                Identity::Run { namespace, name, uid }
            }),
        };
        found.ok_or(AccessError::Unauthenticated)
    }

    async fn authorize(&self, who: &Identity, request: &Request<'_>) -> Result<bool, AccessError> {
        let tokens = self.lock();
        Ok(match who {
            Identity::User(user) => {
                let now = (self.clock)();
                let held = tokens.users.iter().find(|token| token.name == user.name && !is_over(token, now));
                match held.map(|token| token.scope) {
                    Some(Scope::Admin) => true,
                    Some(Scope::Read) => matches!(request.verb, "get" | "list" | "watch"),
                    None => false,
                }
            }
            Identity::Run { namespace, name, uid } => {
                tokens.runs.iter().any(|token| token.run.uid == *uid)
                    && request.delivers_result_of(namespace, name)
            }
        })
    }
}

fn is_over(token: &UserToken, now: Timestamp) -> bool {
    token.expires.is_some_and(|expires| expires <= now)
}

fn random() -> (SecretString, Hash) {
    let bytes = Zeroizing::new(rand::random::<[u8; 32]>());
    let token = Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes))));
    let hash = Hash::of(&token);
    (SecretString::from(token.as_str()), hash)
}

fn read(path: &Path) -> Result<Tokens, Error> {
    let io = |source| Error::Io { path: path.to_owned(), what: "read", source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tokens::default()),
        Err(error) => return Err(io(error)),
    };
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(io)?;
    serde_json::from_slice(&text).map_err(|source| Error::Malformed { path: path.to_owned(), source })
}

/// Replaces a file as a whole: a crash leaves the old one or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
