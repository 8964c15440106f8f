//! opencode.

use serde_json::{Value, json};

use super::{
    Launch, Preset, PresetError, PresetInput, env,
    record::{count, failed, record, status_in, text, usd},
    words,
};
use crate::{
    kinds::{Reason, agent::ModelApi, harness_run::Usage},
    report::{FinalRecord, Verdict},
};

/// The agent wants to know when a conversation gets too long; models differ, so this is on the safe side.
const CONTEXT_TOKENS: u32 = 128_000;
const OUTPUT_TOKENS: u32 = 8_000;

pub(super) fn launch(input: &PresetInput<'_>) -> Result<Launch, PresetError> {
    let key = input.key("OPENAI_API_KEY");
    let config = config(input, &key.0)?;
    let mut command = input.program_or("opencode");
    if !input.interactive {
        command.extend(words(["run", "--format", "json"]));
    }
    if let Some(session) = input.resume {
        command.extend(words(["--session", session]));
    }
    command.extend_from_slice(input.args);
    if !input.prompt.is_empty() {
        if input.interactive {
            command.push("--prompt".to_owned());
        }
        command.push(input.prompt_argument());
    }
    let home = input.home;
    let mut variables = env([
        ("XDG_CONFIG_HOME", &format!("{home}/.config")),
        ("XDG_DATA_HOME", &format!("{home}/.local/share")),
        ("XDG_STATE_HOME", &format!("{home}/.local/state")),
        ("XDG_CACHE_HOME", &format!("{home}/.cache")),
        ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
        ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
        ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1"),
    ]);
    variables.push(key);
    let home_files = vec![(".config/opencode/opencode.json".to_owned(), config.to_string())];
    Ok(Launch { command, env: variables, home_files })
}

/// `opencode.json`. A model at a base URL becomes a provider of its own; without one `model.id` is in the
/// agent's own form, `provider/model`.
fn config(input: &PresetInput<'_>, key_env: &str) -> Result<Value, PresetError> {
    let mut config = json!({"autoupdate": false, "share": "disabled", "permission": {"*": "allow"}});
    let servers = input
        .mcp_servers
        .iter()
        .map(|server| (server.name.clone(), json!({"type": "local", "command": server.command})));
    config["mcp"] = Value::Object(servers.collect());
    let Some(url) = input.base_url() else {
        if let Some(model) = input.model_id() {
            config["model"] = json!(model);
        }
        return Ok(config);
    };
    input.only_api(Preset::Opencode, ModelApi::ChatCompletions)?;
    let model = input.model_id().ok_or(PresetError::ModelId { preset: Preset::Opencode })?;
    let name = format!("ostler/{model}");
    (config["model"], config["small_model"]) = (json!(name), json!(name));
    config["provider"] = json!({"ostler": {
        "npm": "@ai-sdk/openai-compatible",
        "name": "ostler",
        "options": {"baseURL": url, "apiKey": format!("{{env:{key_env}}}")},
        "models": {model: {"name": model, "limit": {"context": CONTEXT_TOKENS, "output": OUTPUT_TOKENS}}},
    }});
    Ok(config)
}

/// The stream of `run --format json`: one `step_finish` a request; the last one's reason decides.
#[derive(Debug, Default)]
pub(super) struct Stream {
    session: Option<String>,
    words: String,
    verdict: Option<Verdict>,
    usage: Option<(i64, i64, f64)>,
}

impl Stream {
    pub(super) fn line(&mut self, line: &Value) {
        if let Some(session) = text(line, "/sessionID") {
            self.session = Some(session.to_owned());
        }
        let part = line.get("part").unwrap_or(line);
        match text(line, "/type").unwrap_or_default() {
            "step_start" => self.verdict = None,
            "text" => text(part, "/text").unwrap_or_default().clone_into(&mut self.words),
            "step_finish" => self.step(part),
            "error" => {
                let message = ["/error/data/message", "/error/message", "/error/name"];
                let message =
                    message.iter().find_map(|at| text(line, at)).unwrap_or("the agent gave no reason");
                let status = line.pointer("/error/data/statusCode").and_then(Value::as_u64);
                let status = status.or_else(|| status_in(message));
                self.verdict = Some(failed(status, Reason::AgentReportedFailure, message));
            }
            _ => {}
        }
    }

    fn step(&mut self, part: &Value) {
        let (input, output, cost) = self.usage.unwrap_or_default();
        let read = ["/tokens/input", "/tokens/cache/read", "/tokens/cache/write"];
        self.usage = Some((
            input + read.iter().map(|at| count(part, at)).sum::<i64>(),
            output + count(part, "/tokens/output"),
            cost + part.get("cost").and_then(Value::as_f64).unwrap_or(0.0),
        ));
        self.verdict = match text(part, "/reason").unwrap_or_default() {
            "stop" => Some(Verdict::Succeeded),
            "tool-calls" => None,
            other => Some(failed(
                None,
                Reason::AgentReportedFailure,
                &format!("the last step ended with {other:?}"),
            )),
        };
    }

    pub(super) fn finish(self) -> FinalRecord {
        let usage = self.usage.map(|(input, output, cost)| Usage {
            input_tokens: Some(input),
            output_tokens: Some(output),
            usd: usd(cost),
        });
        record(self.verdict, &self.words, usage, self.session)
    }
}
