//! Resolution, by manifests as users write them.

use serde_json::{Value, json};

use super::*;
use crate::{
    kinds::ConfigRepository,
    ports::workloads::{ContextContent, Limit},
};

fn run(spec: Value) -> HarnessRun {
    serde_json::from_value(json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
        "metadata": {"namespace": "team", "name": "fix", "uid": "u-1"}, "spec": spec
    }))
    .unwrap()
}

fn world(agent: Value, session: Option<Value>) -> World {
    let mut world = World::default();
    let object = |kind: &str, spec: Value| json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind, "metadata": {"name": "x", "uid": "s-1"}, "spec": spec});
    world.agents.insert("default".into(), serde_json::from_value(object("Agent", agent)).unwrap());
    if let Some(session) = session {
        world.sessions.insert("pay".into(), serde_json::from_value(object("Session", session)).unwrap());
    }
    world
}

fn shell() -> Value {
    json!({"command": ["sh", "-c", "true"]})
}

#[test]
fn what_is_missing_is_named() {
    let cases = [
        (json!({"sessionRef": {"name": "nope"}}), Reason::SessionNotFound),
        (json!({"agentRef": {"name": "nope"}}), Reason::AgentNotFound),
        (json!({"egressPolicyRefs": [{"name": "nope"}]}), Reason::EgressPolicyNotFound),
        (json!({"task": {"promptFrom": {"path": "p.md"}}}), Reason::PromptNeedsSyncer),
        (
            json!({"task": {"promptFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}}),
            Reason::ConfigMapNotFound,
        ),
        (json!({"resources": {"memory": "0"}}), Reason::InvalidSpec),
        (json!({"contexts": [{"name": "c", "text": "t", "mountPath": "../up"}]}), Reason::InvalidSpec),
        (
            json!({"contexts": [{"name": "c", "text": "t", "mountPath": ".git/hooks/post-commit"}]}),
            Reason::InvalidSpec,
        ),
        (json!({"result": {"artifacts": [{"path": "/etc/passwd"}]}}), Reason::InvalidSpec),
        (json!({"result": {"artifacts": [{"path": "a", "maxBytes": "1Gi"}]}}), Reason::InvalidSpec),
    ];
    for (spec, reason) in cases {
        let missing = resolve(&run(spec.clone()), "v1:x", &world(shell(), None)).unwrap_err();
        assert_eq!(missing.reason, reason, "{spec}");
    }
}

#[test]
fn later_levels_win() {
    let agent = json!({
        "command": ["sh"], "timeout": "10m", "resources": {"cpu": "1", "memory": "1Gi"},
        "env": [{"name": "A", "value": "agent"}, {"name": "B", "value": "agent"}],
        "contexts": [{"name": "one", "text": "agent"}, {"name": "two", "text": "agent"}]
    });
    let session = json!({
        "repository": {"url": "https://x.example/r.git", "depth": 7},
        "contexts": [{"name": "one", "text": "session"}]
    });
    let spec = json!({
        "sessionRef": {"name": "pay"}, "command": ["make"], "args": ["test"], "timeout": "1m30s",
        "resources": {"memory": "2Gi"}, "env": [{"name": "B", "value": "run"}]
    });
    let place = resolve(&run(spec), "v1:x", &world(agent, Some(session))).unwrap();
    assert_eq!(place.command, ["make", "test"]);
    assert_eq!(place.timeout, Duration::from_secs(90));
    assert_eq!(place.limits.cpu_millis, Limit { value: 1000, authored: true });
    assert_eq!(place.limits.memory_bytes, Limit { value: 2 << 30, authored: true });
    assert!(!place.limits.disk_bytes.authored);
    let of = |name: &str| place.env.iter().rfind(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!((of("A"), of("B")), (Some("agent"), Some("run")));
    let texts: Vec<_> = place.contexts.iter().map(|c| (c.name.as_str(), &c.content)).collect();
    let text = |s: &str| ContextContent::Text(s.into());
    assert_eq!(texts, [("one", &text("session")), ("two", &text("agent"))]);
    let checkout = place.checkout.unwrap();
    assert_eq!((checkout.depth, checkout.branch.as_str()), (7, "ostler/team/fix"));
}

#[test]
fn a_previous_run_lends_its_branch() {
    let mut world = world(shell(), Some(json!({"repository": {"url": "/r"}})));
    world.previous_branch = Some("ostler/team/before".into());
    let spec = json!({"sessionRef": {"name": "pay"}, "startFrom": "PreviousRun"});
    let place = resolve(&run(spec), "v1:x", &world).unwrap();
    assert_eq!(place.checkout.unwrap().reference.unwrap().branch.as_deref(), Some("ostler/team/before"));
}

#[test]
fn a_persistent_workspace_is_the_sessions() {
    let session = json!({"workspace": {"type": "Persistent"}});
    let spec = json!({"sessionRef": {"name": "pay"}});
    let place = resolve(&run(spec.clone()), "v1:x", &world(shell(), Some(session))).unwrap();
    assert_eq!(place.persistent_workspace, Some("s-1".parse().unwrap()));
    let shared = json!({"workspace": {"type": "Persistent"}, "maxConcurrentRuns": 2});
    let refused = resolve(&run(spec), "v1:x", &world(shell(), Some(shared))).unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidSpec);
}

#[test]
fn secrets_stay_references() {
    let agent = json!({
        "command": ["sh"],
        "credentials": [{"name": "k", "secretRef": {"name": "s", "key": "k"}, "env": "KEY"},
                        {"name": "f", "secretRef": {"name": "s", "key": "f"}, "mountPath": ".netrc"}]
    });
    let place = resolve(&run(json!({})), "v1:x", &world(agent, None)).unwrap();
    assert_eq!(place.secret_env[0].0, "KEY");
    assert_eq!(place.secret_files[0].0, ".netrc");
    assert!(!place.env.iter().any(|(name, _)| name == "KEY"));
}

#[test]
fn the_syncers_digest_wins() {
    let mut run = run(json!({"task": {"prompt": "p"}}));
    let own = digest_of(&run, &World::default()).unwrap();
    assert!(own.starts_with("v1:"));
    run.metadata.annotations = Some([(meta::DIGEST.to_owned(), "v1:z".to_owned())].into());
    assert_eq!(digest_of(&run, &World::default()).unwrap(), "v1:z");
}

/// A `ConfigRepository` of a namespace with these allowed namespaces and code repositories.
fn repository(namespace: &str, namespaces: Value, allowed: Value) -> ConfigRepository {
    serde_json::from_value(json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
        "metadata": {"namespace": namespace, "name": "agents"},
        "spec": {"url": "/r", "allowedNamespaces": namespaces, "checks": {"allowedRepositories": allowed}}
    }))
    .unwrap()
}

#[test]
fn whatever_a_run_would_clone_is_held_against_every_rule_of_its_namespace() {
    let shop = "https://git.example.com/shop/*";
    let (good, bad) = ("https://git.example.com/shop/a", "https://evil.example/shop/a");
    let of = |spec: Value| {
        let session = json!({"repository": {"url": bad}});
        move |rules: &[&ConfigRepository]| {
            let mut world = world(shell(), Some(session.clone()));
            world.rules = rules::in_force("team", rules.iter().copied());
            resolve(&run(spec.clone()), "v1:x", &world).map(drop).map_err(|missing| missing.reason)
        }
    };
    let refused = Err(Reason::RepositoryNotAllowed);
    let (own, also) = (json!({"repository": {"url": good}}), json!({"repository": {"url": bad}}));
    let session = json!({"sessionRef": {"name": "pay"}});
    let optional = json!({"contexts": [{"name": "c", "optional": true, "git": {"url": bad}}]});
    let ours = repository("team", json!([]), json!([shop]));
    let theirs = repository("far", json!(["team*"]), json!(["https://git.example.com/**"]));
    let away = repository("far", json!([]), json!([]));
    let none = repository("team", json!([]), json!([]));
    let broken = repository("team", json!([]), json!(["https://git.example.com/shop-*"]));
    let anywhere = repository("far", json!(["["]), json!([]));
    let free = repository("team", json!([]), json!(null));
    let cases = [
        ("no rule", of(also.clone()), vec![&free, &away], Ok(())),
        ("an allowed one", of(own.clone()), vec![&ours, &theirs, &free, &away], Ok(())),
        ("another one", of(also.clone()), vec![&ours], refused),
        ("the session's", of(session), vec![&ours], refused),
        ("a context's", of(optional), vec![&ours], refused),
        ("a rule from elsewhere", of(also), vec![&theirs], refused),
        ("one rule of two", of(own.clone()), vec![&theirs, &none], refused),
        ("a rule that is none", of(own.clone()), vec![&broken], refused),
        ("one that may be for us", of(own), vec![&anywhere], refused),
        ("no repository at all", of(json!({})), vec![&none], Ok(())),
    ];
    for (name, resolve, rules, expected) in cases {
        assert_eq!(resolve(&rules), expected, "{name}");
    }
}
