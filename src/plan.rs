//! What must happen so that the store holds what the repository asks for. Pure: no clock, no I/O.
//!
//! The rules of pruning and of runs are here and nowhere else: nothing is deleted on doubt, and a name that has run
//! does not run again.

mod decide;
mod difference;
mod drift;
mod live;
mod policy;
mod prune;
mod report;

use serde_json::Value;

pub use decide::hold;
pub use difference::{FieldChange, between};
pub use drift::{calls_for_plan, writers};
pub use live::Live;
pub use policy::{Policy, Prune};
pub use report::{Action, Counts, Held, ItemReport, PlanReport};

use crate::{
    kinds::{ObjectId, Reason},
    ledger,
    manifest::Desired,
    ports::objects::At,
};

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Apply an object that is not there.
    Create {
        /// Which.
        id: ObjectId,
        /// The body of a server-side apply by [`crate::kinds::meta::SYNCER`].
        body: Value,
    },
    /// Apply an object that is there, by force: only what authors wrote is in the body.
    Update {
        /// Which.
        id: ObjectId,
        /// The body of a server-side apply by [`crate::kinds::meta::SYNCER`].
        body: Value,
        /// The object that was seen.
        at: At,
    },
    /// Delete an object. A run that is active is stopped and recorded by its controller before it goes.
    Delete {
        /// Which.
        id: ObjectId,
        /// The object that was seen.
        at: At,
    },
}

impl Step {
    /// Which object.
    #[must_use]
    pub fn id(&self) -> &ObjectId {
        match self {
            Self::Create { id, .. } | Self::Update { id, .. } | Self::Delete { id, .. } => id,
        }
    }
}

/// The writes, in order: what is referred to comes first, deletes come last and the other way round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The writes.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Takes the step of an object out; `report` says that it is held, and why.
    pub fn hold(&mut self, report: &mut PlanReport, id: &ObjectId, reason: Reason, message: String) {
        self.steps.retain(|step| step.id() != id);
        report.hold(id, reason, message);
    }

    /// True when there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Plans.
///
/// The same input gives the same plan; planning again after its steps gives an empty one, but for prompts: the ConfigMap
/// of a former prompt goes with the plan after the one that gives its run another. `now` goes into the report.
#[must_use]
pub fn plan(
    desired: &Desired,
    live: &Live,
    ledger: &ledger::View,
    policy: &Policy,
    now: jiff::Timestamp,
) -> (Plan, PlanReport) {
    let mut decisions = decide::wanted(desired, live, ledger, policy);
    prune::unwanted(desired, live, policy, &mut decisions);
    decisions.finish(desired, policy, now)
}

/// Steps and report, as they are decided.
#[derive(Debug, Default)]
struct Decisions {
    applies: Vec<Step>,
    deletes: Vec<Step>,
    items: Vec<ItemReport>,
    diagnostics: Vec<crate::manifest::Diagnostic>,
}

impl Decisions {
    fn finish(mut self, desired: &Desired, policy: &Policy, now: jiff::Timestamp) -> (Plan, PlanReport) {
        self.applies.sort_by_key(|step| order(step.id()));
        self.deletes.sort_by_key(|step| std::cmp::Reverse(order(step.id())));
        self.items.sort_by(|a, b| a.id.cmp(&b.id));
        self.diagnostics.extend(desired.diagnostics.iter().cloned());
        self.diagnostics.sort();
        let report = PlanReport::new(self.items, self.diagnostics, desired, policy.commit.clone(), now);
        let mut steps = self.applies;
        steps.append(&mut self.deletes);
        (Plan { steps }, report)
    }
}

fn order(id: &ObjectId) -> (usize, ObjectId) {
    use crate::kinds::Kind;
    (Kind::ALL.iter().position(|kind| *kind == id.kind).unwrap_or(usize::MAX), id.clone())
}
