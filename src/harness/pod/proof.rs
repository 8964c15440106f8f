//! The proof of egress in a pod: the shim dials what must not answer, until for two seconds nothing does.
//!
//! Refused and dropped are the same here: network plugins do either. The proxy's canary says that nothing of us arrived, and
//! that it says so shows that the one way out is open.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Surroundings, surroundings::DNS};
use crate::{
    harness::{agent::Cage, sidecar::NotStarted},
    kinds::Reason,
    proxy::{
        PROOF_PATH,
        tunnel::{Client, OpenError},
    },
    shim::wire::{FromShim, Probe, Seen, ToShim},
};

/// Dials of a round, and the pause between two: two seconds in all.
const DIALS: u32 = 41;
const PAUSE_MS: u64 = 50;
/// The port of the kubelet, where a node that can be reached answers.
const KUBELET: u16 = 10250;
/// The first pause between two rounds; it doubles. Each round may add one or two to what the canary counts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest: a policy that comes late holds up an agent by no more than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a round saw.
struct Round {
    /// By the shim, from inside.
    seen: Seen,
    /// The pod's address, as the proxy sees it.
    address: IpAddr,
    /// Connections to the canary before and after.
    canary: (u64, u64),
}

/// Tries until the way out is closed. The proof in words.
pub(in crate::harness) async fn prove(
    cage: &mut Cage,
    pod: &Surroundings,
    client: &Client,
    nonce: &str,
) -> Result<String, NotStarted> {
    let deadline = Instant::now() + Duration::from_secs(pod.layout.proof_seconds);
    let targets = Targets::of(pod);
    let mut pause = FIRST_PAUSE;
    let mut last = not_enforced("nothing was proven in time".to_owned());
    while Instant::now() < deadline {
        let judged = match timeout_at(deadline, round(cage, &targets, pod, client)).await {
            Ok(Ok(round)) => targets.judge(&round, nonce),
            Ok(Err(failed)) => Err(failed),
            // What the round before said is the reason.
            Err(_) => break,
        };
        match judged {
            Ok(proof) => return Ok(proof),
            Err(Failed::Now(refused)) => last = refused,
            Err(Failed::ForGood(refused)) => return Err(refused),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(last)
}

/// Why a round proved nothing.
#[derive(Debug)]
enum Failed {
    /// The next one may.
    Now(NotStarted),
    /// None will.
    ForGood(NotStarted),
}

fn not_enforced(message: String) -> NotStarted {
    NotStarted { reason: Reason::EgressNotEnforced, message }
}

async fn round(
    cage: &mut Cage,
    targets: &Targets,
    pod: &Surroundings,
    client: &Client,
) -> Result<Round, Failed> {
    let (_, before) = client.proof().await.map_err(no_proxy)?;
    let probe = Probe {
        closed: targets.closed.clone(),
        canary: Some(pod.proxy.canary),
        silent: targets.silent.clone(),
        dials: DIALS,
        pause_ms: PAUSE_MS,
        forwarder: pod.layout.forwarder,
        proof_path: PROOF_PATH.to_owned(),
    };
    let gone = |what: &str| {
        Failed::ForGood(not_enforced(format!("the shim ended before it proved anything: {what}")))
    };
    cage.tell(&ToShim::Probe(probe)).map_err(|error| gone(&error.to_string()))?;
    let Some((FromShim::Seen(seen), _)) = cage.next().await else { return Err(gone("it said nothing")) };
    let (address, after) = client.proof().await.map_err(no_proxy)?;
    Ok(Round { seen, address, canary: (before, after) })
}

fn no_proxy(error: OpenError) -> Failed {
    let NotStarted { reason, message } =
        NotStarted::because(Reason::EgressNotEnforced, "the proxy gives no proof")(error);
    Failed::Now(NotStarted { reason, message })
}

/// What must not answer.
struct Targets {
    closed: Vec<SocketAddr>,
    silent: Vec<SocketAddr>,
    node: IpAddr,
    allow_node_reach: bool,
    names: String,
}

impl Targets {
    fn of(pod: &Surroundings) -> Self {
        let servers = pod.layout.nameservers();
        let names = match pod.api_server {
            Some(_) => "canary, API server, node and DNS",
            None => "canary, node and DNS (nobody said where the API server is)",
        };
        let node = SocketAddr::new(pod.node, KUBELET);
        Self {
            closed: [pod.proxy.canary].into_iter().chain(pod.api_server).chain([node]).collect(),
            silent: servers.into_iter().chain([SocketAddr::new(pod.node, DNS)]).collect(),
            node: pod.node,
            allow_node_reach: pod.allow_node_reach,
            names: names.to_owned(),
        }
    }

    /// The proof in words, or what is open.
    fn judge(&self, round: &Round, nonce: &str) -> Result<String, Failed> {
        let failed = |message| Err(Failed::Now(not_enforced(message)));
        match &round.seen.proof {
            Ok(proof) if proof == nonce => {}
            Ok(_) => return failed("something else than the run's proxy answers inside".to_owned()),
            Err(why) => return failed(format!("the run's proxy does not answer inside: {why}")),
        }
        let (of_node, others): (Vec<_>, Vec<_>) =
            round.seen.reached.iter().partition(|address| address.ip() == self.node);
        let (before, after) = round.canary;
        if !others.is_empty() || before != after {
            let heard = after.saturating_sub(before);
            let others = list(&others);
            return failed(format!(
                "these addresses answer: [{others}]; the proxy's canary heard {heard} of this pod's dials"
            ));
        }
        let proof = format!(
            "{} refused {DIALS} dials each, {PAUSE_MS} ms apart; the egress proxy, which sees this pod as {}, heard none of them",
            self.names, round.address
        );
        match (of_node.is_empty(), self.allow_node_reach) {
            (true, _) => Ok(proof),
            (false, true) => {
                Ok(format!("{proof}; the node can be reached at {}, which is allowed", list(&of_node)))
            }
            (false, false) => Err(Failed::Now(NotStarted {
                reason: Reason::NodeReachable,
                message: format!(
                    "the network policy holds, but the pod's own node answers at {}; have the network plugin close that, or \
                     start the controller with --allow-node-reach",
                    list(&of_node)
                ),
            })),
        }
    }
}

fn list(addresses: &[&SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(allow_node_reach: bool) -> Targets {
        Targets {
            closed: vec![],
            silent: vec![],
            node: "10.0.0.1".parse().unwrap(),
            allow_node_reach,
            names: "everything".to_owned(),
        }
    }

    fn judge(targets: &Targets, reached: &[&str], canary: (u64, u64), proof: &str) -> Result<String, Reason> {
        let reached = reached.iter().map(|address| address.parse().unwrap()).collect();
        let seen = Seen { interfaces: vec![], reached, proof: Ok(proof.to_owned()) };
        let round = Round { seen, address: "10.0.0.9".parse().unwrap(), canary };
        targets.judge(&round, "n").map_err(|failed| match failed {
            Failed::Now(refused) | Failed::ForGood(refused) => refused.reason,
        })
    }

    #[test]
    fn what_is_open_is_no_proof() {
        let strict = targets(false);
        // The canary may have heard us before the policy was in force.
        for heard in [7, 32, 1000] {
            assert!(judge(&strict, &[], (heard, heard), "n").unwrap().contains("refused 41 dials"));
        }
        for (reached, canary, proof) in [
            (&["10.0.0.2:443"][..], (0, 0), "n"),
            (&["10.0.0.2:443", "10.0.0.1:10250"], (0, 0), "n"),
            (&[], (0, 1), "n"),
            (&[], (32, 33), "n"),
            (&[], (0, 0), "other"),
        ] {
            assert_eq!(judge(&strict, reached, canary, proof), Err(Reason::EgressNotEnforced));
            assert_eq!(judge(&targets(true), reached, canary, proof), Err(Reason::EgressNotEnforced));
        }
    }

    #[test]
    fn a_node_that_answers_is_refused_or_said() {
        let reached = ["10.0.0.1:10250"];
        assert_eq!(judge(&targets(false), &reached, (0, 0), "n"), Err(Reason::NodeReachable));
        assert!(
            judge(&targets(true), &reached, (0, 0), "n")
                .unwrap()
                .contains("10.0.0.1:10250, which is allowed")
        );
    }
}
