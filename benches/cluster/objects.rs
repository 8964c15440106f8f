//! A thousand objects on an API server: all at once, one of them, none of them, and one that somebody changes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use futures::StreamExt;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use ostler::kinds::EgressPolicy;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    cluster::Cluster,
    figures::{Figure, Samples},
    manifests::{agent, many, policy},
    requests::Requests,
    stage::{Stage, git},
    up::Up,
};

const OBJECTS: usize = 1_000;
const COLD: usize = 3;
const REPETITIONS: usize = 9;
const MANY: usize = 10_000;

/// A namespace, a user, and the `ostler up` of both.
struct Ground<'a> {
    cluster: &'a Cluster,
    runtime: &'a Runtime,
    namespace: String,
    user: String,
    stage: Stage,
    up: Up,
}

impl<'a> Ground<'a> {
    /// With one object.
    fn new(cluster: &'a Cluster, runtime: &'a Runtime) -> Result<Self> {
        let namespace = runtime.block_on(cluster.namespace("bench"));
        let user = format!("ostler-of-{namespace}");
        let stage = Stage::new(&[agent("shell", "echo ready", None)])?;
        let kubeconfig = cluster.kubeconfig_for(&user, &["system:masters"]);
        let more = ["--places", "machine", "--namespace", &namespace, "--kubeconfig"].map(Into::into);
        let more = [&more[..], &[kubeconfig.into_os_string()]].concat();
        let up = Up::start_with(&stage, &git(&stage.config(), &["rev-parse", "main"])?, &more)?;
        let ground = Self { cluster, runtime, namespace, user, stage, up };
        ground.quiet()?;
        Ok(ground)
    }

    /// Commits and pushes files; how long until they are applied.
    fn apply(&self, files: &[(String, String)]) -> Result<Duration> {
        let commit = self.stage.commit(files, "a commit")?;
        let (pushed, _) = self.stage.push()?;
        Ok(self.up.until(|line| line.applied(&commit))?.at - pushed)
    }

    /// What was asked of the API server while something was done, and until all was at rest again.
    fn requests<T>(&self, done: impl FnOnce() -> Result<T>) -> Result<(T, Requests)> {
        let mark = Requests::mark(self.cluster);
        let done = done()?;
        self.quiet()?;
        Ok((done, Requests::since(self.cluster, mark, &self.user)))
    }

    /// Waits until nobody has called the store for a second: controllers look at what was applied.
    fn quiet(&self) -> Result<()> {
        let last = Instant::now() + Duration::from_mins(2);
        let mut before = f64::NAN;
        while Instant::now() < last {
            let now = self.up.metric("ostler_object_calls_total")?;
            if now.to_bits() == before.to_bits() {
                return Ok(());
            }
            before = now;
            thread::sleep(Duration::from_secs(1));
        }
        bail!("ostler up does not come to rest")
    }

    /// Somebody changes an object; how long until it is as it was.
    fn put_back(&self, number: usize) -> Result<Duration> {
        let name = format!("policy-{number}");
        self.runtime.block_on(async {
            let api: Api<EgressPolicy> = Api::namespaced(self.cluster.client().await, &self.namespace);
            let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let mut changes = watcher(api.clone(), only).applied_objects().boxed();
            let ports = |policy: &EgressPolicy| json!(policy.spec.rules)[0]["ports"].clone();
            let Some(was) = changes.next().await.transpose()? else { bail!("the watch ended") };
            let mut rules = json!(was.spec.rules);
            rules[0]["ports"] = json!([1]);
            let patch = Patch::Merge(json!({"spec": {"rules": rules}}));
            let by = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
            let began = Instant::now();
            api.patch(&name, &by, &patch).await?;
            while let Some(policy) = changes.next().await.transpose()? {
                if policy.metadata.resource_version != was.metadata.resource_version
                    && ports(&policy) == ports(&was)
                {
                    return Ok(began.elapsed());
                }
            }
            bail!("the watch ended")
        })
    }
}

