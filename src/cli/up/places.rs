//! The places of runs on this machine.

use std::{sync::Arc, time::Duration};

use super::{Error, UpArgs, state_folder::Layout};
use crate::{
    embedded::{
        access::EmbeddedAccess,
        workloads::{EmbeddedWorkloads, Options},
    },
    ports::{Secrets, Workloads},
};

/// How long an agent goes on without a control plane.
const PATIENCE: Duration = Duration::from_mins(10);

/// Opens the folder of places and adopts what runs there.
pub(super) fn open(
    args: &UpArgs,
    layout: &Layout,
    secrets: &Arc<dyn Secrets>,
    access: &Arc<EmbeddedAccess>,
) -> Result<Arc<dyn Workloads>, Error> {
    let program = std::env::current_exe().map_err(|e| Error::setup("find our own program", e))?;
    let access = access.clone();
    let options = Options {
        state: layout.root().to_owned(),
        program,
        recorder: layout.recorder_socket(),
        egress_hosts: args.egress_hosts.clone(),
        allow_unenforced: args.allow_unenforced_limits,
        patience: PATIENCE,
        tokens: Arc::new(move |run| access.mint_run_token(run).map_err(Into::into)),
        secrets: secrets.clone(),
    };
    let places = EmbeddedWorkloads::open(options);
    Ok(Arc::new(places.map_err(|e| Error::setup("open the places", e))?))
}
