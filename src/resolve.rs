//! A run with its session, agent and policies, merged and defaulted: what will really run. Pure.

mod contexts;
mod launch;
mod limits;
mod pod;
pub mod quantity;
pub mod record;
pub mod rules;
#[cfg(test)]
pub(crate) mod testing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::{
    kinds::{
        Agent, EgressPolicy, HarnessRun, Reason, Session,
        harness_run::{PromptFrom, StartFrom},
        meta,
        session::WorkspaceType,
        shared::{CodeRepository, GitRef, KeyRef, NameRef},
    },
    ledger::digest,
    names::{ObjectName, Uid},
    ports::workloads::{Checkout, NamedPolicy, PlaceSpec, RunKey},
};

/// The agent of runs that name none, in a session that names none.
pub const DEFAULT_AGENT: &str = "default";
/// Time limit of a run whose author wrote none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_hours(1);
/// Between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);
/// Most bytes of an artifact whose author wrote no limit, and the most that may be written.
const ARTIFACT_BYTES: (u64, u64) = (1 << 20, 16 << 20);

/// Why a run cannot be resolved: something is missing, or contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Why, for status.
    pub reason: Reason,
    /// What, and what to do.
    pub message: String,
}

impl Missing {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidSpec, message)
    }
}

/// What a run is resolved from: objects of its namespace, by name. They are shared with the caches: a namespace may have
/// many large ones, and runs are resolved often.
#[derive(Debug, Default)]
pub struct World {
    /// Sessions.
    pub sessions: BTreeMap<String, Arc<Session>>,
    /// Agents.
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// Policies.
    pub policies: BTreeMap<String, Arc<EgressPolicy>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Rules about code repositories, of all namespaces.
    pub rules: Vec<rules::Rule>,
    /// The code branch of the last run of the same session that pushed one.
    pub previous_branch: Option<String>,
}

/// Resolves a run.
///
/// # Errors
/// [`Missing`] names the first thing that is missing or wrong.
pub fn resolve(run: &HarnessRun, digest: &str, world: &World) -> Result<PlaceSpec, Missing> {
    let key = run_key(run)?;
    let session = session_of(run, world)?;
    let agent = agent_of(run, session, world)?;
    let prompt = prompt(run, world)?;
    let egress = policies(run, session, agent, world)?;
    let repository =
        run.spec.repository.as_ref().or_else(|| session.and_then(|s| s.spec.repository.as_ref()));
    let launch = launch::launch(run, agent, prompt.as_deref(), world)?;
    let contexts = contexts::merge(run, session, agent, world)?;
    let checkout = repository.map(|r| checkout(run, &key, r, world)).transpose()?;
    rules::check(checkout.as_ref(), &contexts, &rules::binding(run, session, agent, &world.rules))?;
    Ok(PlaceSpec {
        digest: digest.to_owned(),
        preset: launch.preset,
        command: launch.command,
        env: launch.env,
        secret_env: launch.secret_env,
        secret_files: launch.secret_files,
        home_files: launch.home_files,
        workspace_dir: launch.workspace_dir,
        working_dir: run.spec.working_dir.clone().unwrap_or_default(),
        instructions: launch.instructions,
        checkout,
        contexts,
        egress,
        limits: limits::merge(run, agent)?,
        timeout: timeout(run, agent),
        grace: GRACE,
        artifacts: artifacts(run)?,
        persistent_workspace: persistent_workspace(session)?,
        binds: agent.spec.local.as_ref().map(|l| l.binds.clone()).unwrap_or_default(),
        image: agent.spec.image.clone(),
        pod: pod::wishes(run, session, agent)?,
        run: key,
    })
}

