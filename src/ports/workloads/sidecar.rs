//! What is spoken with a sidecar, after a place exists: one JSON request line, then the answer.

use serde::{Deserialize, Serialize};

/// A request for the agent's output, from a byte offset on.
///
/// The answer is the bytes themselves. With `follow` the stream stays open until the agent's output ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsRequest {
    /// The first byte wanted, counted from the start of the output; earlier than what is kept means the oldest kept.
    pub since: u64,
    /// True: go on until the output ends.
    pub follow: bool,
}

/// One request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// The agent's output.
    Logs(LogsRequest),
}
