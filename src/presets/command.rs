//! Any program: the exit code is its whole answer.

use super::{Launch, PROMPT_FILE, PresetError, PresetInput, env};

/// The prompt is not an argument, because nobody knows what the program would take it for: it is a file
/// below the agent's home whose path is in `OSTLER_PROMPT_FILE`.
pub(super) fn launch(input: &PresetInput<'_>) -> Result<Launch, PresetError> {
    if input.program.is_empty() {
        return Err(PresetError::NoCommand);
    }
    let command = input.program.iter().chain(input.args).cloned().collect();
    let variables = env([("OSTLER_PROMPT_FILE", &input.prompt_file())]);
    Ok(Launch {
        command,
        env: variables,
        home_files: vec![(PROMPT_FILE.to_owned(), input.prompt.to_owned())],
    })
}
