//! What was told about an object: the events that ostler's own parts sent.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, api::ListParams};
use tokio::time::timeout;

use super::{PATIENCE, answer, events::REPORTER};
use crate::{
    kinds::{ObjectId, Reason},
    ports::objects::{Error, Told},
};

/// The most events of one object that are read.
const MOST: u32 = 100;

/// The events of one object that we told and the cluster still has, oldest first.
pub(super) async fn about(client: Client, id: &ObjectId) -> Result<Vec<Told>, Error> {
    let api: Api<Event> = Api::namespaced(client, id.namespace.as_str());
    let params = ListParams::default().fields(&format!("regarding.name={}", id.name)).limit(MOST);
    let listed = timeout(PATIENCE, api.list(&params)).await.map_err(|_| answer::silence())?;
    let listed = listed.map_err(|error| answer::of_list(id.kind, error))?;
    let mut told: Vec<Told> = listed.into_iter().filter_map(|event| read(id, event)).collect();
    told.sort_by_key(|told| told.last);
    Ok(told)
}

/// `None` for an event that somebody else sent, or that is about another kind.
fn read(id: &ObjectId, event: Event) -> Option<Told> {
    let regarding = event.regarding?;
    if regarding.kind.as_deref() != Some(id.kind.as_str())
        || event.reporting_controller.as_deref() != Some(REPORTER)
    {
        return None;
    }
    let reason = event.reason?;
    let reason = Reason::ALL.iter().copied().find(|known| known.as_str() == reason)?;
    let first: Timestamp = event.event_time?.0;
    let (count, last) = event.series.map_or((1, first), |series| (series.count, series.last_observed_time.0));
    Some(Told {
        about: id.clone(),
        uid: regarding.uid?.parse().ok()?,
        warning: event.type_.as_deref() == Some("Warning"),
        reason,
        message: event.note.unwrap_or_default(),
        count: u64::try_from(count).unwrap_or(1),
        first,
        last,
    })
}
