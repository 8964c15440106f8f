//! No places at all: for a controller that only syncs.

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};

use crate::{
    names::Uid,
    ports::{
        Workloads,
        workloads::{Error, NamedPolicy, Place, PlaceSpec, RunKey, SidecarStream, StopReason},
    },
};

/// Has no places and makes none. There is nothing to end or to remove.
pub(super) struct Nowhere;

const SAID: &str = "this controller makes no places (--places none)";

fn unknown(run: &Uid) -> Error {
    // only a place has a run's name, and there is none
    Error::NotFound(RunKey {
        namespace: "nowhere".parse().expect("a namespace"),
        name: "unknown".parse().expect("a name"),
        uid: run.clone(),
    })
}

#[async_trait]
impl Workloads for Nowhere {
    async fn ensure(&self, spec: &PlaceSpec) -> Result<Place, Error> {
        Err(Error::Unavailable { run: spec.run.clone(), what: "make the place", source: SAID.into() })
    }

    async fn observe(&self, _: &Uid) -> Result<Option<Place>, Error> {
        Ok(None)
    }

    async fn list(&self) -> Result<Vec<Place>, Error> {
        Ok(Vec::new())
    }

    fn changes(&self) -> BoxStream<'static, RunKey> {
        futures::stream::pending().boxed()
    }

    async fn confirm(&self, run: &Uid) -> Result<(), Error> {
        Err(unknown(run))
    }

    async fn stop(&self, run: &Uid, _: StopReason) -> Result<(), Error> {
        Err(unknown(run))
    }

    async fn update_egress(&self, run: &Uid, _: &[NamedPolicy]) -> Result<(), Error> {
        Err(unknown(run))
    }

    async fn remove(&self, _: &Uid) -> Result<(), Error> {
        Ok(())
    }

    async fn remove_workspace(&self, _: &Uid) -> Result<(), Error> {
        Ok(())
    }

    async fn open(&self, run: &Uid) -> Result<Box<dyn SidecarStream>, Error> {
        Err(unknown(run))
    }
}
