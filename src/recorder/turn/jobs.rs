//! What is to be written into the ledger, by what runs ask for and by what sidecars delivered.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Desk, Job};
use crate::{
    kinds::Reason,
    names::Uid,
    recorder::{
        entries::Subject,
        queue::{self, Due, Need},
        status::News,
        world::{Side, World},
    },
    report::{Delivery, Receipt},
    telemetry::metrics,
};

impl Desk {
    /// What is to be written. What needs no ledger is done on the way.
    pub(super) async fn jobs(&mut self, world: &World, exists: bool) -> Vec<Job> {
        let now = (self.context.clock)();
        let mut jobs = self.asked_for(world, now).await;
        jobs.extend(self.delivered(world, exists, now).await);
        self.context.metrics.set_queue(metrics::Queue::Record, jobs.len());
        // A delivery speaks for its run; what the controller knows of it is less.
        let delivered: BTreeSet<Uid> =
            jobs.iter().filter(|job| job.delivery.is_some()).map(|job| job.subject.uid.clone()).collect();
        jobs.retain(|job| job.delivery.is_some() || !delivered.contains(&job.subject.uid));
        jobs
    }

    /// What runs need by their own status.
    async fn asked_for(&mut self, world: &World, now: Timestamp) -> Vec<Job> {
        let give_up = self.give_up_after();
        let (mut jobs, mut tellings) = (Vec::new(), Vec::new());
        for run in world.open() {
            let need = queue::need(&run, give_up, now);
            if need == Need::Nothing {
                continue;
            }
            let Some(subject) = Subject::of(&run).filter(|subject| !self.told.rests(&subject.uid, &run))
            else {
                continue;
            };
            let mut job = |run, subject, result| {
                jobs.push(Job { run, subject, result, late: false, delivery: None });
                None
            };
            let news = match (world.side(&run, &self.own), need) {
                (Side::Ours, Need::Claim) if self.claims_in_store() => {
                    Some(News::Claimed { holder: self.holder.clone(), commit: None })
                }
                (Side::Ours, Need::Claim) => job(run.clone(), subject, None),
                (Side::Ours, Need::Record) => {
                    let entry = subject.clone().without_report(&run, &self.holder, now);
                    job(run.clone(), subject, Some((Box::new(entry), String::new())))
                }
                (Side::Ours, Need::Follow) => self.follow(&subject),
                (Side::Ours, Need::GiveUp) => {
                    Some(self.abandon(&run, "it could not be recorded in time").await)
                }
                (Side::Gone(name), Need::Record | Need::GiveUp) => {
                    let why = format!("ConfigRepository {name}, which was to record it, is gone");
                    Some(self.abandon(&run, &why).await)
                }
                (Side::Nowhere, Need::Record | Need::GiveUp) => {
                    let message = "no repository records this run".to_owned();
                    Some(News::Unrecorded { reason: Reason::NoRepository, message })
                }
                _ => None,
            };
            tellings.extend(news.map(|news| (run, news, ())));
        }
        self.tell(tellings, |_, (), _| ()).await;
        jobs
    }

    /// What sidecars brought.
    async fn delivered(&mut self, world: &World, exists: bool, now: Timestamp) -> Vec<Job> {
        let give_up = self.give_up_after();
        let (mut jobs, mut tellings) = (Vec::new(), Vec::new());
        for (uid, outgoing) in std::mem::take(&mut self.outgoing) {
            let key = &outgoing.delivery.report.run;
            let current = world.run(&key.namespace, &key.name);
            let current = current.filter(|run| run.metadata.uid == outgoing.run.metadata.uid);
            let run = current.unwrap_or_else(|| outgoing.run.clone());
            let due = queue::due(&run, give_up, now);
            let side = world.side(&run, &self.own);
            if due == Due::LostFirst && side == Side::Ours {
                self.outgoing.insert(uid, outgoing);
                continue;
            }
            let Some(subject) = Subject::of(&run) else { continue };
            let ended = outgoing.delivery.report.ended_at.unwrap_or(now);
            let entry = subject.clone().result(
                &outgoing.delivery.report,
                &self.holder,
                outgoing.push.clone(),
                None,
                now,
            );
            let late = queue::past(ended, give_up, now) && self.failures > 0;
            let unrecorded = match side {
                Side::Ours if late => Some((Reason::Abandoned, "given up after giveUpAfter".to_owned())),
                Side::Ours if self.claims_in_store() && self.refusal.is_some() => {
                    self.refusal.clone().map(|text| (Reason::PushRefused, text))
                }
                Side::Ours if exists => None,
                Side::Ours | Side::Gone(_) => Some((Reason::Abandoned, "its repository is gone".to_owned())),
                Side::Nowhere => Some((Reason::NoRepository, "no repository records this run".to_owned())),
                Side::Theirs => {
                    self.answer(&uid, Receipt::Waiting);
                    continue;
                }
            };
            if unrecorded.is_some() && due == Due::Late {
                // Its record says that it was lost, and that stays.
                self.done(&uid, true, Some(&outgoing.delivery));
            } else if let Some(why) = unrecorded {
                let news = News::Ended { entry: Box::new(entry), commit: Err(why) };
                tellings.push((run, news, (uid, outgoing.delivery)));
            } else {
                let summary = outgoing.delivery.report.record.summary.clone();
                let delivery = Some(outgoing.delivery.clone());
                let (result, late) = (Some((Box::new(entry), summary)), due == Due::Late);
                jobs.push(Job { run, subject, result, late, delivery });
                self.outgoing.insert(uid, outgoing);
            }
        }
        let done =
            |desk: &mut Self, (uid, delivery): (Uid, Delivery), told| desk.done(&uid, told, Some(&delivery));
        self.tell(tellings, done).await;
        jobs
    }
}
