//! Git on gix: fetch, read, write, sign and push. No git program is needed for http and https, and there is
//! no work tree of a config repository.
//!
//! Everything here blocks: callers in async code use `spawn_blocking`. One operation has one time budget, one
//! byte budget and one interrupt flag ([`Limits`], [`Remote::timeout`]); nothing ever prompts on a terminal.

mod budget;
pub mod bundle;
pub mod changes;
pub mod commit;
mod error;
mod http;
mod limits;
mod location;
pub mod pack;
mod process;
pub mod push;
mod remote;
pub mod sign;
pub mod signers;
mod transport;

pub use error::{Class, Error, LimitKind};
pub use limits::Limits;
pub use location::{Location, LocationError};
pub use remote::{Credential, Remote, RemoteBuilder};
