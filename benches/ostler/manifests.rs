//! The files that are pushed.

/// A path in the config repository, and what is in the file.
pub(crate) type File = (String, String);

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: ostler.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}")
}

/// A shell agent that runs `script`, and may see `gate`, a folder of the host.
pub(crate) fn agent(name: &str, script: &str, gate: Option<&str>) -> File {
    let binds = gate.map(|gate| format!("  local:\n    binds: [{gate}]\n")).unwrap_or_default();
    let spec = format!("  preset: command\n  command: [/bin/sh, -euc, '{script}']\n{binds}");
    (format!("agents/{name}.yaml"), object("Agent", name, &spec))
}

/// A session of an agent, with a code repository or none.
pub(crate) fn session(name: &str, agent: &str, at_once: usize, code: Option<&str>) -> File {
    let repository =
        code.map(|path| format!("  repository:\n    url: file://{path}\n    ref: {{branch: main}}\n"));
    let repository = repository.unwrap_or_default();
    let spec = format!("  agentRef: {{name: {agent}}}\n  maxConcurrentRuns: {at_once}\n{repository}");
    (format!("sessions/{name}.yaml"), object("Session", name, &spec))
}

/// A run of a session.
pub(crate) fn run(name: &str, session: &str) -> File {
    let spec = format!("  sessionRef: {{name: {session}}}\n  timeout: 5m\n  task:\n    prompt: go\n");
    (format!("runs/{name}.yaml"), object("HarnessRun", name, &spec))
}

/// Two fifths agents, two fifths sessions, one fifth policies; one object a file. Sessions get a status from their
/// controller, so they cost more than a write.
pub(crate) fn many(count: usize) -> Vec<File> {
    (0..count)
        .map(|number| match number % 5 {
            0 | 1 => agent(&format!("agent-{number}"), "echo ready", None),
            2 | 3 => session(&format!("session-{number}"), "agent-0", 1, None),
            _ => policy(number, 443),
        })
        .collect()
}

/// One policy.
pub(crate) fn policy(number: usize, port: u16) -> File {
    let name = format!("policy-{number}");
    let spec =
        format!("  rules:\n    - name: web\n      hosts: [h{number}.example.com]\n      ports: [{port}]\n");
    (format!("policies/{name}.yaml"), object("EgressPolicy", &name, &spec))
}
