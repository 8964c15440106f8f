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
    world.agents.insert("default".into(), object("Agent", agent));
    if let Some(session) = session {
        world.sessions.insert("pay".into(), object("Session", session));
    }
    world
}

fn object<K: serde::de::DeserializeOwned>(kind: &str, spec: Value) -> Arc<K> {
    let object = json!({"apiVersion": "ostler.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "x", "uid": "s-1"}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
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

/// The `ConfigRepository` `agents` of a namespace with these code repositories; its UID is the namespace.
fn repository(namespace: &str, allowed: Value) -> ConfigRepository {
    serde_json::from_value(json!({
        "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository",
        "metadata": {"namespace": namespace, "name": "agents", "uid": namespace},
        "spec": {"url": "/r", "allowedNamespaces": ["*"], "checks": {"allowedRepositories": allowed}}
    }))
    .unwrap()
}

const GOOD: &str = "https://git.example.com/shop/a";
const BAD: &str = "https://evil.example/shop/a";

/// Resolves a run whose session `pay` has the bad repository, under these rules.
fn under(
    spec: &Value,
    from: impl Fn(&mut HarnessRun, &mut World),
    rules: &[&ConfigRepository],
) -> Result<(), Reason> {
    let session = json!({"repository": {"url": BAD}});
    let (mut run, mut world) = (run(spec.clone()), world(shell(), Some(session)));
    world.rules = rules::of_all(rules.iter().copied());
    from(&mut run, &mut world);
    resolve(&run, "v1:x", &world).map(drop).map_err(|missing| missing.reason)
}

#[test]
fn whatever_a_run_would_clone_is_held_against_every_rule_of_its_namespace() {
    let refused = Err(Reason::RepositoryNotAllowed);
    let (own, also) = (json!({"repository": {"url": GOOD}}), json!({"repository": {"url": BAD}}));
    let session = json!({"sessionRef": {"name": "pay"}});
    let optional = json!({"contexts": [{"name": "c", "optional": true, "git": {"url": BAD}}]});
    let shop = repository("team", json!(["https://git.example.com/shop/*"]));
    let wide = repository("team", json!(["https://git.example.com/**"]));
    let none = repository("team", json!([]));
    let broken = repository("team", json!(["https://git.example.com/shop-*"]));
    let free = repository("team", json!(null));
    let away = repository("far", json!([]));
    let cases: [(&str, &Value, &[&ConfigRepository], _); 9] = [
        ("no rule", &also, &[&free], Ok(())),
        ("somebody else's rule", &also, &[&away], Ok(())),
        ("an allowed one", &own, &[&shop, &wide, &free, &away], Ok(())),
        ("another one", &also, &[&shop], refused),
        ("the session's", &session, &[&shop], refused),
        ("a context's", &optional, &[&shop], refused),
        ("one rule of two", &own, &[&wide, &none], refused),
        ("a rule that is none", &own, &[&broken], refused),
        ("no repository at all", &json!({}), &[&none], Ok(())),
    ];
    for (name, spec, rules, expected) in cases {
        assert_eq!(under(spec, |_, _| {}, rules), expected, "{name}");
    }
}

#[test]
fn elsewhere_a_rule_binds_what_comes_of_its_own_files() {
    let away = repository("far", json!([]));
    let spec = json!({"sessionRef": {"name": "pay"}});
    let refused = Err(Reason::RepositoryNotAllowed);
    let from = |uid: &str| Some([(meta::SOURCE_UID.to_owned(), uid.to_owned())].into());
    assert_eq!(under(&spec, |run, _| run.metadata.annotations = from("team"), &[&away]), Ok(()));
    assert_eq!(under(&spec, |run, _| run.metadata.annotations = from("far"), &[&away]), refused);
    let session = |_: &mut HarnessRun, world: &mut World| {
        Arc::get_mut(world.sessions.get_mut("pay").unwrap()).unwrap().metadata.annotations = from("far");
    };
    assert_eq!(under(&spec, session, &[&away]), refused);
    let agent = |_: &mut HarnessRun, world: &mut World| {
        Arc::get_mut(world.agents.get_mut("default").unwrap()).unwrap().metadata.annotations = from("far");
    };
    assert_eq!(under(&spec, agent, &[&away]), refused);
}
