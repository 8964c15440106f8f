//! Codex CLI.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    Launch, Preset, PresetError, PresetInput, env,
    record::{count, failed, record, status_in, text},
    words,
};
use crate::{
    kinds::{Reason, agent::ModelApi, harness_run::Usage},
    report::{FinalRecord, Verdict},
};

const OWN_API: &str = "https://api.openai.com/v1";

pub(super) fn launch(input: &PresetInput<'_>) -> Result<Launch, PresetError> {
    input.only_api(Preset::Codex, ModelApi::Responses)?;
    let mut command = input.program_or("codex");
    // The configuration file already turns approvals and the sandbox off; `exec resume` takes no such flag.
    match (input.interactive, input.resume) {
        (false, None) => command.extend(words([
            "exec",
            "--json",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
        ])),
        (false, Some(session)) => command.extend(words(["exec", "resume", "--json", session])),
        // Without it the program leaves a server of its own running behind it.
        (true, None) => command.extend(words(["--no-daemon"])),
        (true, Some(session)) => command.extend(words(["resume", "--no-daemon", session])),
    }
    command.extend_from_slice(input.args);
    if !input.prompt.is_empty() {
        command.push(input.prompt_argument());
    }
    let key = input.key("OPENAI_API_KEY");
    let config = config(input, &key.0);
    let mut variables = env([("CODEX_HOME", &format!("{}/.codex", input.home))]);
    variables.push(key);
    Ok(Launch { command, env: variables, home_files: vec![(".codex/config.toml".to_owned(), config)] })
}

/// `config.toml`. JSON strings are TOML basic strings, so values are quoted as JSON.
fn config(input: &PresetInput<'_>, key_env: &str) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let mut toml = String::new();
    if let Some(model) = input.model_id() {
        let _ = writeln!(toml, "model = {}", quoted(model));
    }
    let _ = write!(
        toml,
        r#"model_provider = "ostler"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
[analytics]
enabled = false
[feedback]
enabled = false
[features]
plugins = false
[model_providers.ostler]
name = "ostler"
base_url = {url}
env_key = {key}
wire_api = "responses"
[projects.{workspace}]
trust_level = "trusted"
"#,
        url = quoted(input.base_url().unwrap_or(OWN_API)),
        key = quoted(key_env),
        workspace = quoted(input.workspace_dir),
    );
    for server in input.mcp_servers {
        if let Some((program, args)) = server.command.split_first() {
            let args: Vec<_> = args.iter().map(|arg| quoted(arg)).collect();
            let (name, program, args) = (quoted(&server.name), quoted(program), args.join(", "));
            let _ = write!(toml, "[mcp_servers.{name}]\ncommand = {program}\nargs = [{args}]\n");
        }
    }
    toml
}

/// The stream of `exec --json`; the last `turn.completed` or `turn.failed` decides.
#[derive(Debug, Default)]
pub(super) struct Stream {
    session: Option<String>,
    words: String,
    error: String,
    verdict: Option<Verdict>,
    usage: Option<Usage>,
}

impl Stream {
    pub(super) fn line(&mut self, line: &Value) {
        match text(line, "/type").unwrap_or_default() {
            "thread.started" => self.session = text(line, "/thread_id").map(str::to_owned),
            "turn.started" => self.verdict = None,
            "item.completed" if text(line, "/item/type") == Some("agent_message") => {
                text(line, "/item/text").unwrap_or_default().clone_into(&mut self.words);
            }
            // Retries are announced as errors, too: only a failed turn makes one final.
            "error" => text(line, "/message").unwrap_or_default().clone_into(&mut self.error),
            "turn.completed" => {
                self.verdict = Some(Verdict::Succeeded);
                self.usage = Some(Usage {
                    input_tokens: Some(count(line, "/usage/input_tokens")),
                    output_tokens: Some(count(line, "/usage/output_tokens")),
                    usd: None,
                });
            }
            "turn.failed" => {
                let message = text(line, "/error/message").unwrap_or(&self.error);
                self.verdict = Some(failed(status_in(message), Reason::AgentReportedFailure, message));
            }
            _ => {}
        }
    }

    pub(super) fn finish(self) -> FinalRecord {
        record(self.verdict, &self.words, self.usage, self.session)
    }
}
