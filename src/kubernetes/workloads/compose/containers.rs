//! The three containers of a pod.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceRequirements,
        SecurityContext,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::volumes::{self, STATE_BYTES, headroom};
use crate::{
    harness::pod::{
        AGENT, BIN, INSTALL, NODE_ADDRESS_VARIABLE, NODE_NAME_VARIABLE, POD_ADDRESS_VARIABLE, PROGRAM,
        SHARED, SIDECAR, STATE, UID_VARIABLE,
    },
    kubernetes::workloads::PodSettings,
    ports::workloads::{Limit, PlaceSpec},
};

/// Copies the program; that is all.
pub(super) fn install(settings: &PodSettings) -> Container {
    Container {
        command: Some(argv(&[PROGRAM, "harness", "install", BIN])),
        volume_mounts: Some(volumes::of_install()),
        resources: Some(resources(Share {
            cpu: (10, 500),
            memory: (16 << 20, 128 << 20),
            disk: (0, 256 << 20),
        })),
        ..ours(INSTALL, settings)
    }
}

/// Clones, packs, and holds the last of the output in memory.
pub(super) fn sidecar(settings: &PodSettings) -> Container {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    Container {
        command: Some(argv(&[PROGRAM, "harness", "pod"])),
        restart_policy: Some("Always".to_owned()),
        env: Some(vec![
            field(UID_VARIABLE, "metadata.uid"),
            field(POD_ADDRESS_VARIABLE, "status.podIP"),
            field(NODE_ADDRESS_VARIABLE, "status.hostIP"),
            field(NODE_NAME_VARIABLE, "spec.nodeName"),
            // the only folder of its own where it may write
            EnvVar { name: "TMPDIR".to_owned(), value: Some(STATE.to_owned()), value_from: None },
        ]),
        volume_mounts: Some(volumes::of_sidecar()),
        resources: Some(resources(Share {
            cpu: (50, 1000),
            memory: (128 << 20, 1 << 30),
            disk: (64 << 20, STATE_BYTES),
        })),
        ..ours(SIDECAR, settings)
    }
}

/// Any image. Its environment says nothing of ours.
pub(super) fn agent(spec: &PlaceSpec, image: String) -> Container {
    let limits = &spec.limits;
    // What an author wrote is set aside in full, but for CPU: that only gets slower when it is short.
    let aside = |limit: Limit| if limit.authored { limit.value } else { limit.value / 4 };
    Container {
        name: AGENT.to_owned(),
        image: Some(image),
        command: Some(argv(&[&format!("{BIN}/ostler"), "shim", "supervise", "--shared", SHARED])),
        volume_mounts: Some(volumes::of_agent(spec)),
        security_context: Some(confined()),
        resources: Some(resources(Share {
            cpu: ((limits.cpu_millis.value / 10).max(1), limits.cpu_millis.value),
            memory: (aside(limits.memory_bytes), limits.memory_bytes.value),
            disk: (aside(limits.disk_bytes), headroom(limits.disk_bytes.value)),
        })),
        ..Container::default()
    }
}

fn ours(name: &str, settings: &PodSettings) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: settings.pull_policy.map(|policy| policy.as_str().to_owned()),
        security_context: Some(confined()),
        ..Container::default()
    }
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        ..SecurityContext::default()
    }
}

/// Set aside, and at most: thousandths of a core, bytes, bytes.
struct Share {
    cpu: (u64, u64),
    memory: (u64, u64),
    disk: (u64, u64),
}

fn resources(share: Share) -> ResourceRequirements {
    let of = |cpu: u64, memory: u64, disk: u64| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(format!("{cpu}m"))),
            ("memory".to_owned(), Quantity(memory.to_string())),
            ("ephemeral-storage".to_owned(), Quantity(disk.to_string())),
        ])
    };
    ResourceRequirements {
        requests: Some(of(share.cpu.0, share.memory.0, share.disk.0)),
        limits: Some(of(share.cpu.1, share.memory.1, share.disk.1)),
        claims: None,
    }
}
