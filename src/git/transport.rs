//! Connects to a repository by whatever its location asks for.

use gix::protocol::transport::client::blocking_io::{Transport, http};
use gix::protocol::transport::{Protocol, Service};

use super::budget::Budget;
use super::http::Http;
use super::remote::Remote;
use super::{Error, process, ssh};

/// Connects to `remote`; over http nothing is sent before the handshake.
///
/// Use [`Protocol::V2`] to fetch and [`Protocol::V1`] to push (receive-pack has no version 2).
/// Credentials are sent by the transport itself: answer the handshake's question for one with [`no_credential`].
pub(super) fn connect<'a>(
    remote: &'a Remote,
    service: Service,
    version: Protocol,
    budget: &'a Budget<'a>,
) -> Result<Box<dyn Transport + 'a>, Error> {
    let location = remote.location();
    if let Some(path) = location.path() {
        return process::connect(path, service, version, budget);
    }
    if let Some(place) = location.ssh() {
        return ssh::connect(remote, place, service, version, budget);
    }
    let url = gix::url::parse(location.to_string().as_str()).map_err(Error::gix("parse the location"))?;
    Ok(Box::new(http::Transport::new_http(Http::new(remote, budget)?, url, version, false)))
}

/// For [`gix::protocol::handshake`]: there is no second credential to try, and nobody to ask.
#[expect(clippy::unnecessary_wraps, reason = "the signature is gix's")]
pub(super) fn no_credential(
    _: gix::credentials::helper::Action,
) -> gix::Result<Option<gix::credentials::protocol::Outcome>> {
    Ok(None)
}

/// How we name ourselves to a server.
pub(super) fn agent() -> gix::protocol::command::Feature {
    ("agent", Some(concat!("ostler/", env!("CARGO_PKG_VERSION")).into()))
}
