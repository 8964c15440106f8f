//! Claude Code.

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

pub(super) fn launch(input: &PresetInput<'_>) -> Result<Launch, PresetError> {
    input.only_api(Preset::ClaudeCode, ModelApi::AnthropicMessages)?;
    let mut command = input.program_or("claude");
    // First, because this flag takes every word up to the next flag.
    if !input.mcp_servers.is_empty() {
        command.extend(words(["--mcp-config", &format!("{}/.claude/ostler-mcp.json", input.home)]));
    }
    if !input.interactive {
        command.extend(words(["-p", "--output-format", "stream-json", "--verbose"]));
    }
    command.extend(words(["--dangerously-skip-permissions"]));
    if let Some(model) = input.model_id() {
        command.extend(words(["--model", model]));
    }
    if let Some(session) = input.resume {
        command.extend(words(["--resume", session]));
    }
    command.extend_from_slice(input.args);
    if !input.prompt.is_empty() {
        command.push(input.prompt_argument());
    }
    let mut variables = env([
        ("CLAUDE_CONFIG_DIR", &format!("{}/.claude", input.home)),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        // In the place's user namespace the agent may be uid 0, where it wants to be told that it is confined.
        ("IS_SANDBOX", "1"),
    ]);
    variables.push(input.key("ANTHROPIC_API_KEY"));
    if let Some(url) = input.base_url() {
        variables.extend(env([("ANTHROPIC_BASE_URL", url)]));
    }
    Ok(Launch { command, env: variables, home_files: home_files(input) })
}

/// Answers to the questions that a first start in a terminal asks, and the tool servers.
fn home_files(input: &PresetInput<'_>) -> Vec<(String, String)> {
    let onboarded = json!({
        "hasCompletedOnboarding": true,
        "projects": {input.workspace_dir: {"hasTrustDialogAccepted": true}},
    });
    let mut files = vec![
        (".claude/.claude.json".to_owned(), onboarded.to_string()),
        (".claude/settings.json".to_owned(), json!({"skipDangerousModePermissionPrompt": true}).to_string()),
    ];
    if !input.mcp_servers.is_empty() {
        files
            .push((".claude/ostler-mcp.json".to_owned(), json!({"mcpServers": input.mcp_map()}).to_string()));
    }
    files
}

/// The stream of `--output-format stream-json`; its `result` line is the record.
#[derive(Debug, Default)]
pub(super) struct Stream {
    session: Option<String>,
    result: Option<(Verdict, String, Usage)>,
}

impl Stream {
    pub(super) fn line(&mut self, line: &Value) {
        if let Some(session) = text(line, "/session_id") {
            self.session = Some(session.to_owned());
        }
        if text(line, "/type") == Some("result") {
            let words = text(line, "/result").unwrap_or_default();
            self.result = Some((verdict(line, words), words.to_owned(), usage(line)));
        }
    }

    pub(super) fn finish(self) -> FinalRecord {
        match self.result {
            Some((verdict, summary, usage)) => record(Some(verdict), &summary, Some(usage), self.session),
            None => record(None, "", None, self.session),
        }
    }
}

/// A run that failed on its model says `"subtype": "success"`, so `is_error` counts before it.
fn verdict(result: &Value, words: &str) -> Verdict {
    let subtype = text(result, "/subtype").unwrap_or_default();
    let is_error = result.get("is_error").and_then(Value::as_bool).unwrap_or(false);
    if !is_error && subtype == "success" {
        return Verdict::Succeeded;
    }
    let status = result.get("api_error_status").and_then(Value::as_u64).or_else(|| status_in(words));
    let terminal = text(result, "/terminal_reason").unwrap_or(subtype);
    failed(status, Reason::AgentReportedFailure, if words.is_empty() { terminal } else { words })
}

fn usage(result: &Value) -> Usage {
    let input: i64 = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
        .iter()
        .map(|field| count(result, &format!("/usage/{field}")))
        .sum();
    Usage {
        input_tokens: Some(input),
        output_tokens: Some(count(result, "/usage/output_tokens")),
        usd: result.get("total_cost_usd").and_then(Value::as_f64).and_then(usd),
    }
}
