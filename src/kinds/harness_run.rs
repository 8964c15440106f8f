//! `HarnessRun`: one execution of an agent.

mod spec;
mod status;

pub use spec::{Artifact, HarnessRun, HarnessRunSpec, PromptFrom, Push, ResultSpec, StartFrom, Task};
pub use status::{
    AgentSession, Changes, Claim, Denial, EgressSeen, HarnessRunStatus, PhaseAt, PlaceRef, ResultRef,
    Startup, Usage,
};
