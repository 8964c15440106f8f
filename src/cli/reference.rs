//! Pages of the documentation that are made from the program, so that they cannot differ from it.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    kinds::Kind,
    schema::{json_schema, structural},
};

const MANIFESTS: &str = "\
<!-- Made by `make generate` from the types in src/kinds; change it there. -->
# Manifests

The fields that authors write, by kind. The schemas in [`schemas/`](../schemas) say the same to programs: an editor with the
YAML language server completes and checks a file that begins with `# yaml-language-server: $schema=…/schemas/<kind>.json`.

Every manifest has `apiVersion: ostler.dev/v1alpha1` (a ConfigMap: `v1`), `kind` and `metadata.name` (at most 63 characters), and
all but a ConfigMap have `spec`. Without `metadata.namespace` an object belongs to the namespace of its `ConfigRepository`
(`ostler up --namespace`). References are names in the same namespace. An unknown field is an error.

Durations are written as `90s`, `5m` or `1h30m`, quantities as `500m`, `512Mi` or `10Gi`. No field under `spec` has a default in the schema: what
is left out is filled in when a run starts.
";

/// The command line reference, as Markdown. Hidden commands are left out.
pub(super) fn cli(command: clap::Command) -> String {
    let options = clap_markdown::MarkdownOptions::new().title("Command line".to_owned()).show_footer(false);
    let page = clap_markdown::help_markdown_command_custom(&fenced(command), &options);
    // an empty default is none
    page.replace("\n\n  Default value: ``", "").trim_end().to_owned() + "\n"
}

/// Examples are laid out by hand: as a code block they stay so.
fn fenced(command: clap::Command) -> clap::Command {
    let examples = command.get_after_help().map(|help| format!("```text\n{help}\n```"));
    let command = match examples {
        Some(examples) => command.after_help(examples),
        None => command,
    };
    command.mut_subcommands(fenced)
}

/// The reference of all kinds' fields, as Markdown.
pub(super) fn manifests() -> String {
    let mut page = MANIFESTS.to_owned();
    for kind in Kind::OURS.into_iter().chain([Kind::ConfigMap]) {
        section(kind, &mut page);
    }
    page
}

fn section(kind: Kind, page: &mut String) {
    let schema = json_schema(kind);
    let about = schema["description"].as_str().unwrap_or_default();
    let note = match kind {
        Kind::ConfigRepository => {
            " `ostler up` makes it from its flags, or reads it from `--config FILE`; a file of a repository that holds one is refused."
        }
        Kind::HarnessRun => " Once it is claimed, only `stop` and `ttlSecondsAfterFinished` still count.",
        _ => "",
    };
    let spec = if kind == Kind::ConfigMap { "" } else { " below `spec`" };
    let head = format!("\n## {kind}\n\n{about}{note}\n\n| field{spec} | type | |\n|---|---|---|\n");
    page.push_str(&head);
    rows("", if kind == Kind::ConfigMap { &schema } else { &schema["properties"]["spec"] }, page);
    let mut told = Vec::new();
    rules("", &structural(kind)["properties"]["spec"], &mut told);
    if !told.is_empty() {
        page.push_str("\nBesides:\n\n");
        for rule in told {
            let _ = writeln!(page, "* {rule}");
        }
    }
}

/// One row for each field at and below a schema, in order of their names.
fn rows(above: &str, schema: &Value, page: &mut String) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut fields: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    fields.retain(|(name, _)| {
        !above.is_empty() || !["apiVersion", "kind", "metadata"].contains(&name.as_str())
    });
    fields.sort_by_key(|(name, _)| *name);
    for (name, field) in fields {
        let path = format!("{above}{name}");
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let about = field["description"].as_str().unwrap_or_default();
        let about = about.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(page, "| `{path}` | {}{needed} | {about} |", type_of(field));
        rows(&format!("{path}."), field, page);
        rows(&format!("{path}[]."), &field["items"], page);
    }
}

/// A field's type in words, with the bounds of numbers and lists.
fn type_of(field: &Value) -> String {
    if let Some(choices) = field["enum"].as_array() {
        let choices = choices.iter().filter_map(Value::as_str).map(|choice| format!("`{choice}`"));
        return choices.collect::<Vec<_>>().join(" or ");
    }
    let number = |key: &str| field[key].as_f64();
    match field["type"].as_str().unwrap_or("any") {
        "array" => {
            let most = number("maxItems").map_or_else(String::new, |most| format!("at most {most} "));
            format!("list of {most}{}", type_of(&field["items"]))
        }
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        name @ ("integer" | "number") => match (number("minimum"), number("maximum")) {
            (Some(least), Some(most)) => format!("{name}, {least} to {most}"),
            (Some(least), None) => format!("{name}, from {least}"),
            (None, Some(most)) => format!("{name}, to {most}"),
            (None, None) => name.to_owned(),
        },
        name => name.to_owned(),
    }
}

/// What the rules that span fields say, each once, in order.
fn rules(at: &str, schema: &Value, told: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if let Some(message) = rule["message"].as_str() {
            let place = if at.is_empty() { String::new() } else { format!("`{at}`: ") };
            let text = format!("{place}{message}");
            if !told.contains(&text) {
                told.push(text);
            }
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        rules(&path, field, told);
        rules(&format!("{path}[]"), &field["items"], told);
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn hidden_commands_are_not_documented_and_examples_are_blocks() {
        let page = cli(crate::cli::Cli::command());
        for hidden in ["ostler harness", "ostler shim", "ostler docs"] {
            assert!(!page.contains(hidden), "{hidden}");
        }
        assert!(
            page.contains("```text\nExamples:\n  ostler up .") && page.contains("## `ostler verify results`")
        );
    }

    #[test]
    fn types_are_told_with_their_bounds() {
        let list = serde_json::json!({"type": "array", "maxItems": 3, "items": {"type": "integer", "minimum": 1, "maximum": 65535.0}});
        assert_eq!(type_of(&list), "list of at most 3 integer, 1 to 65535");
        assert_eq!(type_of(&serde_json::json!({"type": "string", "enum": ["A", "B"]})), "`A` or `B`");
        let page = manifests();
        assert!(page.contains("| `rules[].ports` |") && page.contains("| `data` | map of string |"));
    }
}
