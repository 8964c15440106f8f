//! What the loop reads from the store and writes to it, besides the plan's steps.

use futures::future::try_join_all;
use kube::ResourceExt;
use serde_json::Value;

use super::{Context, Error};
use crate::{
    kinds::{
        ConfigRepository, Kind, Object, Typed,
        condition::{self, types},
        config_repository::ConfigRepositoryStatus,
        meta,
    },
    manifest::Scope,
    names::Namespace,
    plan::Live,
    ports::objects::{At, Labels, Part, id_of, merge_patch},
};

/// Objects of a page.
const PAGE: u32 = 500;

/// The objects of the namespaces that the repository may write to.
///
/// All kinds are read at once: of ten thousand objects each list is many pages, one after the other.
pub(super) async fn live(scope: &Scope, context: &Context) -> Result<Live, Error> {
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::ConfigRepository);
    let lists = try_join_all(kinds.map(|kind| list(kind, scope, context))).await?;
    Ok(Live::new(lists.into_iter().flatten()))
}

/// In pages, of which only what a plan looks at is kept: of thousands of runs their statuses are most.
async fn list(kind: Kind, scope: &Scope, context: &Context) -> Result<Vec<(Kind, Object)>, Error> {
    let allowed = |object: &Object| {
        let namespace = object.namespace().and_then(|name| name.parse().ok());
        namespace.is_some_and(|namespace: Namespace| scope.allows(&namespace))
    };
    let mut part = Part { labels: Labels::default(), limit: PAGE, after: None };
    let mut kept = Vec::new();
    loop {
        let page = context.store.page(kind, scope.single(), &part).await;
        let page = page.map_err(|source| Error::Objects { what: format!("list {kind} objects"), source })?;
        let objects = page.objects.into_iter().filter(allowed);
        kept.extend(objects.map(|object| (kind, Live::trimmed(object))));
        match page.next {
            Some(next) => part.after = Some(next),
            None => return Ok(kept),
        }
    }
}

/// Writes the fields that this loop owns; the recorder's condition and tip are not among them.
pub(super) async fn write_status(
    repository: &ConfigRepository,
    mut new: ConfigRepositoryStatus,
    context: &Context,
) -> Result<(), Error> {
    let json = |status: &ConfigRepositoryStatus| serde_json::to_value(status).map_err(Error::Status);
    let what = || "write the status of the repository".to_owned();
    let Some(id) = id_of(ConfigRepository::KIND, repository) else { return Ok(()) };
    let failed = |source| Error::Objects { what: what(), source };
    // the recorder writes here, too: what it wrote meanwhile is kept
    let Some(current) = context.store.get(&id).await.map_err(failed)? else { return Ok(()) };
    let current: ConfigRepository = crate::ports::objects::typed(current).map_err(failed)?;
    let theirs = current.status.clone().unwrap_or_default();
    new.ledger_tip.clone_from(&theirs.ledger_tip);
    new.conditions.retain(|c| c.type_ != types::LEDGER_READY);
    new.conditions.extend(condition::get(&theirs.conditions, types::LEDGER_READY).cloned());
    let mut conditions = theirs.conditions.clone();
    conditions.retain(|old| new.conditions.iter().any(|c| c.type_ == old.type_));
    for condition in &new.conditions {
        match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
            Some(old) => *old = condition.clone(),
            None => conditions.push(condition.clone()),
        }
    }
    new.conditions = conditions;
    let old = current.status.as_ref().map_or_else(|| Ok(Value::Object(serde_json::Map::new())), json)?;
    let Some(patch) = merge_patch(&old, &json(&new)?) else { return Ok(()) };
    let Some(at) = At::of(&current) else { return Ok(()) };
    context.store.write_status(&id, &at, &patch, meta::SYNCER).await.map(drop).map_err(failed)
}
