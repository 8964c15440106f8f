//! What the pod of a run is asked for.

use kube::ResourceExt;

use super::{Missing, quantity, secret_name};
use crate::{
    kinds::{Agent, HarnessRun, Session},
    ports::workloads::PodWishes,
};

pub(super) fn of(run: &HarnessRun, session: Option<&Session>, agent: &Agent) -> Result<PodWishes, Missing> {
    let workspace = session.and_then(|session| session.spec.workspace.as_ref());
    let bytes = workspace.and_then(|workspace| workspace.size.as_deref()).map(quantity::units).transpose();
    Ok(PodWishes {
        session: session.and_then(|session| session.name_any().parse().ok()),
        runtime_class: run.spec.runtime_class_name.clone(),
        service_account: run.spec.service_account_name.clone(),
        node_selector: run.spec.node_selector.clone(),
        tolerations: run.spec.tolerations.clone(),
        affinity: run.spec.affinity.clone(),
        pull_secrets: agent.spec.image_pull_secrets.iter().map(secret_name).collect::<Result<_, _>>()?,
        storage_class: workspace.and_then(|workspace| workspace.storage_class_name.clone()),
        workspace_bytes: bytes.map_err(|error| Missing::invalid(error.to_string()))?,
    })
}