/// The digest of a run over what its author wrote: spec and prompt.
///
/// The syncer's annotation wins, because only it knows the bytes of a prompt by path; an object that came another way is
/// digested as it is.
///
/// # Errors
/// [`Missing`] when the spec cannot be written as JSON.
pub fn digest_of(run: &HarnessRun, world: &World) -> Result<String, Missing> {
    if let Some(digest) = run.annotations().get(meta::DIGEST) {
        return Ok(digest.clone());
    }
    let spec = serde_json::to_value(&run.spec)
        .map_err(|e| Missing::invalid(format!("the spec is not JSON: {e}")))?;
    let by_reference = run.spec.task.as_ref().is_some_and(|t| t.prompt_from.is_some());
    let prompt = if by_reference { prompt(run, world)? } else { None };
    Ok(digest::of_run(&spec, prompt.as_deref().map(str::as_bytes)))
}

fn run_key(run: &HarnessRun) -> Result<RunKey, Missing> {
    let namespace = run.namespace().unwrap_or_default().parse();
    let name = run.name_any().parse();
    let uid = run.uid().unwrap_or_default().parse();
    match (namespace, name, uid) {
        (Ok(namespace), Ok(name), Ok(uid)) => Ok(RunKey { namespace, name, uid }),
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
            Err(Missing::invalid(error.to_string()))
        }
    }
}

fn session_of<'a>(run: &HarnessRun, world: &'a World) -> Result<Option<&'a Session>, Missing> {
    let Some(NameRef { name }) = &run.spec.session_ref else { return Ok(None) };
    let session = world.sessions.get(name).map(Arc::as_ref);
    let session = session.filter(|s| s.metadata.deletion_timestamp.is_none());
    let missing = || {
        Missing::new(
            Reason::SessionNotFound,
            format!("Session {name} does not exist; push it, or correct spec.sessionRef"),
        )
    };
    session.map(Some).ok_or_else(missing)
}

fn agent_of<'a>(run: &HarnessRun, session: Option<&Session>, world: &'a World) -> Result<&'a Agent, Missing> {
    let named = run.spec.agent_ref.as_ref().or_else(|| session.and_then(|s| s.spec.agent_ref.as_ref()));
    let name = named.map_or(DEFAULT_AGENT, |r| r.name.as_str());
    world.agents.get(name).map(Arc::as_ref).ok_or_else(|| {
        let hint = if named.is_some() {
            "push it, or correct the agentRef"
        } else {
            "name one in spec.agentRef, or push it"
        };
        Missing::new(Reason::AgentNotFound, format!("Agent {name} does not exist; {hint}"))
    })
}

fn prompt(run: &HarnessRun, world: &World) -> Result<Option<String>, Missing> {
    let Some(task) = &run.spec.task else { return Ok(None) };
    match (&task.prompt, &task.prompt_from) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some(PromptFrom { config_map_key_ref: Some(reference), .. })) => {
            config_value(reference, world).map(Some)
        }
        (None, Some(PromptFrom { path: Some(path), .. })) => {
            let name = run.annotations().get(meta::PROMPT).cloned();
            let name = name.ok_or_else(|| {
                let text = format!("the prompt is the file {path}, which only the syncer reads; use promptFrom.configMapKeyRef");
                Missing::new(Reason::PromptNeedsSyncer, text)
            })?;
            config_value(&KeyRef { name, key: meta::PROMPT_KEY.to_owned() }, world).map(Some)
        }
        _ => Ok(None),
    }
}

fn config_value(reference: &KeyRef, world: &World) -> Result<String, Missing> {
    let KeyRef { name, key } = reference;
    let data = world.config_maps.get(name).and_then(|map| map.data.as_ref());
    data.and_then(|data| data.get(key)).cloned().ok_or_else(|| {
        Missing::new(Reason::ConfigMapNotFound, format!("ConfigMap {name} with key {key} does not exist"))
    })
}

