//! Limits: the run's word over the agent's over the defaults, each with the knowledge of whose word it is.

use super::{Missing, quantity};
use crate::{
    kinds::{Agent, HarnessRun, shared::Resources},
    ports::workloads::{Limit, Limits},
};

/// Defaults: enough for a compiler and a test suite, small enough for a laptop.
const CPU_MILLIS: u64 = 2000;
const MEMORY_BYTES: u64 = 4 << 30;
const DISK_BYTES: u64 = 10 << 30;
const PROCESSES: u64 = 1024;

pub(super) fn merge(run: &HarnessRun, agent: &Agent) -> Result<Limits, Missing> {
    let levels = [run.spec.resources.as_ref(), agent.spec.resources.as_ref()];
    let written = |field: fn(&Resources) -> Option<&String>| levels.iter().flatten().find_map(|r| field(r));
    Ok(Limits {
        cpu_millis: limit(written(|r| r.cpu.as_ref()), quantity::millis, CPU_MILLIS)?,
        memory_bytes: limit(written(|r| r.memory.as_ref()), quantity::units, MEMORY_BYTES)?,
        disk_bytes: limit(written(|r| r.disk.as_ref()), quantity::units, DISK_BYTES)?,
        processes: levels.iter().flatten().find_map(|r| r.processes).map_or(
            Limit { value: PROCESSES, authored: false },
            |n| Limit { value: n.into(), authored: true },
        ),
    })
}

fn limit(
    written: Option<&String>,
    parse: fn(&str) -> Result<u64, quantity::InvalidQuantity>,
    default: u64,
) -> Result<Limit, Missing> {
    match written {
        None => Ok(Limit { value: default, authored: false }),
        Some(text) => match parse(text) {
            Ok(0) => Err(Missing::invalid("a limit of 0 leaves nothing to run with")),
            Ok(value) => Ok(Limit { value, authored: true }),
            Err(error) => Err(Missing::invalid(error.to_string())),
        },
    }
}
