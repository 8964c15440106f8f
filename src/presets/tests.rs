//! Streams in the shape that the agents write, and the launches that make them write so.

use serde_json::{Value, json};

use super::*;
use crate::{kinds::harness_run::Usage, report::Verdict};

const ALL: [Preset; 6] =
    [Preset::ClaudeCode, Preset::Codex, Preset::Gemini, Preset::Opencode, Preset::Pi, Preset::Command];

/// Reads a stream in pieces of `piece` bytes.
fn read(preset: Preset, lines: &[Value], exit_code: i32, piece: usize) -> Reading {
    let lines: Vec<_> = lines.iter().map(|line| format!("{line}\n")).collect();
    let text = lines.concat();
    let mut reader = RecordReader::new(preset);
    text.as_bytes().chunks(piece).for_each(|bytes| reader.push(bytes));
    reader.finish(exit_code)
}

fn word(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => "none".into(),
        Some(Verdict::Succeeded) => "succeeded".into(),
        Some(Verdict::Missing) => "missing".into(),
        Some(Verdict::Failed { reason, .. }) => format!("{reason:?}"),
    }
}

fn pi_message(stop: &str, extra: Value) -> Value {
    let mut message = json!({
        "role": "assistant", "content": [{"type": "text", "text": "I am done."}], "stopReason": stop,
        "usage": {"input": 1000, "output": 50, "cacheRead": 10, "cacheWrite": 0, "cost": {"total": 0.0011}},
    });
    message.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"type": "message_end", "message": message})
}

fn claude_result(fields: Value) -> Value {
    let mut result = json!({
        "type": "result", "subtype": "success", "is_error": false, "result": "I am done.", "session_id": "s1",
        "total_cost_usd": 0.0125,
        "usage": {"input_tokens": 2000, "cache_read_input_tokens": 20, "output_tokens": 100},
    });
    result.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    result
}

/// What happens, the agent, its stream, its exit code, and what must be read from it.
type Case = (&'static str, Preset, Vec<Value>, i32, &'static str);

/// Every stream that the presets are known to meet.
fn streams() -> Vec<Case> {
    let command = ("a command writes JSON", Preset::Command, vec![json!({"type": "result"})], 0, "none");
    let agents = [claude_streams(), codex_streams(), gemini_streams(), opencode_streams(), pi_streams()];
    agents.into_iter().flatten().chain([command]).collect()
}

fn claude_streams() -> Vec<Case> {
    let claude_init = json!({"type": "system", "subtype": "init", "session_id": "s1"});
    vec![
        (
            "claude ends well",
            Preset::ClaudeCode,
            vec![claude_init.clone(), claude_result(json!({}))],
            0,
            "succeeded",
        ),
        (
            "claude fails on its model and says success",
            Preset::ClaudeCode,
            vec![
                claude_init.clone(),
                claude_result(json!({"is_error": true, "api_error_status": 401, "result": "API Error: 401"})),
            ],
            1,
            "ModelUnauthorized",
        ),
        (
            "claude retries and gives up",
            Preset::ClaudeCode,
            vec![
                claude_init.clone(),
                json!({"type": "system", "subtype": "api_retry", "session_id": "s1"}),
                claude_result(json!({"is_error": true, "result": "API Error: 500 overloaded"})),
            ],
            1,
            "ModelError",
        ),
        (
            "claude runs out of turns",
            Preset::ClaudeCode,
            vec![claude_result(json!({"subtype": "error_max_turns", "result": ""}))],
            1,
            "AgentReportedFailure",
        ),
        ("claude is killed", Preset::ClaudeCode, vec![claude_init], 143, "missing"),
    ]
}

