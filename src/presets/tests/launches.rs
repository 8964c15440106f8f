//! The command, environment and files with which each agent is started.

use serde_json::Value;

use super::super::*;

const ALL: [Preset; 6] =
    [Preset::ClaudeCode, Preset::Codex, Preset::Gemini, Preset::Opencode, Preset::Pi, Preset::Command];

fn model(api: Option<ModelApi>) -> Model {
    Model { id: Some("m\"1".into()), base_url: Some("http://model.test:8080/v1".into()), api }
}

fn input<'a>(model: &'a Model, program: &'a [String]) -> PresetInput<'a> {
    PresetInput {
        program,
        prompt: "-fix it",
        model: Some(model),
        home: "/home/agent",
        workspace_dir: "/workspace",
        proxy_url: Some("http://127.0.0.1:3128"),
        ..PresetInput::default()
    }
}

#[test]
fn commands() {
    let model = model(None);
    let program = words(["run-me"]);
    let table = [
        (
            Preset::ClaudeCode,
            "run-me -p --output-format stream-json --verbose --dangerously-skip-permissions --model m\"1 --resume S A  -fix it",
            "run-me --dangerously-skip-permissions --model m\"1 --resume S A  -fix it",
        ),
        (Preset::Codex, "run-me exec resume --json S A  -fix it", "run-me resume --no-daemon S A  -fix it"),
        (
            Preset::Gemini,
            "run-me --yolo --skip-trust -o stream-json -m m\"1 --resume S A -p  -fix it",
            "run-me --yolo --skip-trust -m m\"1 --resume S A -i  -fix it",
        ),
        (
            Preset::Opencode,
            "run-me run --format json --session S A  -fix it",
            "run-me --session S A --prompt  -fix it",
        ),
        (
            Preset::Pi,
            "run-me -p --mode json --provider ostler --model m\"1 --session S A  -fix it",
            "run-me --provider ostler --model m\"1 --session S A  -fix it",
        ),
        (Preset::Command, "run-me A", "run-me A"),
    ];
    let args = words(["A"]);
    for (preset, headless, interactive) in table {
        let input = PresetInput { resume: Some("S"), args: &args, ..input(&model, &program) };
        assert_eq!(launch(preset, &input).unwrap().command.join(" "), headless);
        let input = PresetInput { interactive: true, ..input };
        assert_eq!(launch(preset, &input).unwrap().command.join(" "), interactive);
    }
    let fresh = launch(Preset::Codex, &input(&model, &[])).unwrap().command.join(" ");
    assert_eq!(
        fresh,
        "codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox  -fix it"
    );
}

#[test]
fn every_launch_goes_through_the_proxy_and_keeps_to_its_home() {
    let model = model(None);
    let program = words(["run-me"]);
    for preset in ALL {
        let launch = launch(preset, &input(&model, &program)).unwrap();
        let get = |name: &str| launch.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(get("HTTPS_PROXY"), Some("http://127.0.0.1:3128"), "{preset:?}");
        assert_eq!(get("no_proxy"), Some("localhost,127.0.0.1,::1"), "{preset:?}");
        for (path, content) in &launch.home_files {
            assert!(!path.starts_with('/') && !path.contains(".."), "{preset:?}: {path}");
            if path.to_lowercase().ends_with(".json") {
                serde_json::from_str::<Value>(content).unwrap();
            }
        }
        let named = |text: &str| text.contains("http://model.test:8080/v1");
        let told = launch.env.iter().any(|(_, value)| named(value))
            || launch.home_files.iter().any(|(_, c)| named(c));
        assert_eq!(told, preset != Preset::Command, "{preset:?} is told where its model is");
    }
}

#[test]
fn codex_is_configured_in_toml() {
    let model = model(Some(ModelApi::Responses));
    let servers = [McpServer { name: "files".into(), command: words(["mcp", "--root", "/a b"]).to_vec() }];
    let input = PresetInput { mcp_servers: &servers, key_env: Some("MY_KEY"), ..input(&model, &[]) };
    let launch = launch(Preset::Codex, &input).unwrap();
    let (path, toml) = &launch.home_files[0];
    assert_eq!(path, ".codex/config.toml");
    for line in [
        "model = \"m\\\"1\"",
        "base_url = \"http://model.test:8080/v1\"",
        "env_key = \"MY_KEY\"",
        "[projects.\"/workspace\"]",
        "[mcp_servers.\"files\"]",
        "args = [\"--root\", \"/a b\"]",
    ] {
        assert!(toml.lines().any(|own| own == line), "{line} is not in\n{toml}");
    }
    assert!(launch.env.contains(&("MY_KEY".into(), "none".into())));
}

#[test]
fn what_cannot_work_is_refused() {
    let chat = model(Some(ModelApi::ChatCompletions));
    for preset in [Preset::ClaudeCode, Preset::Codex, Preset::Gemini] {
        let refused = launch(preset, &input(&chat, &[])).unwrap_err();
        assert_eq!(refused, PresetError::Protocol { preset, api: ModelApi::ChatCompletions });
    }
    let nameless = Model { id: None, ..chat.clone() };
    for preset in [Preset::Opencode, Preset::Pi] {
        assert_eq!(launch(preset, &input(&nameless, &[])).unwrap_err(), PresetError::ModelId { preset });
    }
    let servers = [McpServer { name: "files".into(), command: words(["mcp"]).to_vec() }];
    let with_servers = PresetInput { mcp_servers: &servers, ..input(&chat, &[]) };
    assert_eq!(launch(Preset::Pi, &with_servers).unwrap_err(), PresetError::Mcp { preset: Preset::Pi });
    assert_eq!(launch(Preset::Command, &input(&chat, &[])).unwrap_err(), PresetError::NoCommand);
}

#[test]
fn a_long_prompt_goes_into_a_file() {
    let chat = model(None);
    let prompt = "x".repeat(200_000);
    let launch = launch(Preset::Pi, &PresetInput { prompt: &prompt, ..input(&chat, &[]) }).unwrap();
    assert!(launch.command.iter().all(|word| word.len() < 128 * 1024));
    assert!(launch.command.last().unwrap().contains("/home/agent/.ostler/prompt.md"));
    assert!(launch.home_files.contains(&(".ostler/prompt.md".into(), prompt)));
}
