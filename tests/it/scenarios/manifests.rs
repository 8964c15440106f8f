//! Manifests. They are JSON, which is YAML.

use serde_json::{Value, json};

/// In a script: waits until the test opens the gate.
pub(crate) const GATE: &str =
    "mkfifo /tmp/gate.new && mv /tmp/gate.new /tmp/gate && read -r word </tmp/gate\n";

/// In a script: works until somebody ends it.
pub(crate) const SLEEP: &str = "exec sleep 600\n";

/// An object.
pub(crate) fn manifest(kind: &str, name: &str, spec: &Value) -> String {
    let object =
        json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    serde_json::to_string_pretty(&object).unwrap() + "\n"
}

/// The agent `shell`: each start leaves a line in the file `STARTS`, in a commit of its own; then the prompt is executed as
/// a script.
pub(crate) fn shell() -> String {
    agent("shell", &json!({}))
}

/// The same under another name and with more in its spec.
pub(crate) fn agent(name: &str, more: &Value) -> String {
    let start = "date +%s.%N >>STARTS && git add STARTS && git commit --quiet -m start && \
        exec sh -eu \"$OSTLER_PROMPT_FILE\"";
    let person = |variable: &str, value: &str| json!({"name": format!("GIT_{variable}"), "value": value});
    let mut spec = json!({
        "preset": "command",
        "command": ["/bin/sh", "-eu", "-c", start],
        "env": [
            person("AUTHOR_NAME", "agent"), person("AUTHOR_EMAIL", "agent@example.com"),
            person("COMMITTER_NAME", "agent"), person("COMMITTER_EMAIL", "agent@example.com"),
        ],
    });
    merge(&mut spec, more);
    manifest("Agent", name, &spec)
}

/// The session `work` on a code repository.
pub(crate) fn session(url: &str) -> String {
    session_with(url, &json!({}))
}

/// The same with more in its spec.
pub(crate) fn session_with(url: &str, more: &Value) -> String {
    let mut spec = json!({"agentRef": {"name": "shell"}, "repository": {"url": url}});
    merge(&mut spec, more);
    manifest("Session", "work", &spec)
}

/// A run of session `work` that executes a script and has its commits pushed.
pub(crate) fn run(name: &str, script: &str) -> String {
    run_with(name, script, &json!({}))
}

/// The same with more in its spec.
pub(crate) fn run_with(name: &str, script: &str, more: &Value) -> String {
    let mut spec =
        json!({"sessionRef": {"name": "work"}, "task": {"prompt": script}, "result": {"push": {}}});
    merge(&mut spec, more);
    manifest("HarnessRun", name, &spec)
}

/// A script that writes a file and commits it.
pub(crate) fn commits(file: &str, text: &str) -> String {
    format!("echo {text} >{file}\ngit add {file}\ngit commit --quiet -m {file}\n")
}

/// A Secret.
pub(crate) fn secret(name: &str, purpose: &str, host: Option<&str>, data: &Value) -> String {
    let mut annotations = json!({"ostler.dev/use": purpose});
    if let Some(host) = host {
        annotations["ostler.dev/hosts"] = host.into();
    }
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": annotations},
        "stringData": data,
    })
    .to_string()
}

/// Puts fields into a spec; fields of objects go into those objects, `null` takes a field away, lists get longer.
fn merge(spec: &mut Value, more: &Value) {
    match (spec, more) {
        (Value::Object(spec), Value::Object(more)) => {
            for (name, value) in more {
                if value.is_null() {
                    spec.remove(name);
                } else {
                    merge(spec.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(spec), Value::Array(more)) => spec.extend(more.iter().cloned()),
        (spec, more) => *spec = more.clone(),
    }
}
