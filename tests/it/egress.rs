//! The egress proxy over real sockets, and a real agent behind it.

mod agent;
mod limits;
pub(crate) mod origin;
mod place;
mod plain;
mod tunnels;
