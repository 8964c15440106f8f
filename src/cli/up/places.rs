//! The places of runs on this machine.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    Error, UpArgs,
    state_folder::{self, Layout},
};
use crate::{
    embedded::{
        access::EmbeddedAccess,
        workloads::{EmbeddedWorkloads, Options},
    },
    ports::{Secrets, Workloads},
};

/// How long an agent goes on without a control plane.
const PATIENCE: Duration = Duration::from_mins(10);

/// Folders of a user's home that hold credentials.
const CREDENTIALS: [&str; 6] = [".ssh", ".gnupg", ".aws", ".kube", ".docker", ".config/ostler"];

/// Opens the folder of places and adopts what runs there.
pub(super) fn open(
    args: &UpArgs,
    layout: &Layout,
    secrets: &Arc<dyn Secrets>,
    access: &Arc<EmbeddedAccess>,
) -> Result<Arc<dyn Workloads>, Error> {
    let program = std::env::current_exe().map_err(|e| Error::setup("find our own program", e))?;
    let (minting, dropping) = (access.clone(), access.clone());
    let options = Options {
        places: layout.places(),
        workspaces: layout.workspaces(),
        program,
        recorder: layout.recorder_socket(),
        egress_hosts: args.egress_hosts.clone(),
        allow_unenforced: args.allow_unenforced_limits,
        patience: PATIENCE,
        tokens: Arc::new(move |run| minting.mint_run_token(run).map_err(Into::into)),
        drop_tokens: Arc::new(move |run| dropping.drop_run(run).map_err(Into::into)),
        hidden: hidden(args, layout),
        secrets: secrets.clone(),
    };
    let places = EmbeddedWorkloads::open(options);
    Ok(Arc::new(places.map_err(|e| Error::setup("open the places", e))?))
}

/// What no agent may be shown, whatever an `Agent` binds: credentials of the user, and what we keep ourselves.
fn hidden(args: &UpArgs, layout: &Layout) -> Vec<PathBuf> {
    // a user without a home has nothing in it
    let home = etcetera::home_dir().ok();
    let of_home = home.iter().flat_map(|home| CREDENTIALS.map(|folder| home.join(folder)));
    let ours = [state_folder::config_folder(), state_folder::default_root()].into_iter().flatten();
    let named = [&args.secrets, &args.signing_key].into_iter().flatten().cloned();
    of_home.chain(ours).chain(named).chain([layout.root().to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: UpArgs,
    }

    #[test]
    fn credentials_and_state_are_hidden() {
        let line = Line::parse_from(["up", "/repo", "--secrets", "/s/secrets", "--signing-key", "/k/key"]);
        let hidden = hidden(&line.args, &Layout::of(std::path::Path::new("/var/state")));
        let home = etcetera::home_dir().unwrap();
        for path in ["/s/secrets", "/k/key", "/var/state"].map(PathBuf::from) {
            assert!(hidden.contains(&path), "{hidden:?}");
        }
        for folder in CREDENTIALS {
            assert!(hidden.contains(&home.join(folder)), "{hidden:?}");
        }
    }
}
