//! Other writers: what they change is put back, unless they were told that they may, and fights end.

use kube::ResourceExt;
use ostler::{
    embedded::objects,
    kinds::{
        Agent, ConfigRepository, HarnessRun, Object, ObjectId, Phase, Reason, Typed, config_repository::Held,
    },
    ports::{
        Objects,
        objects::{self as port, At},
    },
};
use serde_json::{Value, json};

use super::{
    manifests::{agent, commits, run_with},
    world::{World, eventually},
};

/// Another writer at the store of a running `up`.
struct Hand<'a>(&'a World, std::sync::Arc<dyn Objects>);

fn id<K: Typed>(name: &str) -> ObjectId {
    ObjectId::new(K::KIND, "default".parse().unwrap(), name.parse().unwrap())
}

impl<'a> Hand<'a> {
    fn new(world: &'a World) -> Self {
        let store = world.runtime.block_on(objects::connect(&world.state().join("ostler.sock"))).unwrap();
        Self(world, std::sync::Arc::new(store))
    }

    fn get<K: Typed>(&self, name: &str) -> Option<K> {
        let id = id::<K>(name);
        let got = self.0.runtime.block_on(port::get(self.1.as_ref(), &id.namespace, &id.name));
        got.unwrap()
    }

    fn at<K: Typed + ResourceExt>(&self, name: &str) -> At {
        At::of(&self.get::<K>(name).unwrap()).unwrap().any_version()
    }

    fn merge<K: Typed + ResourceExt>(&self, name: &str, patch: &Value) {
        let at = self.at::<K>(name);
        self.0.runtime.block_on(self.1.merge(&id::<K>(name), &at, patch, "hand")).unwrap();
    }

    fn delete<K: Typed + ResourceExt>(&self, name: &str) {
        let at = self.at::<K>(name);
        self.0.runtime.block_on(self.1.delete(&id::<K>(name), &at)).unwrap();
    }

    fn create(&self, manifest: &str, metadata: &Value) {
        let mut object: Value = serde_saphyr::from_str(manifest).unwrap();
        object["metadata"]["namespace"] = "default".into();
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        let object: Object = serde_json::from_value(object).unwrap();
        self.0.runtime.block_on(self.1.create(&object, "hand")).unwrap();
    }
}

/// Decisions and verbs on an object in the audit trail, oldest first.
fn trail(world: &World, object: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(world.state().join("audit.jsonl")).unwrap();
    // The last line may be half written.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_object = lines.filter(|line| line["object"] == object);
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    of_object.map(|line| (word(&line["verb"]), word(&line["decision"]))).collect()
}

pub(super) fn verbs(world: &World, object: &str) -> Vec<String> {
    trail(world, object).into_iter().map(|(verb, _)| verb).collect()
}

fn args(of: Option<&Agent>) -> Option<&[String]> {
    of.map(|agent| agent.spec.args.as_slice())
}

fn push_agent(world: &World, args: &Value) -> String {
    world.push(&[("agents/mine.yaml", &agent("mine", &json!({"args": args})))], "an agent")
}

fn in_force(world: &World, commit: &str) {
    world.wait::<ConfigRepository>("config", "the commit is in force", |repository| {
        let status = repository.and_then(|repository| repository.status.as_ref());
        status.and_then(|s| s.last_applied.as_ref()).is_some_and(|applied| applied.commit == commit)
    });
}

#[test]
fn what_somebody_changes_is_put_back_without_a_commit() {
    let world = World::new();
    push_agent(&world, &json!(["ours"]));
    let up = world.up();
    let made = world.wait::<Agent>("mine", "it is made", |agent| agent.is_some()).unwrap();
    let hand = Hand::new(&world);
    let back =
        |what: &str| world.wait::<Agent>("mine", what, |agent| args(agent) == Some(&["ours".to_owned()][..]));

    hand.merge::<Agent>("mine", &json!({"spec": {"args": ["theirs"]}}));
    back("a changed field is put back");
    hand.delete::<Agent>("mine");
    let again = back("a deleted object is made again").unwrap();
    assert_ne!(again.metadata.uid, made.metadata.uid);
    // A line of the audit trail comes after what it tells.
    eventually("the audit trail has all three", || {
        verbs(&world, "Agent default/mine") == ["create", "update", "create"]
    });

    // Left alone by request: neither at once nor by the next commit.
    let off = json!({"metadata": {"annotations": {"ostler.dev/reconcile": "disabled"}}, "spec": {"args": ["theirs"]}});
    hand.merge::<Agent>("mine", &off);
    hand.merge::<Agent>("shell", &json!({"metadata": {"labels": {"somebody": "s"}}}));
    let other = world.push(&[("agents/other.yaml", &agent("other", &json!({})))], "unrelated");
    in_force(&world, &other);
    assert_eq!(args(hand.get("mine").as_ref()), Some(&["theirs".to_owned()][..]));
    hand.merge::<Agent>("mine", &json!({"metadata": {"annotations": {"ostler.dev/reconcile": null}}}));
    back("the request is taken back");
    // Before the stop: a role that is told to end may not come to its line.
    eventually("the audit trail has all four", || {
        verbs(&world, "Agent default/mine") == ["create", "update", "create", "update"]
    });

    let ended = up.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_eq!(verbs(&world, "Agent default/mine").len(), 4, "and no more");
    assert_eq!(verbs(&world, "Agent default/shell"), ["create"], "others' labels are no drift");
    assert_eq!(verbs(&world, "Agent default/other"), ["create"]);
}