pub(crate) fn measure(cluster: &Cluster, runtime: &Runtime) -> Result<Vec<Figure>> {
    let mut cold = vec![];
    for _ in 1..COLD {
        cold.push(Ground::new(cluster, runtime)?.apply(&many(OBJECTS))?);
    }
    let ground = Ground::new(cluster, runtime)?;
    let before = ground.up.memory()?;
    let (took, asked) = ground.requests(|| ground.apply(&many(OBJECTS)))?;
    cold.push(took);
    let what = "begin of the push of 1,000 new files → all 1,000 objects applied";
    let mut figures = vec![timed("thousand", what, cold, &asked)?];

    let one = |number: usize| ground.apply(&[policy(4, 8_000 + u16::try_from(number)?)]);
    let (_, asked) = ground.requests(|| one(0))?;
    let took = (1..=REPETITIONS).map(one).collect::<Result<Vec<_>>>()?;
    let what = "begin of the push of one changed file among 1,000 → applied";
    figures.push(timed("oneFile", what, took, &asked)?);

    let (took, asked) = ground.requests(|| (0..REPETITIONS).map(|n| no_op(&ground, n)).collect())?;
    let what = "a sync of 1,000 objects that finds nothing new; requests: of all of them";
    figures.push(timed("noOp", what, took, &asked)?);

    let (_, asked) = ground.requests(|| ground.put_back(9))?;
    let took = (2..2 + REPETITIONS).map(|n| ground.put_back(5 * n + 4)).collect::<Result<Vec<_>>>()?;
    let what = "somebody changes one of 1,000 objects → it is put back";
    figures.push(timed("drift", what, took, &asked)?);
    figures.push(memory("memory", "1,000 objects, after all of the above", before, ground.up.memory()?));
    drop(ground);
    figures.extend(ten_thousand(cluster, runtime)?);
    Ok(figures)
}

/// A round that a new reference of the repository brings about, and that finds nothing to do.
fn no_op(ground: &Ground<'_>, number: usize) -> Result<Duration> {
    let look = || -> Result<(f64, f64)> {
        let text = ground.up.ask("/metrics")?;
        let of = |name| crate::up::metric(&text, name);
        Ok((of("ostler_sync_seconds_count")?, of("ostler_sync_seconds_sum")?))
    };
    let (count, sum) = look()?;
    git(&ground.stage.config(), &["update-ref", &format!("refs/heads/other-{number}"), "main"])?;
    let last = Instant::now() + Duration::from_secs(30);
    while Instant::now() < last {
        let (count_now, sum_now) = look()?;
        if count_now > count {
            return Ok(Duration::from_secs_f64((sum_now - sum) / (count_now - count)));
        }
        thread::sleep(Duration::from_millis(2));
    }
    bail!("a new reference brought no sync about")
}

fn ten_thousand(cluster: &Cluster, runtime: &Runtime) -> Result<[Figure; 3]> {
    let ground = Ground::new(cluster, runtime)?;
    let before = ground.up.memory()?;
    let (took, asked) = ground.requests(|| ground.apply(&many(MANY)))?;
    let cold = timed("tenThousand", "the same with 10,000 new files", vec![took], &asked)?;
    let (took, asked) = ground.requests(|| ground.put_back(9))?;
    let drift = timed("tenThousandDrift", "one of 10,000 objects is put back", vec![took], &asked)?;
    let memory = memory("tenThousandMemory", "10,000 objects", before, ground.up.memory()?);
    Ok([cold, drift, memory])
}

fn timed(id: &'static str, what: &str, took: Vec<Duration>, asked: &Requests) -> Result<Figure> {
    let samples = Samples::new(took)?;
    let mut json = samples.json();
    json["requests"] = asked.json();
    Ok(Figure::plain(id, what, format!("{} | {asked}", samples.text()), json))
}

fn memory(id: &'static str, of: &str, (before, _): (u64, u64), (after, peak): (u64, u64)) -> Figure {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let json = json!({"bytes": after, "peakBytes": peak, "beforeBytes": before});
    let text = format!("{} (peak {}; {} with one object) |", mib(after), mib(peak), mib(before));
    Figure::plain(id, &format!("resident memory of `ostler up` with {of}"), text, json)
}
