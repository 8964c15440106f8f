//! A real coding agent in a run: pi, whose model it reaches through the proxy alone.

use ostler::kinds::{Phase, Reason};
use serde_json::{Value, json};

use super::{
    manifests::{manifest, run_with, secret, session},
    world::World,
};
use crate::servers::{
    model::{Fault, INPUT_TOKENS, ModelServer, OUTPUT_TOKENS, Script, Step, When},
    pi,
    repo::Repo,
};

/// What pi tells of itself when it is not told to be patient; 14 s of retries are not what is tested.
const SETTINGS: &str = r#"{"retry": {"maxRetries": 1, "baseDelayMs": 1}}"#;

/// What came of a run.
struct Outcome {
    world: World,
    model: ModelServer,
    code: Option<i32>,
    text: String,
}

/// Has pi edit a file of a checkout, with a model that plays a script.
fn run(script: Script) -> Outcome {
    let code = Repo::new();
    code.push(&[("greeting.txt", "Hello, wurld!\n"), ("README.md", "greets\n")], "begin");
    let url = code.bare().display().to_string();
    let mut world = World::of(Repo::new(), code);
    let model = world.runtime.block_on(ModelServer::start(script));
    let program = pi::program();
    let installed =
        program.ancestors().find(|folder| folder.ends_with("node_modules")).unwrap().parent().unwrap();
    let agent = json!({
        "preset": "pi",
        "command": [program],
        "model": {
            "id": "m1", "baseUrl": format!("http://model.test:{}/v1", model.port()), "api": "chat-completions",
        },
        "credentials": [{
            "name": "settings",
            "secretRef": {"name": "settings", "key": "settings.json"},
            "mountPath": ".pi/agent/settings.json",
        }],
        "egressPolicyRefs": [{"name": "model"}],
        "local": {"binds": [installed]},
    });
    let policy = json!({
        "rules": [{"name": "model", "hosts": ["model.test"], "ports": [model.port()]}], "allowPrivate": true,
    });
    world.push(
        &[
            ("agents/pi.yaml", &manifest("Agent", "pi", &agent)),
            ("policies/model.yaml", &manifest("EgressPolicy", "model", &policy)),
            ("session.yaml", &session(&url)),
            (
                "runs/fix.yaml",
                &run_with("fix", "Correct the greeting.", &json!({"agentRef": {"name": "pi"}})),
            ),
        ],
        "have pi correct the greeting",
    );
    let settings = secret("settings", "env", None, &json!({"settings.json": SETTINGS}));
    world.write("secrets/settings.yaml", &settings);
    world.target.extend(["--secrets".into(), world.path("secrets").into()]);
    let hosts = world.write("hosts", "127.0.0.1 model.test\n");
    let ended = world.up_until_idle(&["--egress-hosts", hosts.to_str().unwrap()]);
    Outcome { world, model, code: ended.code, text: ended.text }
}

/// The edit, as the model asks for it.
fn edit() -> Vec<Step> {
    let edit = json!({"path": "greeting.txt", "oldText": "wurld", "newText": "world"});
    vec![Step::Call { tool: "edit", arguments: edit }, Step::Say("The greeting is correct now.")]
}

impl Outcome {
    fn result(&self) -> Value {
        self.world.ledger().result("fix").unwrap_or_else(|| panic!("there is no result: {}", self.text))
    }
}

#[test]
fn pi_edits_a_file_of_a_checkout_and_its_summary_usage_and_code_are_recorded() {
    let outcome = run(Script { steps: edit(), fault: None });
    let (world, result) = (&outcome.world, outcome.result());
    assert_eq!(outcome.code, Some(0), "{}\n{result}", outcome.text);
    assert_eq!((&result["outcome"], &result["exitCode"]), (&json!("Succeeded"), &json!(0)));
    assert_eq!(world.code_file("fix", "greeting.txt"), "Hello, world!");
    assert_eq!(world.ledger().text("fix", "summary.md").unwrap(), "The greeting is correct now.");
    let usage = &result["agentsWord"]["usage"];
    let tokens = (usage["inputTokens"].as_i64(), usage["outputTokens"].as_i64());
    assert_eq!(tokens, (Some(2 * INPUT_TOKENS), Some(2 * OUTPUT_TOKENS)));
    let status = world.stored_status("fix");
    assert_eq!(status.usage.unwrap().input_tokens, Some(2 * INPUT_TOKENS));
    let changes = status.changes.unwrap();
    assert_eq!((changes.branch.as_deref(), changes.files), (Some("ostler/default/fix"), 1));
    assert!(status.agent_session.is_some_and(|session| !session.id.is_empty()));
    assert_eq!(outcome.model.asked().len(), 2);
    assert!(
        result["egress"]["allowed"].as_i64() >= Some(1) && result["egress"]["denied"] == 0,
        "{}",
        result["egress"]
    );
    world.ledger().assert_signed();
}

/// A model that fails makes the run fail, though pi exits with 0; what was done so far is kept.
fn fails(fault: Fault, expected: Reason) {
    let outcome = run(Script { steps: edit(), fault: Some((fault, When::FromStep(1))) });
    let (world, result) = (&outcome.world, outcome.result());
    assert_eq!(outcome.code, Some(1), "{}", outcome.text);
    assert_eq!(result["outcome"], "Failed", "{result}");
    assert_eq!((&result["reason"], &result["exitCode"]), (&json!(expected.as_str()), &json!(0)));
    assert_eq!(
        world.code_file("fix", "greeting.txt"),
        "Hello, world!",
        "the edit before the failure is kept"
    );
    let status = world.stored_status("fix");
    assert_eq!((status.phase, status.reason), (Some(Phase::Failed), Some(expected)));
    assert_eq!(status.changes.unwrap().files, 1);
}

#[test]
fn a_model_that_answers_500_fails_the_run_and_the_partial_work_is_kept() {
    fails(Fault::Status(500), Reason::ModelError);
}

#[test]
fn a_model_that_answers_401_fails_the_run_and_the_partial_work_is_kept() {
    fails(Fault::Status(401), Reason::ModelUnauthorized);
}
