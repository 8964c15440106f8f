//! What a pod cannot be.

use super::refused;
use crate::{
    harness::pod::{BIN, SHARED},
    kinds::Reason,
    ports::workloads::{AGENT_HOME, ContextContent, Error, PlaceSpec},
};

/// Folders of the agent's container that a workspace may not be, hold or lie in.
const TAKEN: [&str; 8] = [BIN, SHARED, AGENT_HOME, "/tmp", "/proc", "/sys", "/dev", "/etc"];

pub(super) fn check(spec: &PlaceSpec) -> Result<(), Error> {
    let invalid = |message: String| refused(spec, Reason::InvalidSpec, message);
    if spec.command.is_empty() {
        return Err(invalid("there is no command".to_owned()));
    }
    workspace_dir(&spec.workspace_dir).map_err(invalid)?;
    let contexts = spec.contexts.iter().filter_map(|context| match &context.content {
        ContextContent::Git { checkout, .. } => Some(checkout),
        ContextContent::Text(_) => None,
    });
    for checkout in spec.checkout.iter().chain(contexts) {
        let host = crate::harness::repository_host(&checkout.url).map_err(invalid)?;
        if host.is_none() {
            return Err(invalid("a run in a cluster cannot clone a repository of this machine".to_owned()));
        }
    }
    crate::harness::check_policies(&spec.egress).map_err(invalid)
}

fn workspace_dir(folder: &str) -> Result<(), String> {
    let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if !folder.starts_with('/') || parts.is_empty() || parts.iter().any(|part| [".", ".."].contains(part)) {
        return Err(format!("workspaceDir {folder}: an absolute path below / is needed, without . and .."));
    }
    let clean = format!("/{}", parts.join("/"));
    let within = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}/"));
    match TAKEN.iter().find(|taken| within(&clean, taken) || within(taken, &clean)) {
        Some(taken) => Err(format!("workspaceDir {folder}: {taken} is something else")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::workspace_dir;

    #[test]
    fn a_workspace_is_a_folder_of_its_own() {
        for good in ["/workspace", "/src/app", "/home/agent2", "/home/a", "/run/work"] {
            assert_eq!(workspace_dir(good), Ok(()), "{good}");
        }
        for bad in
            ["/", "", "work", "/a/../b", "/run", "/run/ostler", "/run/ostler/x", "/home", "/tmp/w", "/etc"]
        {
            assert!(workspace_dir(bad).is_err(), "{bad}");
        }
    }
}
