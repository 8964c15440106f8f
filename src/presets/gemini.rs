//! Gemini CLI.

use serde_json::{Value, json};

use super::{
    Launch, Preset, PresetError, PresetInput, env,
    record::{count, failed, record, status_in, text},
    words,
};
use crate::{
    kinds::{Reason, agent::ModelApi, harness_run::Usage},
    report::{FinalRecord, Verdict},
};

pub(super) fn launch(input: &PresetInput<'_>) -> Result<Launch, PresetError> {
    input.only_api(Preset::Gemini, ModelApi::GoogleGenerativeAi)?;
    let mut command = input.program_or("gemini");
    command.extend(words(["--yolo", "--skip-trust"]));
    if !input.interactive {
        command.extend(words(["-o", "stream-json"]));
    }
    // Named, it does not ask a router model before each turn.
    if let Some(model) = input.model_id() {
        command.extend(words(["-m", model]));
    }
    if let Some(session) = input.resume {
        command.extend(words(["--resume", session]));
    }
    command.extend_from_slice(input.args);
    if !input.prompt.is_empty() {
        command.extend([if input.interactive { "-i" } else { "-p" }.to_owned(), input.prompt_argument()]);
    }
    let mut variables = env([
        ("GEMINI_CLI_HOME", input.home),
        // As its own child it does not hear SIGTERM.
        ("GEMINI_CLI_NO_RELAUNCH", "true"),
    ]);
    variables.push(input.key("GEMINI_API_KEY"));
    if let Some(url) = input.base_url() {
        variables.extend(env([("GOOGLE_GEMINI_BASE_URL", url)]));
    }
    let settings = json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false},
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
        "mcpServers": input.mcp_map(),
    });
    let home_files = vec![(".gemini/settings.json".to_owned(), settings.to_string())];
    Ok(Launch { command, env: variables, home_files })
}

/// The stream of `-o stream-json`; its `result` line is the record.
#[derive(Debug, Default)]
pub(super) struct Stream {
    session: Option<String>,
    words: String,
    after_tool: bool,
    result: Option<(Verdict, Usage)>,
}

impl Stream {
    pub(super) fn line(&mut self, line: &Value) {
        match text(line, "/type").unwrap_or_default() {
            "init" => self.session = text(line, "/session_id").map(str::to_owned),
            "message" if text(line, "/role") == Some("assistant") => self.message(line),
            "tool_use" | "tool_result" => self.after_tool = true,
            "result" => {
                let usage = Usage {
                    input_tokens: Some(count(line, "/stats/input_tokens")),
                    output_tokens: Some(count(line, "/stats/output_tokens")),
                    usd: None,
                };
                self.result = Some((verdict(line), usage));
            }
            _ => {}
        }
    }

    /// The last words come in pieces; what stood before a tool's call is not among them.
    fn message(&mut self, line: &Value) {
        let piece = line.get("delta").and_then(Value::as_bool).unwrap_or(false);
        if self.after_tool || !piece {
            self.words.clear();
            self.after_tool = false;
        }
        if self.words.len() < super::lines::LINE_BYTES {
            self.words.push_str(text(line, "/content").unwrap_or_default());
        }
    }

    /// Without a `result` line its exit code may hold the model's HTTP status modulo 256; 0 without one is a
    /// stopped agent, not a finished one.
    pub(super) fn finish(self, exit_code: i32) -> FinalRecord {
        let (verdict, usage) = self.result.unzip();
        let status = (400..=599u64).find(|status| i32::try_from(status % 256) == Ok(exit_code));
        // Only statuses that model APIs give; the rest would be guesses.
        let by_code =
            status.filter(|s| matches!(s, 400 | 401 | 403 | 404 | 429 | 500 | 502 | 503)).map(|status| {
                failed(
                    Some(status),
                    Reason::ModelError,
                    &format!("the model answered {status} (exit code {exit_code})"),
                )
            });
        record(verdict.or(by_code), &self.words, usage, self.session)
    }
}

fn verdict(result: &Value) -> Verdict {
    if text(result, "/status") == Some("success") {
        return Verdict::Succeeded;
    }
    let message = text(result, "/error/message").unwrap_or("the agent gave no reason");
    failed(status_in(message), Reason::AgentReportedFailure, message)
}
