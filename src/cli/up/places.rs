//! The places of runs on this machine.

use std::sync::Arc;

use super::{Error, UpArgs, state_folder::Layout};
use crate::{
    embedded::access::TokenFile,
    ports::{Secrets, Workloads},
};

/// Opens the folder of places.
pub(super) fn open(
    _args: &UpArgs,
    _layout: &Layout,
    _secrets: &Arc<dyn Secrets>,
    _access: &Arc<TokenFile>,
) -> Result<Arc<dyn Workloads>, Error> {
    Err(Error::setup("open the places", "not built yet"))
}
