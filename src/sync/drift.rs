//! Drift: objects that others change after they were enforced are put back, and fights over them are named.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Context,
    fight::{MOST, Verdict},
    follower::Follower,
    source::Reading,
    trigger::Asked,
};
use crate::{
    cache::Change,
    kinds::{ConfigRepository, Kind, ObjectId, Reason, Typed, meta},
    manifest::Desired,
    plan::{self, FieldChange, Live, Plan, PlanReport, Policy, Step},
    ports::objects::{At, Happening, Severity, id_of},
    telemetry::{Audit, Decision, Verb, Who},
};

/// What the last plan was made of.
pub(super) struct Enforced {
    desired: Desired,
    policy: Policy,
    reading: Reading,
    asked: Option<Asked>,
}

impl Follower {
    /// Notes what is enforced from now on. True when it was before: what differs now, somebody else has changed.
    pub(super) fn begin(
        &mut self,
        desired: Desired,
        policy: Policy,
        reading: &Reading,
        now: Timestamp,
    ) -> bool {
        let enforced = Enforced { desired, policy, reading: reading.clone(), asked: self.asked.clone() };
        let same = self.enforced.as_ref().is_some_and(|former| {
            former.policy.commit == enforced.policy.commit
                && former.reading == enforced.reading
                && former.asked == enforced.asked
        });
        if same {
            self.fights.expire(now);
        } else {
            self.fights.forget();
        }
        self.enforced = Some(enforced);
        same
    }

    /// True when one of the objects that changed is no longer as it was enforced, and may be put back.
    pub(super) async fn drifted(&mut self, changes: &[Change], context: &Context) -> bool {
        if self.enforced.is_none() {
            return false;
        }
        self.learn_ledger().await;
        let Some(enforced) = &self.enforced else { return false };
        let wanted = &enforced.desired.objects;
        let one = |change: &Change| match change {
            Change::Object(id) => wanted.get_key_value(id),
            Change::Everything => None,
        };
        let everything = changes.contains(&Change::Everything).then(|| wanted.iter());
        let candidates = changes.iter().filter_map(one).chain(everything.into_iter().flatten());
        let (fights, now) = (&mut self.fights, (context.clock)());
        let mut differs = |(id, item): (&ObjectId, _)| {
            let there = context.caches.object(id);
            plan::calls_for_plan(id, item, there.as_ref(), &self.view, &enforced.policy)
                && !fights.goes_on(id, now)
        };
        // each is looked at: whoever fights on prolongs it
        candidates.filter(|one| differs(*one)).count() > 0
    }

    /// How long until an object that is fought over may be put back again; `None` when there is no fight.
    pub(super) fn calm_in(&self, now: Timestamp) -> Option<Duration> {
        let left = self.fights.calm_at()?.duration_since(now);
        // one that is due was looked at just now: not again at once
        Some(Duration::try_from(left).unwrap_or_default().max(Duration::from_secs(1)))
    }

    /// Takes the corrections out of the plan that would only go on with a fight, and names who fights.
    pub(super) async fn referee(
        &mut self,
        plan: &mut Plan,
        report: &mut PlanReport,
        live: &Live,
        repository: &ConfigRepository,
        context: &Context,
    ) {
        let now = (context.clock)();
        let corrections = plan.steps.iter().filter(|step| !matches!(step, Step::Delete { .. }));
        let ids: Vec<ObjectId> = corrections.map(|step| step.id().clone()).collect();
        for id in ids {
            let verdict = self.fights.judge(&id, now);
            if verdict == Verdict::Correct {
                continue;
            }
            let changes = report.items.iter().find(|item| item.id == id).map_or(&[][..], |i| &i.changes);
            let message = describe(&id, changes, live);
            plan.hold(report, &id, Reason::Contested, message.clone());
            if verdict == Verdict::Stop {
                tell(&id, message, live, repository, context).await;
            }
        }
    }
}

/// Who fights, over what, and what to do about it.
fn describe(id: &ObjectId, changes: &[FieldChange], live: &Live) -> String {
    const FIELDS: usize = 4;
    let end = format!(
        "after {MOST} corrections in a minute it is left alone until nobody has changed it for a minute, or a sync is \
         asked for"
    );
    let Some(there) = live.get(id) else { return format!("somebody keeps deleting it; {end}") };
    let writers = plan::writers(there, changes);
    let writers =
        if writers.is_empty() { "a writer without a name".to_owned() } else { writers.join(" and ") };
    let mut fields: Vec<&str> = changes.iter().take(FIELDS).map(|change| change.field.as_str()).collect();
    if changes.len() > FIELDS {
        fields.push("…");
    }
    format!("{writers} keeps changing {}; {end}", fields.join(", "))
}

/// Tells at the object, or at its repository when it is gone, and in the audit trail.
async fn tell(id: &ObjectId, message: String, live: &Live, repository: &ConfigRepository, context: &Context) {
    let line = Audit {
        at: (context.clock)(),
        who: Who::Controller(meta::SYNCER),
        verb: Verb::Update,
        object: id.to_string(),
        decision: Decision::Denied,
        reason: message.clone(),
    };
    if let Err(error) = context.audit.record(&line) {
        tracing::error!(error = &error as &dyn std::error::Error, "a line of the audit trail is lost");
    }
    let object = live.get(id).and_then(|there| Some((id.clone(), At::of(there)?.uid)));
    let about =
        object.or_else(|| Some((id_of(ConfigRepository::KIND, repository)?, At::of(repository)?.uid)));
    let Some((about, uid)) = about else { return };
    let message = if about.kind == Kind::ConfigRepository { format!("{id}: {message}") } else { message };
    let severity = Severity::Warning;
    context.store.tell(Happening { about, uid, severity, reason: Reason::Contested, message }).await;
}
