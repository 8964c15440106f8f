//! Which limit is enforced how. Pure.
//!
//! Two lines of defence. The sidecar samples the whole run and ends it with a named reason (memory, processes, disk). The
//! kernel's walls around each process stand further out, so that what grows faster than a sample can be taken does not
//! take the machine with it.

use crate::{kinds::Reason, ports::workloads::Limits, shim::Walls};

/// Room between a limit and the wall behind it, at least: a runtime reserves more than it uses.
const DATA_ROOM: u64 = 1 << 30;
const PROCESS_ROOM: u64 = 64;
const FILE_ROOM: u64 = 64 << 20;

/// How the limits of a run are enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Enforcement {
    /// Around each process.
    pub(super) walls: Walls,
    /// Names of limits that are not enforced.
    pub(super) missing: Vec<String>,
}

/// A limit that its author insists on and that cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cpu: {millis}m is not a whole number of cores, and without cgroups only whole cores can be enforced: write {cores}"
)]
pub(super) struct NotEnforceable {
    millis: u64,
    cores: u64,
}

impl NotEnforceable {
    /// As a reason of the run.
    pub(super) const REASON: Reason = Reason::LimitNotEnforceable;
}

/// Decides, given the CPUs that this process may use.
pub(super) fn plan(
    limits: &Limits,
    cpus: &[usize],
    allow_unenforced: bool,
) -> Result<Enforcement, NotEnforceable> {
    let millis = limits.cpu_millis.value;
    let cores = millis.div_ceil(1000).max(1);
    let mut missing = Vec::new();
    // All the machine has is a limit, too: it needs no enforcement.
    let all = millis >= 1000 * cpus.len() as u64;
    if !all && !millis.is_multiple_of(1000) {
        if limits.cpu_millis.authored && !allow_unenforced {
            return Err(NotEnforceable { millis, cores });
        }
        missing.push("cpu".to_owned());
    }
    let own = if all {
        Vec::new()
    } else {
        cpus.iter().copied().take(usize::try_from(cores).unwrap_or(1)).collect()
    };
    let processes = limits.processes.value;
    let processes = processes.saturating_mul(2).max(processes.saturating_add(PROCESS_ROOM));
    let walls = Walls { processes: Some(processes), cpus: own, ..around(limits) };
    Ok(Enforcement { walls, missing })
}

/// The same in a pod. CPU and memory are the kubelet's, and the shim's samples end the run with a name before that. There is
/// no wall around the number of processes: the kernel would count all pods of this user on the node together.
pub(super) fn in_pod(limits: &Limits) -> Enforcement {
    Enforcement { walls: around(limits), missing: Vec::new() }
}

/// The walls around each process by itself.
fn around(limits: &Limits) -> Walls {
    let (memory, disk) = (limits.memory_bytes.value, limits.disk_bytes.value);
    Walls {
        data: Some(memory.saturating_mul(2).max(memory.saturating_add(DATA_ROOM))),
        file: Some(disk.saturating_add(FILE_ROOM)),
        ..Walls::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::workloads::Limit;

    fn limits(cpu: u64, authored: bool) -> Limits {
        let of = |value| Limit { value, authored };
        Limits {
            cpu_millis: of(cpu),
            memory_bytes: of(4 << 30),
            disk_bytes: of(10 << 30),
            processes: of(1024),
        }
    }

    #[test]
    fn whole_cores_are_enforced_by_affinity() {
        let plan = plan(&limits(2000, true), &[0, 2, 4, 6], false).unwrap();
        assert_eq!(plan.walls.cpus, [0, 2]);
        assert!(plan.missing.is_empty());
    }

    #[test]
    fn the_whole_machine_needs_no_affinity() {
        let plan = plan(&limits(2500, true), &[0, 1], false).unwrap();
        assert_eq!((plan.walls.cpus, plan.missing), (vec![], vec![]));
    }

    #[test]
    fn a_part_of_a_core_fails_or_is_said() {
        assert!(plan(&limits(500, true), &[0, 1], false).unwrap_err().to_string().contains("500m"));
        for (authored, allow) in [(true, true), (false, false)] {
            let plan = plan(&limits(500, authored), &[0, 1], allow).unwrap();
            assert_eq!((plan.walls.cpus, plan.missing), (vec![0], vec!["cpu".to_owned()]));
        }
    }

    #[test]
    fn walls_stand_behind_the_limits() {
        let walls = plan(&limits(1000, true), &[0, 1], false).unwrap().walls;
        assert_eq!((walls.data, walls.processes), (Some(8 << 30), Some(2048)));
        assert_eq!(walls.file, Some((10 << 30) + (64 << 20)));
        let in_pod = in_pod(&limits(1000, true)).walls;
        assert_eq!((in_pod.data, in_pod.file), (walls.data, walls.file));
        assert_eq!((in_pod.processes, in_pod.cpus), (None, vec![]), "they would count other pods");
    }
}
