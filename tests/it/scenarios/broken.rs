//! One broken file among many.

use std::fmt::Write as _;

use ostler::kinds::{ConfigRepository, EgressPolicy};
use serde_json::Value;

use super::world::World;

/// How many files.
const FILES: usize = 200;
/// The one that breaks.
const BROKEN: usize = 117;

fn policy(number: usize, port: i32) -> String {
    let mut text = String::new();
    writeln!(text, "apiVersion: ostler.dev/v1alpha1\nkind: EgressPolicy\nmetadata:\n  name: policy-{number}")
        .unwrap();
    writeln!(text, "spec:\n  rules:\n    - name: web\n      hosts: [www.example.com]\n      ports: [{port}]")
        .unwrap();
    text
}

fn push_all(world: &World, text: impl Fn(usize) -> String) -> String {
    let files: Vec<(String, String)> =
        (0..FILES).map(|number| (format!("policies/{number}.yaml"), text(number))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    world.push(&files, "two hundred policies")
}

fn port(world: &World, number: usize) -> i32 {
    let policy = world.stored::<EgressPolicy>(&format!("policy-{number}"));
    policy.expect("it is there").spec.rules[0].ports[0]
}

#[test]
fn one_broken_file_of_two_hundred_holds_its_own_object_and_no_other() {
    let world = World::new();
    push_all(&world, |number| policy(number, 443));
    let good = world.up_until_idle(&[]);
    assert_eq!(good.code, Some(0), "{}", good.text);

    let bad = |number| {
        let text = policy(number, 8443);
        if number == BROKEN { text.replace("hosts:", "hostz:") } else { text }
    };
    let commit = push_all(&world, bad);
    let ended = world.up_until_idle(&[]);
    assert_eq!(ended.code, Some(1), "a file has errors: {}", ended.text);
    for number in 0..FILES {
        let expected = if number == BROKEN { 443 } else { 8443 };
        assert_eq!(port(&world, number), expected, "policy-{number}");
    }
    let status = world.stored::<ConfigRepository>("config").unwrap().status.unwrap();
    assert_eq!(status.last_fetched.as_ref(), Some(&commit), "{status:?}\n{}", ended.text);
    let error = status.diagnostics.iter().find(|error| error.code == "UnknownField").unwrap();
    assert_eq!((error.path.as_str(), error.line, error.column), ("policies/117.yaml", 8, 7));
    assert!(error.message.contains("hostz"), "{}", error.message);
    assert!(
        status.diagnostics.iter().all(|error| error.path == "policies/117.yaml"),
        "{:?}",
        status.diagnostics
    );
    let held: Vec<_> = status.held.iter().map(|held| held.object.as_str()).collect();
    assert_eq!(held, ["EgressPolicy default/policy-117"]);

    let plan = world
        .ostler()
        .current_dir(world.config.work())
        .args(["plan", "HEAD~1..HEAD", "--output", "json"])
        .output()
        .unwrap();
    assert_eq!(plan.status.code(), Some(1), "{}", String::from_utf8_lossy(&plan.stderr));
    let report: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(report["held"].as_array().unwrap().len(), 1, "{}", report["held"]);
    assert_eq!(report["counts"]["update"], FILES - 1);

    push_all(&world, |number| policy(number, 8443));
    let mended = world.up_until_idle(&[]);
    assert_eq!(mended.code, Some(0), "{}", mended.text);
    assert_eq!(port(&world, BROKEN), 8443);
}
