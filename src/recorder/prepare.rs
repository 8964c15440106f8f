//! A delivery becomes ready for the ledger: is it the run that it says, and are its commits pushed?

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use kube::ResourceExt;

use super::{
    Context, Error, code,
    queue::{self, Due, past},
    turn::Told,
    world::World,
};
use crate::{
    kinds::{HarnessRun, Reason},
    ledger::entry,
    names::{ObjectName, Uid},
    ports::objects,
    report::{Delivery, Receipt},
    telemetry::{Chain, Decision, Verb},
};

/// What became of a delivery before the ledger.
#[derive(Debug)]
pub(super) enum Prepared {
    /// It can be recorded.
    Ready(Box<Outgoing>),
    /// There is nothing to record.
    Answered(Uid, Receipt),
}

/// A result on its way to the ledger.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) run: Arc<HarnessRun>,
    pub(super) delivery: Delivery,
    pub(super) push: entry::Push,
}

/// The run as it is now, as far as we see; `Err` holds the answer when there is nothing to record. What is written on the
/// way is guarded by the run's version, so that only a run that we do not see is read.
pub(super) async fn current(
    context: &Context,
    world: &World,
    told: &Told,
    delivery: &Delivery,
    give_up_after: Duration,
) -> Result<Result<Arc<HarnessRun>, Receipt>, Error> {
    let key = &delivery.report.run;
    let is_it = |run: &HarnessRun| run.metadata.uid.as_deref() == Some(key.uid.as_str());
    let seen = world.run(&key.namespace, &key.name).filter(|run| is_it(run) && !told.is_ahead(run));
    let run = match seen {
        Some(run) => Some(run),
        None => objects::get(context.store.as_ref(), &key.namespace, &key.name).await?.map(Arc::new),
    };
    let Some(run) = run.filter(|run| is_it(run)) else { return Ok(Err(Receipt::OtherRun)) };
    let recorded = queue::due(&run, give_up_after, (context.clock)()) == Due::Nothing;
    Ok(if recorded { Err(Receipt::Recorded) } else { Ok(run) })
}

/// Pushes the agent's commits.
pub(super) async fn pushed(
    context: Arc<Context>,
    run: Arc<HarnessRun>,
    wanted: code::Wanted,
    delivery: Delivery,
    give_up_after: Duration,
    interrupt: Arc<AtomicBool>,
) -> Prepared {
    let push = match push(&context, &run, wanted, delivery.clone(), interrupt).await {
        Ok(push) => push,
        Err(error) => {
            let text = Chain(&error).to_string();
            tracing::warn!(run = %delivery.report.run, error = text, "the code branch is not pushed yet");
            let now = (context.clock)();
            if !past(delivery.report.ended_at.unwrap_or(now), give_up_after, now) {
                return Prepared::Answered(delivery.report.run.uid, Receipt::Waiting);
            }
            entry::Push::withheld(Reason::PushRefused, None, format!("given up: {text}"))
        }
    };
    ready(&context, run, delivery, push)
}

/// A result that can be recorded, with what became of the agent's commits.
pub(super) fn ready(
    context: &Context,
    run: Arc<HarnessRun>,
    delivery: Delivery,
    push: entry::Push,
) -> Prepared {
    if let Some(branch) = &push.branch {
        let decision = if push.pushed { Decision::Allowed } else { Decision::Denied };
        let said = format!("{}: {}", push.reason, push.message);
        context.audit(Verb::Push, &format!("branch {branch}"), decision, &said);
    }
    Prepared::Ready(Box::new(Outgoing { run, delivery, push }))
}

async fn push(
    context: &Context,
    run: &HarnessRun,
    wanted: code::Wanted,
    delivery: Delivery,
    interrupt: Arc<AtomicBool>,
) -> Result<entry::Push, Error> {
    let namespace = run.namespace().unwrap_or_default().parse();
    let namespace =
        namespace.map_err(|_| Error::Settings { field: "metadata.namespace", why: "no name".to_owned() })?;
    let secret: Option<ObjectName> = wanted.secret.as_ref().and_then(|reference| reference.name.parse().ok());
    let refused = |why: String| Ok(entry::Push::withheld(Reason::PushRefused, None, why));
    let location = match wanted.repository.url.parse() {
        Ok(location) => location,
        Err(error) => return refused(format!("spec.repository.url: {error}")),
    };
    let timeout = Duration::from_mins(2);
    let remote = crate::git::secret::remote(
        context.secrets.as_ref(),
        &namespace,
        location,
        secret.as_ref(),
        None,
        timeout,
    )
    .await;
    let remote = match remote {
        // the rule about repositories is for pushes, too
        Ok(remote) => remote.staying(),
        Err(error) if error.class() == crate::class::Class::Invalid => {
            return refused(Chain(&error).to_string());
        }
        Err(error) => return Err(error.into()),
    };
    let folder = context.folder.join("code");
    tokio::task::spawn_blocking(move || code::push(&wanted, &delivery, &folder, &remote, &interrupt)).await?
}
