//! What the gateway counts, as metrics.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::super::meter::Count;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    target: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    direction: &'static str,
}

/// The metrics of a gateway; their names begin with `ostler_proxy_`. No label has more values than the code has words.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    answered: Family<Answered, Counter>,
    bytes: Family<Way, Counter>,
    open: Gauge,
    overloaded: Counter,
    malformed: Counter,
    canary: Counter,
}

impl Counts {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ostler_proxy");
        registry.register("tunnels", "Tunnels asked for, by target and verdict", self.answered.clone());
        registry.register("bytes", "Bytes to (up) and from (down) targets", self.bytes.clone());
        registry.register("tunnels_open", "Tunnels that are open", self.open.clone());
        registry.register("overloaded", "Connections closed for want of a place", self.overloaded.clone());
        registry.register(
            "malformed",
            "Connections without a first line that can be read",
            self.malformed.clone(),
        );
        registry.register("canary", "Connections to the canary, which no policy allows", self.canary.clone());
    }

    pub(super) fn answered(&self, target: &'static str, verdict: &'static str) {
        self.answered.get_or_create(&Answered { target, verdict }).inc();
    }

    pub(super) fn overloaded(&self) {
        self.overloaded.inc();
    }

    pub(super) fn malformed(&self) {
        self.malformed.inc();
    }

    pub(super) fn canary(&self) {
        self.canary.inc();
    }

    /// A tunnel is open until this is dropped.
    pub(super) fn opened(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }
}

impl Count for Counts {
    fn moved(&self, up: u64, down: u64) {
        self.bytes.get_or_create(&Way { direction: "up" }).inc_by(up);
        self.bytes.get_or_create(&Way { direction: "down" }).inc_by(down);
    }
}

/// One open tunnel.
#[derive(Debug)]
pub(super) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
