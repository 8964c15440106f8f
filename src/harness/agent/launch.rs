//! What the agent is started with.

use crate::{
    harness::{control::Given, place::PlaceFile, sidecar::NotStarted},
    kinds::Reason,
    ports::workloads::{AGENT_HOME, PROXY_URL},
    shim::{Walls, wire::Start},
};

/// Where programs are found.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Command, environment and folder.
pub(super) fn describe(place: &PlaceFile, given: &Given, walls: Walls) -> Result<Start, NotStarted> {
    let spec = &place.spec;
    let term = if place.terminal.is_some() { "xterm-256color" } else { "dumb" };
    let own = [
        ("HOME", AGENT_HOME),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/sh"),
        ("PATH", PATH),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", term),
        ("HTTP_PROXY", PROXY_URL),
        ("HTTPS_PROXY", PROXY_URL),
        ("http_proxy", PROXY_URL),
        ("https_proxy", PROXY_URL),
        ("NO_PROXY", "localhost,127.0.0.1,::1"),
        ("no_proxy", "localhost,127.0.0.1,::1"),
    ];
    let mut env: Vec<(String, String)> =
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    env.extend(spec.env.iter().cloned());
    for (name, value) in &given.env {
        let value = value.text().filter(|text| !text.contains('\0')).ok_or_else(|| NotStarted {
            reason: Reason::InvalidSpec,
            message: format!("the secret for variable {name} is not text"),
        })?;
        env.push((name.clone(), value.to_owned()));
    }
    let directory = match spec.working_dir.as_str() {
        "" => spec.workspace_dir.clone(),
        inner => format!("{}/{inner}", spec.workspace_dir),
    };
    Ok(Start { command: spec.command.clone(), env, directory, walls, terminal: place.terminal })
}
