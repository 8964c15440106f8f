//! pi.

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
    if !input.mcp_servers.is_empty() {
        return Err(PresetError::Mcp { preset: Preset::Pi });
    }
    let api = input.model.and_then(|model| model.api).unwrap_or(ModelApi::ChatCompletions);
    let (own_provider, key_env, api_name) = match api {
        ModelApi::ChatCompletions => ("openai", "OPENAI_API_KEY", "openai-completions"),
        ModelApi::Responses => ("openai", "OPENAI_API_KEY", "openai-responses"),
        ModelApi::AnthropicMessages => ("anthropic", "ANTHROPIC_API_KEY", "anthropic-messages"),
        ModelApi::GoogleGenerativeAi => ("google", "GEMINI_API_KEY", "google-generative-ai"),
    };
    let key = input.key(key_env);
    let mut home_files = Vec::new();
    let provider = match input.base_url() {
        Some(url) => {
            let model = input.model_id().ok_or(PresetError::ModelId { preset: Preset::Pi })?;
            home_files
                .push((".pi/agent/models.json".to_owned(), models(url, api_name, &key.0, model).to_string()));
            "ostler"
        }
        None => own_provider,
    };
    let mut command = input.program_or("pi");
    if !input.interactive {
        command.extend(words(["-p", "--mode", "json"]));
    }
    if let Some(model) = input.model_id() {
        command.extend(words(["--provider", provider, "--model", model]));
    }
    if let Some(session) = input.resume {
        command.extend(words(["--session", session]));
    }
    command.extend_from_slice(input.args);
    if !input.prompt.is_empty() {
        command.push(input.prompt_argument());
    }
    let mut variables =
        env([("PI_CODING_AGENT_DIR", &format!("{}/.pi/agent", input.home)), ("PI_OFFLINE", "1")]);
    variables.push(key);
    Ok(Launch { command, env: variables, home_files })
}

/// `models.json`: one provider with one model. `apiKey` names the variable; prices are not known here.
fn models(url: &str, api: &str, key_env: &str, model: &str) -> Value {
    json!({"providers": {"ostler": {
        "baseUrl": url,
        "api": api,
        "apiKey": key_env,
        "models": [{
            "id": model, "name": model, "reasoning": false, "input": ["text"],
            "contextWindow": CONTEXT_TOKENS, "maxTokens": OUTPUT_TOKENS,
            "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        }],
    }}})
}

/// The stream of `--mode json`. `message_end` brings each message once; `agent_end` says that no more will
/// come unless a retry begins, and the last message's `stopReason` says how it went. The exit code is 0
/// either way.
#[derive(Debug, Default)]
pub(super) struct Stream {
    session: Option<String>,
    words: String,
    last: Option<Verdict>,
    ended: bool,
    usage: Option<(i64, i64, f64)>,
}

impl Stream {
    pub(super) fn line(&mut self, line: &Value) {
        match text(line, "/type").unwrap_or_default() {
            "session" => self.session = text(line, "/id").map(str::to_owned),
            "agent_start" | "auto_retry_start" => self.ended = false,
            "message_end" if text(line, "/message/role") == Some("assistant") => {
                self.message(&line["message"]);
            }
            "agent_end" => self.ended = true,
            _ => {}
        }
    }

    /// `agent_end` repeats the whole conversation and may be longer than any line that is read.
    pub(super) fn too_long(&mut self, head: &[u8]) {
        self.ended |= head.starts_with(br#"{"type":"agent_end""#);
    }

    fn message(&mut self, message: &Value) {
        let (input, output, cost) = self.usage.unwrap_or_default();
        let read = ["/usage/input", "/usage/cacheRead", "/usage/cacheWrite"];
        self.usage = Some((
            input + read.iter().map(|at| count(message, at)).sum::<i64>(),
            output + count(message, "/usage/output"),
            cost + message.pointer("/usage/cost/total").and_then(Value::as_f64).unwrap_or(0.0),
        ));
        let blocks = message.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let words: Vec<_> = blocks.iter().filter_map(|block| text(block, "/text")).collect();
        if !words.is_empty() {
            self.words = words.join("\n");
        }
        let error = text(message, "/errorMessage").unwrap_or("the agent gave no reason");
        self.last = match text(message, "/stopReason").unwrap_or_default() {
            "stop" => Some(Verdict::Succeeded),
            "toolUse" => None,
            "error" => Some(failed(status_in(error), Reason::ModelError, error)),
            other => Some(failed(
                None,
                Reason::AgentReportedFailure,
                &format!("the last message ended with {other:?}"),
            )),
        };
    }

    pub(super) fn finish(self) -> FinalRecord {
        let usage = self.usage.map(|(input, output, cost)| Usage {
            input_tokens: Some(input),
            output_tokens: Some(output),
            usd: usd(cost),
        });
        record(self.last.filter(|_| self.ended), &self.words, usage, self.session)
    }
}