fn codex_streams() -> Vec<Case> {
    let codex_start = json!({"type": "thread.started", "thread_id": "s1"});
    let codex_words =
        json!({"type": "item.completed", "item": {"type": "agent_message", "text": "I am done."}});
    let codex_done = json!({"type": "turn.completed", "usage": {"input_tokens": 2000, "cached_input_tokens": 0, "output_tokens": 100}});
    let codex_failed =
        json!({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized"}});
    vec![
        (
            "codex ends well",
            Preset::Codex,
            vec![codex_start.clone(), codex_words.clone(), codex_done.clone()],
            0,
            "succeeded",
        ),
        (
            "codex retries and ends well",
            Preset::Codex,
            vec![
                codex_start.clone(),
                json!({"type": "error", "message": "Reconnecting 1/1"}),
                codex_words,
                codex_done.clone(),
            ],
            0,
            "succeeded",
        ),
        (
            "codex fails on its model",
            Preset::Codex,
            vec![codex_start.clone(), codex_failed.clone()],
            1,
            "ModelUnauthorized",
        ),
        (
            "codex is killed in a later turn",
            Preset::Codex,
            vec![codex_start, codex_done, json!({"type": "turn.started"})],
            143,
            "missing",
        ),
    ]
}

fn gemini_streams() -> Vec<Case> {
    let gemini_init = json!({"type": "init", "session_id": "s1"});
    let gemini_words =
        |words: &str| json!({"type": "message", "role": "assistant", "content": words, "delta": true});
    let gemini_done =
        json!({"type": "result", "status": "success", "stats": {"input_tokens": 2000, "output_tokens": 100}});
    vec![
        (
            "gemini ends well",
            Preset::Gemini,
            vec![
                gemini_init.clone(),
                gemini_words("I will look."),
                json!({"type": "tool_use"}),
                gemini_words("I am "),
                gemini_words("done."),
                gemini_done,
            ],
            0,
            "succeeded",
        ),
        ("gemini exits 0 after SIGTERM", Preset::Gemini, vec![gemini_init.clone()], 0, "missing"),
        (
            "gemini says 401 by its exit code",
            Preset::Gemini,
            vec![gemini_init.clone()],
            145,
            "ModelUnauthorized",
        ),
        ("gemini says 500 by its exit code", Preset::Gemini, vec![gemini_init.clone()], 244, "ModelError"),
        ("gemini is killed", Preset::Gemini, vec![gemini_init.clone()], 137, "missing"),
        (
            "gemini reports an error",
            Preset::Gemini,
            vec![
                gemini_init,
                json!({"type": "result", "status": "error", "error": {"message": "turn limit"}}),
            ],
            1,
            "AgentReportedFailure",
        ),
    ]
}

fn opencode_streams() -> Vec<Case> {
    let open_step = |reason: &str| {
        json!({"type": "step_finish", "sessionID": "s1", "part": {"reason": reason, "cost": 0,
            "tokens": {"input": 1000, "output": 50, "cache": {"read": 0, "write": 0}}}})
    };
    let open_text = json!({"type": "text", "sessionID": "s1", "part": {"text": "I am done."}});
    let open_error = json!({"type": "error", "sessionID": "s1",
        "error": {"name": "APIError", "data": {"message": "no", "statusCode": 500}}});
    vec![
        (
            "opencode ends well",
            Preset::Opencode,
            vec![open_step("tool-calls"), open_text.clone(), open_step("stop")],
            0,
            "succeeded",
        ),
        (
            "opencode is killed between steps",
            Preset::Opencode,
            vec![open_step("tool-calls"), open_text],
            143,
            "missing",
        ),
        (
            "opencode fails on its model",
            Preset::Opencode,
            vec![open_step("tool-calls"), open_error],
            1,
            "ModelError",
        ),
        (
            "opencode ends at its length",
            Preset::Opencode,
            vec![open_step("length")],
            0,
            "AgentReportedFailure",
        ),
    ]
}

fn pi_streams() -> Vec<Case> {
    let pi_start = json!({"type": "session", "id": "s1", "cwd": "/workspace"});
    let pi_end = json!({"type": "agent_end", "messages": []});
    let pi_error =
        |message: &str| pi_message("error", json!({"errorMessage": message, "content": [], "usage": {}}));
    vec![
        (
            "pi ends well",
            Preset::Pi,
            vec![
                pi_start.clone(),
                pi_message("toolUse", json!({})),
                pi_message("stop", json!({})),
                pi_end.clone(),
            ],
            0,
            "succeeded",
        ),
        (
            "pi retries and ends well",
            Preset::Pi,
            vec![
                pi_start.clone(),
                pi_error("500 scripted"),
                pi_end.clone(),
                json!({"type": "auto_retry_start", "attempt": 1}),
                json!({"type": "agent_start"}),
                pi_message("stop", json!({})),
                pi_end.clone(),
                json!({"type": "auto_retry_end", "success": true}),
            ],
            0,
            "succeeded",
        ),
        (
            "pi exits 0 on 401",
            Preset::Pi,
            vec![pi_start.clone(), pi_error("401 no"), pi_end.clone()],
            0,
            "ModelUnauthorized",
        ),
        (
            "pi exits 0 on 500",
            Preset::Pi,
            vec![pi_start.clone(), pi_error("500 no"), pi_end.clone()],
            0,
            "ModelError",
        ),
        (
            "pi exits 0 without a network",
            Preset::Pi,
            vec![pi_start.clone(), pi_error("Connection error."), pi_end.clone()],
            0,
            "ModelError",
        ),
        (
            "pi is killed while it waits to try again",
            Preset::Pi,
            vec![pi_start.clone(), pi_error("500 no"), pi_end, json!({"type": "auto_retry_start"})],
            143,
            "missing",
        ),
        (
            "pi is killed after its last words",
            Preset::Pi,
            vec![pi_start, pi_message("stop", json!({}))],
            143,
            "missing",
        ),
    ]
}

#[test]
fn verdicts() {
    for (what, preset, lines, exit_code, expected) in streams() {
        for piece in [1, 7, 1 << 20] {
            let reading = read(preset, &lines, exit_code, piece);
            assert_eq!(word(reading.record.verdict.as_ref()), expected, "{what}");
            assert_eq!(reading.skipped_lines, 0, "{what}");
        }
    }
}

#[test]
fn a_good_end_tells_words_usage_and_session() {
    for (what, preset, lines, exit_code, _) in streams().into_iter().filter(|s| s.0.ends_with(" ends well")) {
        let record = read(preset, &lines, exit_code, 64).record;
        assert_eq!(record.summary, "I am done.", "{what}");
        assert_eq!(record.session.as_deref(), Some("s1"), "{what}");
        let usage = record.usage.unwrap();
        assert!(
            usage.input_tokens.unwrap() >= 1000 && usage.output_tokens.unwrap() >= 50,
            "{what}: {usage:?}"
        );
    }
    let claude = read(Preset::ClaudeCode, &[claude_result(json!({}))], 0, 64).record.usage;
    let expected = Usage { input_tokens: Some(2020), output_tokens: Some(100), usd: Some("0.0125".into()) };
    assert_eq!(claude, Some(expected));
    let pi = [pi_message("toolUse", json!({})), pi_message("stop", json!({}))];
    let expected = Usage { input_tokens: Some(2020), output_tokens: Some(100), usd: Some("0.0022".into()) };
    assert_eq!(read(Preset::Pi, &pi, 0, 64).record.usage, Some(expected));
}

#[test]
fn noise_is_counted_and_length_is_bounded() {
    let mut reader = RecordReader::new(Preset::Pi);
    reader.push(b"not json\n\n[1]\n\xff\xfe\n");
    reader.push(
        format!(
            "{}\n",
            pi_message("stop", json!({"content": [{"type": "text", "text": "é".repeat(20_000)}]}))
        )
        .as_bytes(),
    );
    reader.push(br#"{"type":"agent_end","messages":[""#);
    for _ in 0..17 {
        reader.push(&vec![b'x'; 1 << 20]);
    }
    reader.push(b"\"]}\n");
    let reading = reader.finish(0);
    assert_eq!(reading.skipped_lines, 4, "three lines of noise and one too long");
    assert_eq!(word(reading.record.verdict.as_ref()), "succeeded", "the head of the long line is enough");
    assert_eq!(reading.record.summary.len(), 16 * 1024);
}

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
