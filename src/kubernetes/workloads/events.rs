//! What the cluster says about a pod that gets no further, where its status says nothing: the events about it.
//!
//! They are read, not watched: seldom, and only for pods that do not start. What they say is a hint, never more: events
//! come late, twice or not at all.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::ListParams};
use tokio::time::timeout;

use super::seen::Seen;

/// How long a pod may make no progress on its node before it is asked what is said about it: longer than most volumes
/// take, and shorter than a person's patience.
pub const STALL: Duration = Duration::from_secs(20);
/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most events that are looked at. A cluster keeps few of one pod: the same again only counts up.
const MAX_EVENTS: u32 = 200;

/// What is wrong, in the cluster's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    /// One word: `FailedMount`.
    pub(super) reason: String,
    /// A sentence.
    pub(super) message: String,
}

/// Why nobody knows what is said.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the events about the pod cannot be listed")]
    List(#[source] Box<kube::Error>),
    #[error("the events about the pod are not listed in time")]
    Silent,
}

/// The last word about this very pod, if it is a complaint.
pub(super) async fn complaint(client: &Client, seen: &Seen) -> Result<Option<Complaint>, Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), seen.run().namespace.as_str());
    let about = ListParams::default().fields(&format!("involvedObject.uid={}", seen.uid)).limit(MAX_EVENTS);
    let listed = timeout(PATIENCE, api.list(&about)).await.map_err(|_| Error::Silent)?;
    Ok(last_word(listed.map_err(|error| Error::List(Box::new(error)))?.items))
}

/// A complaint counts until something better is said, be it in the same second.
fn last_word(events: Vec<Event>) -> Option<Complaint> {
    let is_warning = |event: &Event| event.type_.as_deref() == Some("Warning");
    let last = events.into_iter().max_by_key(|event| (time(event), !is_warning(event)))?;
    is_warning(&last).then(|| Complaint {
        reason: last.reason.unwrap_or_default(),
        message: last.message.unwrap_or_default(),
    })
}

/// When it was said last; old and new ways of writing events keep that in different places.
fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let new = series.or(event.event_time.as_ref()).map(|time| time.0);
    event.last_timestamp.as_ref().map(|time| time.0).max(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_word_counts_if_it_is_a_complaint() {
        let at = |second: u32| format!("2026-11-21T08:00:{second:02}Z");
        let event = |type_: &str, reason: &str, old: Option<u32>, new: Option<u32>, again: Option<u32>| {
            let mut event = json!({"metadata": {}, "involvedObject": {}, "type": type_, "reason": reason,
                "message": format!("{reason} it is")});
            if let Some(second) = old {
                event["lastTimestamp"] = at(second).into();
            }
            if let Some(second) = new {
                event["eventTime"] = at(second).into();
            }
            if let Some(second) = again {
                event["series"] = json!({"count": 2, "lastObservedTime": at(second)});
            }
            serde_json::from_value::<Event>(event).unwrap()
        };
        let warning = |old, new, again| event("Warning", "FailedMount", old, new, again);
        let normal = |old, new, again| event("Normal", "Pulling", old, new, again);
        let cases = [
            (vec![], false),
            (vec![normal(Some(9), None, None)], false),
            (vec![normal(Some(1), None, None), warning(Some(2), None, None)], true),
            (vec![warning(Some(2), None, None), normal(Some(3), None, None)], false),
            (vec![warning(Some(2), None, None), normal(Some(2), None, None)], false),
            (vec![normal(Some(4), None, None), warning(None, Some(1), Some(5))], true),
            (vec![normal(None, Some(4), None), warning(None, Some(5), None)], true),
            (vec![normal(None, Some(4), Some(6)), warning(None, Some(5), None)], false),
        ];
        for (number, (events, complains)) in cases.into_iter().enumerate() {
            let wanted = Complaint { reason: "FailedMount".into(), message: "FailedMount it is".into() };
            assert_eq!(last_word(events), complains.then_some(wanted), "case {number}");
        }
    }
}
