//! How each known coding agent is started, configured and read. Pure.
//!
//! [`launch`] gives the command, environment and configuration files of an agent; [`RecordReader`] reads its
//! standard output for the final record. What is written here of an agent was seen by running it: exit codes
//! do not tell success (pi in JSON mode exits 0 when the model failed, a stopped gemini exits 0 without a
//! result), so only the final record does.

mod claude_code;
mod codex;
mod command;
mod gemini;
mod lines;
mod opencode;
mod pi;
mod record;

pub use crate::kinds::agent::Preset;
use crate::kinds::agent::{Model, ModelApi};

pub use record::{Reading, RecordReader};

/// Longer prompts go into a file: Linux takes at most 128 KiB in one argument (`MAX_ARG_STRLEN`).
const PROMPT_ARGUMENT_BYTES: usize = 96 * 1024;
/// Where such a prompt, and every prompt of the preset `command`, is, below the agent's home.
const PROMPT_FILE: &str = ".ostler/prompt.md";
/// The value of a key variable when nobody gives one: a gateway that needs no key gets along with it, and a
/// provider answers 401, which says more than a sign-in screen.
const NO_KEY: &str = "none";

/// Why an agent cannot be started as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// The preset `command` brings no command.
    #[error("preset command needs a command")]
    NoCommand,
    /// The agent does not speak this protocol.
    #[error("preset {preset:?} does not speak {api:?} to a model at a base URL")]
    Protocol {
        /// The agent.
        preset: Preset,
        /// The protocol that was asked for.
        api: ModelApi,
    },
    /// A model at a base URL has to be named.
    #[error("preset {preset:?} needs model.id when model.baseUrl is given")]
    ModelId {
        /// The agent.
        preset: Preset,
    },
    /// The agent has no MCP client.
    #[error("preset {preset:?} has no way to use MCP servers")]
    Mcp {
        /// The agent.
        preset: Preset,
    },
}

/// A tool server that the agent starts and talks to on its standard streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpServer {
    /// Its name towards the model.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// What a launch depends on.
#[derive(Debug, Clone, Copy, Default)]
pub struct PresetInput<'a> {
    /// The words that name the program, instead of the preset's own (`pi`, `codex`, …); its flags follow.
    pub program: &'a [String],
    /// Arguments between the preset's flags and the prompt.
    pub args: &'a [String],
    /// What the agent is to do.
    pub prompt: &'a str,
    /// An agent in a terminal for a person, instead of one that does its task and ends.
    pub interactive: bool,
    /// The model; absent fields are the agent's own choice.
    pub model: Option<&'a Model>,
    /// The variable that holds the model's key, instead of the protocol's usual one.
    pub key_env: Option<&'a str>,
    /// Tool servers.
    pub mcp_servers: &'a [McpServer],
    /// The agent's home as it sees it; absolute.
    pub home: &'a str,
    /// The workspace as the agent sees it; absolute.
    pub workspace_dir: &'a str,
    /// The egress proxy as the agent sees it, as in `http://127.0.0.1:3128`.
    pub proxy_url: Option<&'a str>,
    /// The agent's own session to go on with.
    pub resume: Option<&'a str>,
}

/// How an agent is started.
///
/// Standard input must be empty (`/dev/null`) unless interactive: open and silent, it hangs some agents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Launch {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment; what the author of the Agent says comes after it and wins.
    pub env: Vec<(String, String)>,
    /// Files below the agent's home: relative path and content. None holds a secret.
    pub home_files: Vec<(String, String)>,
}

/// The launch of an agent.
pub fn launch(preset: Preset, input: &PresetInput<'_>) -> Result<Launch, PresetError> {
    let mut launch = match preset {
        Preset::ClaudeCode => claude_code::launch(input),
        Preset::Codex => codex::launch(input),
        Preset::Gemini => gemini::launch(input),
        Preset::Opencode => opencode::launch(input),
        Preset::Pi => pi::launch(input),
        Preset::Command => command::launch(input),
    }?;
    if preset != Preset::Command && input.prompt.len() > PROMPT_ARGUMENT_BYTES {
        launch.home_files.push((PROMPT_FILE.to_owned(), input.prompt.to_owned()));
    }
    launch.env.extend(proxy_env(input.proxy_url));
    Ok(launch)
}

/// The file in the root of a checkout that the agent reads first.
#[must_use]
pub fn instructions_file(preset: Preset) -> &'static str {
    match preset {
        Preset::ClaudeCode => "CLAUDE.md",
        Preset::Gemini => "GEMINI.md",
        Preset::Codex | Preset::Opencode | Preset::Pi | Preset::Command => "AGENTS.md",
    }
}

/// Both spellings, because programs differ in which they read; loopback is inside the place.
fn proxy_env(url: Option<&str>) -> Vec<(String, String)> {
    let Some(url) = url else { return Vec::new() };
    let proxied = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"].map(|name| (name, url));
    let direct = ["NO_PROXY", "no_proxy"].map(|name| (name, "localhost,127.0.0.1,::1"));
    proxied.into_iter().chain(direct).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl<'a> PresetInput<'a> {
    /// The program's words, or the preset's own.
    fn program_or(&self, own: &str) -> Vec<String> {
        if self.program.is_empty() { vec![own.to_owned()] } else { self.program.to_vec() }
    }

    /// The prompt as one argument. Agents take a leading `-` for a flag and pi a leading `@` for a file; a
    /// space in front changes nothing for the model.
    fn prompt_argument(&self) -> String {
        if self.prompt.len() > PROMPT_ARGUMENT_BYTES {
            return format!("Your task is in the file {}. Read all of it, then do it.", self.prompt_file());
        }
        let space = if self.prompt.starts_with(['-', '@']) { " " } else { "" };
        format!("{space}{}", self.prompt)
    }

    fn prompt_file(&self) -> String {
        format!("{}/{PROMPT_FILE}", self.home)
    }

    fn model_id(&self) -> Option<&'a str> {
        self.model.and_then(|model| model.id.as_deref())
    }

    fn base_url(&self) -> Option<&'a str> {
        self.model.and_then(|model| model.base_url.as_deref())
    }

    /// The protocol asked for, which must be the only one that the agent speaks.
    fn only_api(&self, preset: Preset, spoken: ModelApi) -> Result<(), PresetError> {
        match self.model.and_then(|model| model.api) {
            Some(api) if api != spoken => Err(PresetError::Protocol { preset, api }),
            _ => Ok(()),
        }
    }

    /// The variable with the model's key, and the value that stands in for a missing one.
    fn key(&self, usual: &str) -> (String, String) {
        (self.key_env.unwrap_or(usual).to_owned(), NO_KEY.to_owned())
    }

    /// `{NAME: {"command": …, "args": […]}}`, the form that most agents share.
    fn mcp_map(&self) -> serde_json::Value {
        let servers = self.mcp_servers.iter().filter_map(|server| {
            let (program, args) = server.command.split_first()?;
            Some((server.name.clone(), serde_json::json!({"command": program, "args": args})))
        });
        serde_json::Value::Object(servers.collect())
    }
}

/// Owned pairs of literal ones.
fn env<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// Owned words of literal ones.
fn words<const N: usize>(words: [&str; N]) -> [String; N] {
    words.map(str::to_owned)
}

#[cfg(test)]
mod tests;