#[test]
fn a_fight_ends_and_names_the_other_writer() {
    let world = World::new();
    push_agent(&world, &json!(["ours"]));
    let up = world.up();
    world.wait::<Agent>("mine", "it is made", |agent| agent.is_some());
    let hand = Hand::new(&world);
    let mut writes = 0;
    // On a slow machine the first ones may be too old to count.
    let held = loop {
        writes += 1;
        assert!(writes < 200, "nobody ends the fight");
        hand.merge::<Agent>("mine", &json!({"spec": {"args": [format!("theirs {writes}")]}}));
        let mut held = None;
        eventually("it is put back, or held", || {
            held = held_of(&hand);
            held.is_some() || args(hand.get("mine").as_ref()) == Some(&["ours".to_owned()][..])
        });
        if let Some(held) = held {
            break held;
        }
    };
    assert!(writes > 5, "{writes}");
    assert_eq!(held.object, "Agent default/mine");
    for word in ["Contested", "hand", "spec.args"] {
        assert!(held.reason.contains(word), "{word} is not in {}", held.reason);
    }
    let theirs = [format!("theirs {writes}")];
    assert_eq!(args(hand.get("mine").as_ref()), Some(&theirs[..]), "it is left alone");
    let told = ("update".to_owned(), "denied".to_owned());
    eventually("the audit trail has it", || trail(&world, "Agent default/mine").last() == Some(&told));
    // An API server gets its events by a queue.
    eventually("an event names it", || {
        let described =
            world.ostler().args(["describe", "agent", "mine", "--state"]).arg(world.state()).output();
        String::from_utf8(described.unwrap().stdout).unwrap().contains("Contested")
    });

    let ask = json!({"metadata": {"annotations": {"ostler.dev/reconcile-requested-at": "now"}}});
    hand.merge::<ConfigRepository>("config", &ask);
    world
        .wait::<Agent>("mine", "whoever asks gets it", |agent| args(agent) == Some(&["ours".to_owned()][..]));
    eventually("nothing is held any more", || held_of(&hand).is_none());
    assert_eq!(up.stop().code, Some(0));
}

/// The first object that the repository's status says is held.
fn held_of(hand: &Hand<'_>) -> Option<Held> {
    hand.get::<ConfigRepository>("config")?.status?.held.first().cloned()
}

#[test]
fn a_recorded_run_that_is_deleted_by_hand_does_not_run_again() {
    let world = World::new();
    world.push_run("once", &commits("WORK", "done"));
    let up = world.up();
    world.wait_run("once", "it succeeds", |status| {
        status.phase == Some(Phase::Succeeded) && status.result.is_some()
    });
    let hand = Hand::new(&world);
    hand.delete::<HarnessRun>("once");
    world.wait::<HarnessRun>("once", "it goes", |run| run.is_none());
    let other = world.push(&[("agents/other.yaml", &agent("other", &json!({})))], "unrelated");
    in_force(&world, &other);
    assert_eq!(up.stop().code, Some(0));
    assert!(world.stored::<HarnessRun>("once").is_none());
    assert_eq!(world.code_file("once", "STARTS").lines().count(), 1);
    assert_eq!(verbs(&world, "HarnessRun default/once").iter().filter(|verb| *verb == "create").count(), 1);
}

#[test]
fn a_run_that_another_engine_applied_runs_and_is_not_removed_by_time() {
    let world = World::new();
    let up = world.up();
    world.wait::<ConfigRepository>("config", "it is read", |repository| {
        repository.and_then(|r| r.status.as_ref()).is_some_and(|status| status.last_applied.is_some())
    });
    let hand = Hand::new(&world);
    let short_lived = json!({"ttlSecondsAfterFinished": 0});
    let tracked = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}});
    hand.create(&run_with("tracked", &commits("WORK", "done"), &short_lived), &tracked);
    hand.create(&run_with("plain", &commits("WORK", "done"), &short_lived), &json!({}));
    world.wait::<HarnessRun>("plain", "it ran and is gone", |run| run.is_none());
    world.wait_run("tracked", "it is recorded", |status| {
        status.phase == Some(Phase::Succeeded) && status.result.is_some()
    });

    let file = json!({"task": {"prompt": null, "promptFrom": {"path": "prompt.md"}}});
    hand.create(&run_with("by-path", "", &file), &tracked);
    world.wait_run("by-path", "it says what it lacks", |status| {
        (status.phase, status.reason) == (Some(Phase::Pending), Some(Reason::PromptNeedsSyncer))
    });
    assert_eq!(up.stop().code, Some(0));
    assert_eq!(world.stored_status("tracked").phase, Some(Phase::Succeeded));
}
