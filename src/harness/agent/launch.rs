//! What the agent is started with.

use crate::{
    harness::{control::Given, place::PlaceFile, sidecar::NotStarted},
    kinds::Reason,
    ports::workloads::{AGENT_HOME, PROXY_URL},
    shim::{PATH, Walls, wire::Start},
};

/// Command, environment and folder.
pub(super) fn describe(place: &PlaceFile, given: &Given, walls: Walls) -> Result<Start, NotStarted> {
    let spec = &place.spec;
    let term = if place.terminal.is_some() { "xterm-256color" } else { "dumb" };
    let pod = place.pod();
    let proxy = pod.map_or_else(|| PROXY_URL.to_owned(), |pod| format!("http://{}", pod.layout.forwarder));
    let own = [
        ("HOME", AGENT_HOME),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/sh"),
        ("PATH", PATH),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", term),
        ("HTTP_PROXY", proxy.as_str()),
        ("HTTPS_PROXY", proxy.as_str()),
        ("http_proxy", proxy.as_str()),
        ("https_proxy", proxy.as_str()),
        ("NO_PROXY", "localhost,127.0.0.1,::1"),
        ("no_proxy", "localhost,127.0.0.1,::1"),
    ];
    // Where programs are is known to the image.
    let own = own.into_iter().filter(|(name, _)| pod.is_none() || *name != "PATH");
    let mut env: Vec<(String, String)> =
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
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
    let (command, terminal) = (spec.command.clone(), place.terminal);
    let (on_image, measure) = (pod.is_some(), pod.is_some());
    Ok(Start { command, env, on_image, measure, directory, walls, terminal })
}
