//! How the agent is started: its preset, then what authors wrote over it.

use super::{Missing, World, config_value};
use crate::{
    kinds::{
        Agent, HarnessRun, Reason,
        agent::Preset,
        shared::{EnvVar, KeyRef},
    },
    ports::workloads::{AGENT_HOME, PROXY_URL, SecretKey},
    presets::{self, PresetInput},
};

const DEFAULT_WORKSPACE: &str = "/workspace";

/// The start of an agent.
pub(super) struct Launch {
    pub(super) preset: Preset,
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) secret_env: Vec<(String, SecretKey)>,
    pub(super) secret_files: Vec<(String, SecretKey)>,
    pub(super) home_files: Vec<(String, String)>,
    pub(super) workspace_dir: String,
    pub(super) instructions: Option<(String, String)>,
}

pub(super) fn launch(
    run: &HarnessRun,
    agent: &Agent,
    prompt: Option<&str>,
    world: &World,
) -> Result<Launch, Missing> {
    let spec = &agent.spec;
    let preset = spec.preset.unwrap_or(Preset::Command);
    let workspace_dir = spec.workspace_dir.clone().unwrap_or_else(|| DEFAULT_WORKSPACE.to_owned());
    let input = PresetInput {
        program: if run.spec.command.is_empty() { &spec.command } else { &run.spec.command },
        args: if run.spec.args.is_empty() { &spec.args } else { &run.spec.args },
        prompt: prompt.unwrap_or_default(),
        model: spec.model.as_ref(),
        home: AGENT_HOME,
        workspace_dir: &workspace_dir,
        proxy_url: Some(PROXY_URL),
        ..PresetInput::default()
    };
    if prompt.is_none() && preset != Preset::Command && run.spec.command.is_empty() {
        return Err(Missing::invalid("the run has no task; write spec.task.prompt"));
    }
    let started = presets::launch(preset, &input).map_err(|e| Missing::invalid(e.to_string()))?;
    let mut launch = Launch {
        preset,
        command: started.command,
        env: started.env,
        secret_env: Vec::new(),
        secret_files: Vec::new(),
        home_files: started.home_files,
        workspace_dir,
        instructions: None,
    };
    if let Some(text) = &spec.instructions {
        launch.instructions = Some((presets::instructions_file(preset).to_owned(), text.clone()));
    }
    for variable in spec.env.iter().chain(&run.spec.env) {
        set_variable(&mut launch, variable, world)?;
    }
    for credential in &spec.credentials {
        let key = secret_key(&credential.secret_ref)?;
        match (&credential.env, &credential.mount_path) {
            (Some(name), _) => launch.secret_env.push((name.clone(), key)),
            (None, Some(path)) => launch.secret_files.push((super::inside_workspace(path)?, key)),
            (None, None) => {
                return Err(Missing::invalid(format!("credential {} has no place", credential.name)));
            }
        }
    }
    Ok(launch)
}

/// Sets one variable; a later level replaces what an earlier one said, secret or not.
fn set_variable(launch: &mut Launch, variable: &EnvVar, world: &World) -> Result<(), Missing> {
    let name = variable.name.clone();
    launch.env.retain(|(earlier, _)| *earlier != name);
    launch.secret_env.retain(|(earlier, _)| *earlier != name);
    match (&variable.value, &variable.value_from) {
        (Some(value), _) => launch.env.push((name, value.clone())),
        (None, Some(from)) => match (&from.secret_key_ref, &from.config_map_key_ref) {
            (Some(secret), _) => launch.secret_env.push((name, secret_key(secret)?)),
            (None, Some(reference)) => launch.env.push((name, config_value(reference, world)?)),
            (None, None) => return Err(Missing::invalid(format!("variable {name} has no value"))),
        },
        (None, None) => return Err(Missing::invalid(format!("variable {name} has no value"))),
    }
    Ok(())
}

fn secret_key(reference: &KeyRef) -> Result<SecretKey, Missing> {
    let secret = reference
        .name
        .parse()
        .map_err(|e: crate::names::InvalidName| Missing::new(Reason::InvalidSpec, e.to_string()))?;
    Ok(SecretKey { secret, key: reference.key.clone() })
}
