//! The final record, read from the agent's standard output while it runs.

use serde_json::Value;

use super::{
    Preset, claude_code, codex, gemini,
    lines::{Line, Lines},
    opencode, pi,
};
use crate::{
    kinds::{Reason, harness_run::Usage},
    report::{FinalRecord, Verdict},
};

/// What is kept of a summary, a message and a session id.
const SUMMARY_BYTES: usize = 16 * 1024;
const MESSAGE_BYTES: usize = 1024;
const SESSION_BYTES: usize = 256;

/// Reads the standard output of one agent. Keeps a line, the last words and the counts; never more.
#[derive(Debug)]
pub struct RecordReader {
    lines: Lines,
    agent: Agent,
    skipped: u64,
}

/// What each agent's stream has said so far.
#[derive(Debug)]
enum Agent {
    ClaudeCode(claude_code::Stream),
    Codex(codex::Stream),
    Gemini(gemini::Stream),
    Opencode(opencode::Stream),
    Pi(pi::Stream),
    Command,
}

/// What a stream said in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The final record.
    pub record: FinalRecord,
    /// Lines that were no JSON objects, or too long to be read.
    pub skipped_lines: u64,
}

impl RecordReader {
    /// A reader for the output of this agent, started headless by its [`super::launch`].
    #[must_use]
    pub fn new(preset: Preset) -> Self {
        let agent = match preset {
            Preset::ClaudeCode => Agent::ClaudeCode(claude_code::Stream::default()),
            Preset::Codex => Agent::Codex(codex::Stream::default()),
            Preset::Gemini => Agent::Gemini(gemini::Stream::default()),
            Preset::Opencode => Agent::Opencode(opencode::Stream::default()),
            Preset::Pi => Agent::Pi(pi::Stream::default()),
            Preset::Command => Agent::Command,
        };
        Self { lines: Lines::default(), agent, skipped: 0 }
    }

    /// Takes in a piece of the stream; its borders mean nothing.
    pub fn push(&mut self, bytes: &[u8]) {
        if matches!(self.agent, Agent::Command) {
            return;
        }
        let Self { lines, agent, skipped } = self;
        lines.push(bytes, |line| agent.line(line, skipped));
    }

    /// The record at the end of the stream. `exit_code` (128 + n for signal n) counts only where the agent
    /// is known to say with it what it did not write.
    #[must_use]
    pub fn finish(mut self, exit_code: i32) -> Reading {
        let Self { lines, agent, skipped } = &mut self;
        lines.end(&mut |line: Line<'_>| agent.line(line, skipped));
        let record = match self.agent {
            Agent::ClaudeCode(stream) => stream.finish(),
            Agent::Codex(stream) => stream.finish(),
            Agent::Gemini(stream) => stream.finish(exit_code),
            Agent::Opencode(stream) => stream.finish(),
            Agent::Pi(stream) => stream.finish(),
            Agent::Command => FinalRecord::default(),
        };
        Reading { record, skipped_lines: self.skipped }
    }
}

impl Agent {
    fn line(&mut self, line: Line<'_>, skipped: &mut u64) {
        let text = match line {
            Line::Whole(text) => text,
            Line::Head(head) => {
                *skipped += 1;
                if let Self::Pi(stream) = self {
                    stream.too_long(head);
                }
                return;
            }
        };
        let Ok(value @ Value::Object(_)) = serde_json::from_slice(text) else {
            *skipped += 1;
            return;
        };
        match self {
            Self::ClaudeCode(stream) => stream.line(&value),
            Self::Codex(stream) => stream.line(&value),
            Self::Gemini(stream) => stream.line(&value),
            Self::Opencode(stream) => stream.line(&value),
            Self::Pi(stream) => stream.line(&value),
            Self::Command => {}
        }
    }
}

/// A record out of what was kept; without a verdict it is missing.
pub(super) fn record(
    verdict: Option<Verdict>,
    summary: &str,
    usage: Option<Usage>,
    session: Option<String>,
) -> FinalRecord {
    FinalRecord {
        verdict: Some(verdict.unwrap_or(Verdict::Missing)),
        summary: cut(summary, SUMMARY_BYTES).to_owned(),
        usage,
        session: session.map(|id| cut(&id, SESSION_BYTES).to_owned()),
    }
}

/// A failure; an HTTP status of the model tells more than the agent's words.
pub(super) fn failed(status: Option<u64>, otherwise: Reason, message: &str) -> Verdict {
    let reason = match status {
        Some(401 | 403) => Reason::ModelUnauthorized,
        Some(400..=599) => Reason::ModelError,
        _ => otherwise,
    };
    Verdict::Failed { reason, message: cut(message.trim(), MESSAGE_BYTES).to_owned() }
}

/// The first three-digit number of a message that is an HTTP error status, as in `API Error: 401 …`.
pub(super) fn status_in(message: &str) -> Option<u64> {
    let numbers = message.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 3);
    numbers.filter_map(|digits| digits.parse().ok()).find(|status| (400..=599).contains(status))
}

/// US dollars as decimal text to a millionth; nothing where nothing is known.
pub(super) fn usd(dollars: f64) -> Option<String> {
    if !dollars.is_finite() || dollars <= 0.0 {
        return None;
    }
    let text = format!("{dollars:.6}");
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// A text field, or nothing.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// A count, 0 where there is none; never below 0.
pub(super) fn count(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0).max(0)
}

/// At most `bytes` of a text, at a character's border.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
