//! Fixtures of resolved runs.

use std::time::Duration;

use crate::{
    kinds::agent::Preset,
    ports::workloads::{Limit, Limits, PlaceSpec, PodWishes, RunKey},
};

/// The smallest resolved run.
pub(crate) fn place_spec() -> PlaceSpec {
    let limit = |value| Limit { value, authored: false };
    PlaceSpec {
        run: RunKey {
            namespace: "team".parse().unwrap(),
            name: "r".parse().unwrap(),
            uid: "u-1".parse().unwrap(),
        },
        digest: "v1:a".into(),
        preset: Preset::Command,
        command: vec!["true".into()],
        env: vec![],
        secret_env: vec![],
        secret_files: vec![],
        home_files: vec![],
        workspace_dir: "/workspace".into(),
        working_dir: String::new(),
        instructions: None,
        checkout: None,
        contexts: vec![],
        egress: vec![],
        limits: Limits {
            cpu_millis: limit(1000),
            memory_bytes: limit(1 << 30),
            disk_bytes: limit(1 << 30),
            processes: limit(64),
        },
        timeout: Duration::from_mins(1),
        grace: Duration::from_secs(1),
        artifacts: vec![],
        persistent_workspace: None,
        binds: vec![],
        image: None,
        pod: PodWishes::default(),
    }
}