fn policies(
    run: &HarnessRun,
    session: Option<&Session>,
    agent: &Agent,
    world: &World,
) -> Result<Vec<NamedPolicy>, Missing> {
    let of_session = session.map(|s| s.spec.egress_policy_refs.as_slice()).unwrap_or_default();
    let mut names: Vec<&str> = Vec::new();
    for reference in
        agent.spec.egress_policy_refs.iter().chain(of_session).chain(&run.spec.egress_policy_refs)
    {
        if !names.contains(&reference.name.as_str()) {
            names.push(&reference.name);
        }
    }
    let spec = |name: &str| {
        let missing =
            || Missing::new(Reason::EgressPolicyNotFound, format!("EgressPolicy {name} does not exist"));
        let policy = world.policies.get(name).ok_or_else(missing)?;
        Ok(NamedPolicy { name: name.to_owned(), spec: policy.spec.clone() })
    };
    names.into_iter().map(spec).collect()
}

fn checkout(
    run: &HarnessRun,
    key: &RunKey,
    repository: &CodeRepository,
    world: &World,
) -> Result<Checkout, Missing> {
    let previous = run.spec.start_from == Some(StartFrom::PreviousRun);
    let branch = if previous { world.previous_branch.clone() } else { None };
    let reference = branch.map_or_else(
        || repository.reference.clone(),
        |branch| Some(GitRef { branch: Some(branch), ..GitRef::default() }),
    );
    Ok(Checkout {
        url: repository.url.clone(),
        reference,
        depth: repository.depth.unwrap_or(1),
        secret: repository.secret_ref.as_ref().map(secret_name).transpose()?,
        branch: format!("ostler/{}/{}", key.namespace, key.name),
    })
}

fn checkout_of_context(repository: &CodeRepository) -> Result<Checkout, Missing> {
    Ok(Checkout {
        url: repository.url.clone(),
        reference: repository.reference.clone(),
        depth: 1,
        secret: repository.secret_ref.as_ref().map(secret_name).transpose()?,
        branch: String::new(),
    })
}

fn secret_name(reference: &NameRef) -> Result<ObjectName, Missing> {
    reference.name.parse().map_err(|e: crate::names::InvalidName| Missing::invalid(e.to_string()))
}

fn timeout(run: &HarnessRun, agent: &Agent) -> Duration {
    let authored = run.spec.timeout.or(agent.spec.timeout);
    authored.map_or(DEFAULT_TIMEOUT, |d| Duration::from(d).max(Duration::from_secs(1)))
}

fn artifacts(run: &HarnessRun) -> Result<Vec<(String, u64)>, Missing> {
    let wanted = run.spec.result.as_ref().map(|r| r.artifacts.as_slice()).unwrap_or_default();
    let (default, most) = ARTIFACT_BYTES;
    let limit = |text: Option<&String>| match text {
        None => Ok(default),
        Some(text) => quantity::units(text).map_err(|e| Missing::invalid(e.to_string())),
    };
    let one = |artifact: &crate::kinds::harness_run::Artifact| {
        let bytes = limit(artifact.max_bytes.as_ref())?;
        if bytes > most {
            return Err(Missing::invalid(format!("artifact {}: at most 16Mi can be kept", artifact.path)));
        }
        Ok((inside_workspace(&artifact.path)?, bytes))
    };
    wanted.iter().map(one).collect()
}

/// A path that stays inside the workspace.
fn inside_workspace(path: &str) -> Result<String, Missing> {
    let path: Result<crate::names::RepoPath, _> = path.trim_start_matches("./").parse();
    path.map(|p| p.to_string()).map_err(|e| Missing::invalid(e.to_string()))
}

fn persistent_workspace(session: Option<&Session>) -> Result<Option<Uid>, Missing> {
    let Some(session) = session else { return Ok(None) };
    if session.spec.workspace.as_ref().and_then(|w| w.type_) != Some(WorkspaceType::Persistent) {
        return Ok(None);
    }
    if session.spec.max_concurrent_runs.unwrap_or(1) > 1 {
        let text = "a Persistent workspace takes one run at a time; set maxConcurrentRuns to 1 or the workspace to Ephemeral";
        return Err(Missing::invalid(text));
    }
    let uid = session.uid().unwrap_or_default().parse();
    uid.map(Some).map_err(|e: crate::names::InvalidName| Missing::invalid(e.to_string()))
}

#[cfg(test)]
mod tests;
