//! Tells what happens to objects as events of the cluster, where `kubectl describe` shows them.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    kinds::Reason,
    names::Uid,
    ports::objects::{Happening, Severity},
};

/// The most that wait to be told; more are dropped.
const WAITING: usize = 256;
/// The most of which a repeat is recognised; the one told longest ago is forgotten first.
const REMEMBERED: usize = 1_000;
/// The most bytes of a message, as Kubernetes and the port have it.
const MAX_MESSAGE_BYTES: usize = 1_024;
/// The most bytes of an object's name in the name of its event, so that both parts are a name of Kubernetes (253).
const MAX_NAME_BYTES: usize = 200;
/// An event that takes longer is dropped: what comes after it matters more.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who tells, and what it does.
pub(super) const REPORTER: &str = "ostler.dev/ostler";
const ACTION: &str = "Reconcile";

/// Starts the task that tells. It ends when every sender is gone and all that waited is told.
pub(super) fn start(client: Client) -> mpsc::Sender<Happening> {
    let (sender, mut waiting) = mpsc::channel(WAITING);
    let mut teller = Teller { client, told: HashMap::new() };
    tokio::spawn(async move {
        while let Some(happening) = waiting.recv().await {
            teller.tell(happening).await;
        }
    });
    sender
}

/// What makes two happenings the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Uid,
    warning: bool,
    reason: Reason,
    message: String,
}

/// The event of a key that exists.
#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Teller {
    client: Client,
    told: HashMap<Key, Told>,
}

impl Teller {
    async fn tell(&mut self, happening: Happening) {
        let about = happening.about.clone();
        match timeout(PATIENCE, self.try_tell(happening)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%about, error, "an event is dropped");
            }
            Err(_) => tracing::warn!(%about, "an event is dropped: the API server does not answer"),
        }
    }

    async fn try_tell(&mut self, happening: Happening) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let key = key(&happening);
        let api: Api<Event> = Api::namespaced(self.client.clone(), happening.about.namespace.as_str());
        if let Some(told) = self.told.get_mut(&key) {
            let count = told.count.saturating_add(1);
            let series = EventSeries { count, last_observed_time: MicroTime(now) };
            match api
                .patch(&told.name, &PatchParams::default(), &Patch::Merge(&json!({"series": series})))
                .await
            {
                Ok(_) => {
                    (told.count, told.last) = (count, now);
                    return Ok(());
                }
                // the cluster forgets events; then this is the first again
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = event(&happening, &key.message, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.forget_the_oldest();
        self.told.insert(key, Told { name, count: 1, last: now });
        Ok(())
    }

    fn forget_the_oldest(&mut self) {
        if self.told.len() >= REMEMBERED {
            let oldest = self.told.iter().min_by_key(|(_, told)| told.last).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.told.remove(&key));
        }
    }
}

fn key(happening: &Happening) -> Key {
    let Happening { uid, severity, reason, message, .. } = happening;
    let message = message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned();
    Key { uid: uid.clone(), warning: *severity == Severity::Warning, reason: *reason, message }
}

fn event(happening: &Happening, message: &str, now: Timestamp) -> Event {
    let about = &happening.about;
    let namespace = Some(about.namespace.to_string());
    let name = about.name.as_str();
    let start = name[..name.floor_char_boundary(MAX_NAME_BYTES)].trim_end_matches(['-', '.']);
    Event {
        action: Some(ACTION.to_owned()),
        event_time: Some(MicroTime(now)),
        metadata: ObjectMeta {
            name: Some(format!("{start}.{:x}", now.as_nanosecond())),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        note: Some(message.to_owned()),
        reason: Some(happening.reason.as_str().to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(about.kind.api_resource().api_version),
            kind: Some(about.kind.as_str().to_owned()),
            name: Some(name.to_owned()),
            namespace,
            uid: Some(happening.uid.to_string()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(instance()),
        type_: Some(if happening.severity == Severity::Warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

/// The pod's or machine's name.
fn instance() -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if node.is_empty() { REPORTER.to_owned() } else { node }
}
