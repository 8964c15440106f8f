//! The four ports through which the core reaches the world.
//!
//! Each has one adapter for a cluster and one for a single machine, and one contract suite that runs against both.

pub mod access;
pub mod objects;
pub mod secrets;
pub mod workloads;

pub use access::Access;
pub use objects::Objects;
pub use secrets::Secrets;
pub use workloads::Workloads;
