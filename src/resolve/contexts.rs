//! Contexts: merged by name, agent < session < run.

use super::{Missing, World, checkout_of_context, config_value, inside_workspace};
use crate::{
    kinds::{Agent, HarnessRun, Reason, Session, shared::Context},
    ports::workloads::{ContextContent, ContextFile},
};

const DEFAULT_MODE: u32 = 0o644;

/// Merges the contexts of the three levels and finds their content.
///
/// # Errors
/// The first context that is missing or leaves the workspace; a missing optional one is left out.
pub(super) fn merge(
    run: &HarnessRun,
    session: Option<&Session>,
    agent: &Agent,
    world: &World,
) -> Result<Vec<ContextFile>, Missing> {
    let of_session = session.map(|s| s.spec.contexts.as_slice()).unwrap_or_default();
    let mut merged: Vec<&Context> = Vec::new();
    for context in agent.spec.contexts.iter().chain(of_session).chain(&run.spec.contexts) {
        match merged.iter_mut().find(|earlier| earlier.name == context.name) {
            Some(earlier) => *earlier = context,
            None => merged.push(context),
        }
    }
    let mut files = Vec::with_capacity(merged.len());
    for context in merged {
        match file(context, world) {
            Ok(file) => files.push(file),
            Err(missing) if context.optional == Some(true) && missing.reason == Reason::ConfigMapNotFound => {
            }
            Err(missing) => return Err(missing),
        }
    }
    Ok(files)
}

fn file(context: &Context, world: &World) -> Result<ContextFile, Missing> {
    let path = match &context.mount_path {
        Some(path) => inside_workspace(path)?,
        None => format!(".ostler/context/{}", context.name),
    };
    if path == ".git" || path.starts_with(".git/") {
        return Err(Missing::invalid(format!("context {}: .git is not a place for contexts", context.name)));
    }
    let mode = match &context.file_mode {
        Some(text) => u32::from_str_radix(text, 8)
            .map_err(|_| Missing::invalid(format!("context {}: {text} is not a file mode", context.name)))?,
        None => DEFAULT_MODE,
    };
    let held = match (&context.text, &context.config_map, &context.git) {
        (Some(text), _, _) => ContextContent::Text(text.clone()),
        (None, Some(reference), _) => ContextContent::Text(config_value(reference, world)?),
        (None, None, Some(git)) => {
            let path = git.path.as_deref().map(inside_workspace).transpose()?;
            ContextContent::Git { checkout: checkout_of_context(&git.repository)?, path }
        }
        (None, None, None) => {
            return Err(Missing::invalid(format!("context {} holds nothing", context.name)));
        }
    };
    Ok(ContextFile {
        name: context.name.clone(),
        path,
        mode,
        optional: context.optional == Some(true),
        content: held,
    })
}
