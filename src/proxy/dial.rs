//! From a request to a connection: judge, resolve, judge again, dial what was judged.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpStream, time::timeout};
use tokio_util::either::Either;

use super::{
    Limits, Resolver, Shared,
    tunnel::{self, OpenError},
};
use crate::egress::{Decision, Host, Request, Ruleset, decide, decide_address};

/// How what the rules allow is reached.
#[derive(Debug, Clone)]
pub enum Dial {
    /// From here: names are resolved, and each address is judged before it is dialled.
    Direct(Resolver),
    /// Through the egress proxy of a cluster, which resolves names and judges once more.
    Tunnel(tunnel::Client),
}

impl From<Resolver> for Dial {
    fn from(resolver: Resolver) -> Self {
        Self::Direct(resolver)
    }
}

/// A connection to a target, direct or through a tunnel.
pub(super) type Connected = Either<TcpStream, tunnel::Stream>;

/// Why there is no connection to the target.
#[derive(Debug)]
pub(super) enum Failure {
    /// The rules are against it.
    Denied(Decision),
    /// The egress proxy of the cluster is against it; in its words.
    Refused(String),
    /// The name has no address, or looking for one failed.
    Unresolved(Host, Option<io::Error>),
    /// None of the addresses accepted; the last error.
    Unreachable(Host, io::Error),
    /// It took too long to resolve or to connect.
    TimedOut(Host, u16),
    /// The egress proxy of the cluster cannot reach it, or cannot be reached.
    Tunnel(OpenError),
}

/// Opens a connection to the request's target, and counts the decision.
pub(super) async fn open(shared: &Shared, request: Request) -> Result<Connected, Failure> {
    let rules = Arc::clone(&shared.rules.borrow());
    let result = match &shared.dial {
        Dial::Direct(resolver) => {
            let report = |decision: &Decision| report(shared, decision);
            direct(resolver, &shared.limits, &rules, request, report).await.map(Either::Left)
        }
        Dial::Tunnel(client) => tunnelled(shared, client, &rules, request).await.map(Either::Right),
    };
    result.inspect_err(|failure| {
        if !matches!(failure, Failure::Denied(_) | Failure::Refused(_)) {
            shared.tally.failed();
        }
    })
}

/// Judges, resolves, judges the addresses and dials. The final decision is told to `report`, once, before anything is dialled.
pub(super) async fn direct(
    resolver: &Resolver,
    limits: &Limits,
    rules: &Ruleset,
    request: Request,
    report: impl FnOnce(&Decision),
) -> Result<TcpStream, Failure> {
    let decision = decide(rules, request);
    let outcome = if decision.is_allowed() {
        judged_addresses(resolver, limits, rules, &decision).await
    } else {
        Err(Failure::Denied(decision.clone()))
    };
    match outcome {
        Ok((decision, addresses)) => {
            report(&decision);
            connect(limits, &decision.request().host, &addresses).await
        }
        Err(Failure::Denied(denied)) => {
            report(&denied);
            Err(Failure::Denied(denied))
        }
        Err(failure) => {
            report(&decision);
            Err(failure)
        }
    }
}

/// Judges what can be judged without a name server, and has the cluster's proxy do the rest.
async fn tunnelled(
    shared: &Shared,
    client: &tunnel::Client,
    rules: &Ruleset,
    request: Request,
) -> Result<tunnel::Stream, Failure> {
    let mut decision = decide(rules, request);
    if let Host::Address(address) = decision.request().host {
        decision = decide_address(rules, &decision, address);
    }
    if !decision.is_allowed() {
        report(shared, &decision);
        return Err(Failure::Denied(decision));
    }
    let Request { host, port, .. } = decision.request();
    let target = tunnel::Target::Connect { host: host.to_string(), port: *port };
    let opened = client.open(&target).await;
    if let Err(OpenError::Denied { message }) = opened {
        tracing::warn!(target: "ostler::egress", %host, port, message, "the cluster's proxy refuses");
        shared.tally.refused(decision.request(), &message);
        return Err(Failure::Refused(message));
    }
    report(shared, &decision);
    opened.map_err(Failure::Tunnel)
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
    resolver: &Resolver,
    limits: &Limits,
    rules: &Ruleset,
    decision: &Decision,
) -> Result<(Decision, Vec<SocketAddr>), Failure> {
    let Request { host, port, .. } = decision.request();
    let addresses = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => timeout(limits.resolve_time, resolver.resolve(name))
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
async fn connect(limits: &Limits, host: &Host, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut last = Failure::Unresolved(host.clone(), None);
    for address in addresses {
        last = match timeout(limits.connect_time, TcpStream::connect(address)).await {
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
