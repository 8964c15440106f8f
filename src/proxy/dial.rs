//! From a request to a connection: judge, resolve, judge again, dial what was judged.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpStream, time::timeout};

use super::Shared;
use crate::egress::{Decision, Host, Request, Ruleset, decide, decide_address};

/// Why there is no connection to the target.
#[derive(Debug)]
pub(super) enum Failure {
    /// The rules are against it.
    Denied(Decision),
    /// The name has no address, or looking for one failed.
    Unresolved(Host, Option<io::Error>),
    /// None of the addresses accepted; the last error.
    Unreachable(Host, io::Error),
    /// It took too long to resolve or to connect.
    TimedOut(Host, u16),
}

/// Opens a connection to the request's target, and counts the decision.
pub(super) async fn open(shared: &Shared, request: Request) -> Result<TcpStream, Failure> {
    let rules = Arc::clone(&shared.rules.borrow());
    let decision = decide(&rules, request);
    let outcome = if decision.is_allowed() {
        judged_addresses(shared, &rules, &decision).await
    } else {
        Err(Failure::Denied(decision.clone()))
    };
    let result = match outcome {
        Ok((decision, addresses)) => {
            report(shared, &decision);
            connect(shared, &decision.request().host, &addresses).await
        }
        Err(Failure::Denied(denied)) => {
            report(shared, &denied);
            return Err(Failure::Denied(denied));
        }
        Err(failure) => {
            report(shared, &decision);
            Err(failure)
        }
    };
    result.inspect_err(|_| shared.tally.failed())
}

/// Counts a decision and writes it to the log.
fn report(shared: &Shared, decision: &Decision) {
    shared.tally.decided(decision);
    if decision.reason().is_some() {
        tracing::warn!(target: "ostler::egress", "{decision}");
    } else {
        tracing::debug!(target: "ostler::egress", "{decision}");
    }
}

/// The addresses of the target that may be dialled, with the decision over the first of them; if there are
/// none, the decision over the first address that may not.
async fn judged_addresses(
    shared: &Shared,
    rules: &Ruleset,
    decision: &Decision,
) -> Result<(Decision, Vec<SocketAddr>), Failure> {
    let Request { host, port, .. } = decision.request();
    let addresses = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => timeout(shared.limits.resolve_time, shared.resolver.resolve(name))
            .await
            .map_err(|_| Failure::TimedOut(host.clone(), *port))?
            .map_err(|error| Failure::Unresolved(host.clone(), Some(error)))?,
    };
    let judged = addresses.into_iter().map(|address| (address, decide_address(rules, decision, address)));
    let (open, closed): (Vec<_>, Vec<_>) = judged.partition(|(_, decision)| decision.is_allowed());
    match (open.first(), closed.into_iter().next()) {
        (Some((_, decision)), _) => {
            let addresses = open.iter().map(|(address, _)| SocketAddr::new(*address, *port)).collect();
            Ok((decision.clone(), addresses))
        }
        (None, Some((_, denied))) => Err(Failure::Denied(denied)),
        (None, None) => Err(Failure::Unresolved(host.clone(), None)),
    }
}

/// The first of the addresses that accepts.
async fn connect(shared: &Shared, host: &Host, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut last = Failure::Unresolved(host.clone(), None);
    for address in addresses {
        last = match timeout(shared.limits.connect_time, TcpStream::connect(address)).await {
            Ok(Ok(target)) => {
                // Small writes of a protocol inside the tunnel must not wait for each other.
                target.set_nodelay(true).ok();
                return Ok(target);
            }
            Ok(Err(error)) => Failure::Unreachable(host.clone(), error),
            Err(_) => Failure::TimedOut(host.clone(), address.port()),
        };
    }
    Err(last)
}
