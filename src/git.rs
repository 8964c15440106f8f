//! Git on gix: fetch, read, write, sign and push. No git program is needed for http, https and ssh, and
//! there is no work tree of a config repository.
//!
//! Everything here blocks: callers in async code use `spawn_blocking`. One operation has one time budget, one
//! byte budget and one interrupt flag ([`Limits`], [`Remote::timeout`]); nothing ever prompts on a terminal.

mod ancestry;
mod budget;
pub mod bundle;
pub mod changes;
pub mod commit;
mod error;
mod fetch;
mod http;
mod id;
mod limits;
mod location;
mod mirror;
pub mod pack;
mod process;
pub mod protected;
pub mod push;
pub mod relay;
mod remote;
mod repack;
mod repository;
mod request;
pub mod secret;
mod selection;
mod session;
pub mod sign;
pub mod signers;
mod ssh;
mod transport;
mod tree;
mod watch;
pub mod worktree;

pub use ancestry::Ancestry;
pub use error::{Error, LimitKind};
pub use fetch::{Fetched, Movement, Tip};
pub use id::{BlobId, CommitId, TreeId};
pub use limits::Limits;
pub use location::{Location, LocationError};
pub use mirror::Mirror;
pub use remote::{Credential, Remote, RemoteBuilder};
pub use repository::{CommitInfo, Person, Range, Repository};
pub use request::FetchRequest;
pub use selection::Selection;
pub use ssh::{InvalidIdentity, SshError, SshIdentity};
pub use tree::{Change, Entry, EntryKind};
pub use watch::{Watch, poll_delay};
