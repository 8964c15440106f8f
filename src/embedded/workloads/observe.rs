//! What is known of a place: its folder, the sidecar's state and the sidecar's lock, read together.

use std::io;

use crate::{
    harness::place::{Folder, State},
    kinds::harness_run::{EgressSeen, Startup},
    ports::workloads::{Place, Stage},
};

/// Whether there is, or should be, a sidecar.
pub(super) fn needs_keeper(folder: &Folder) -> bool {
    let (Ok(_), Ok(known)) = (folder.place(), folder.state()) else { return false };
    !matches!(seen_stage(folder, known.as_ref()), Stage::Released | Stage::Vanished)
}

/// What the state and the lock say together.
pub(super) fn seen_stage(folder: &Folder, known: Option<&State>) -> Stage {
    match known.map(|state| state.stage) {
        None => Stage::Created,
        // The outbox waits for a sidecar, and gets one.
        Some(stage @ (Stage::Released | Stage::Delivering)) => stage,
        Some(stage) if folder.has_sidecar().unwrap_or(false) => stage,
        // The sidecar may have gone on between the two looks.
        Some(_) => match folder.state().ok().flatten().map(|state| state.stage) {
            Some(stage @ (Stage::Released | Stage::Delivering)) => stage,
            _ => Stage::Vanished,
        },
    }
}

pub(super) fn observed(folder: &Folder) -> io::Result<Place> {
    let file = folder.place()?;
    let known = folder.state()?;
    let stage = seen_stage(folder, known.as_ref());
    let name = file.spec.run.uid.to_string();
    let node = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    let place = Place {
        run: file.spec.run,
        uid: file.uid,
        name,
        node,
        stage,
        begun: true,
        trouble: None,
        confirmed: folder.is_confirmed(),
        started_at: None,
        ended_at: None,
        startup: Startup::default(),
        policies: file.spec.egress,
        egress_proven: None,
        limits_not_enforced: None,
        egress: EgressSeen::default(),
        base: None,
        delivery_error: None,
    };
    Ok(match known {
        None => place,
        Some(seen) => Place {
            started_at: seen.started_at,
            ended_at: seen.ended_at,
            startup: seen.startup,
            policies: seen.policies.unwrap_or_else(|| place.policies.clone()),
            egress_proven: seen.egress_proven,
            limits_not_enforced: seen.limits_not_enforced,
            egress: seen.egress,
            base: seen.base,
            delivery_error: seen.delivery_error,
            ..place
        },
    })
}

/// Like [`observed`], where a place that is being removed is none.
pub(super) fn observed_if_any(folder: &Folder) -> io::Result<Option<Place>> {
    match observed(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        place => place.map(Some),
    }
}
