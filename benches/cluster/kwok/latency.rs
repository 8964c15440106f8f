//! Times that others wrote down: the API server in its audit log, the controller in its metrics.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{cluster::AuditLine, figures::show, up::metric};

/// From the answer to the request that created a run to the answer to the one that created its pod, by the API server's
/// clock; of each run that has a pod.
pub(super) fn created_to_pod(lines: &[AuditLine]) -> Vec<Duration> {
    let created = |resource: &str| {
        let new = lines.iter().filter(move |line| {
            let of = &line.object_ref;
            line.code() == 201 && of.subresource.is_empty() && of.resource == resource
        });
        new.map(|line| (line.object_ref.name.clone(), line.stage_timestamp)).collect::<BTreeMap<_, _>>()
    };
    let (runs, pods) = (created("harnessruns"), created("pods"));
    let waited = pods.iter().filter_map(|(pod, at)| {
        // A pod has its run's name and a hash behind it.
        let run = runs.get(pod.rsplit_once('-')?.0)?;
        Some(at.duration_since(*run).try_into().unwrap_or_default())
    });
    waited.collect()
}

/// How long something took, as far as a histogram tells.
pub(super) struct Quantiles {
    count: f64,
    p50: f64,
    p99: f64,
}

impl Quantiles {
    /// Of what a controller counted between two answers of `/metrics`.
    pub(super) fn between(before: &str, after: &str, name: &str, controller: &str) -> Result<Self> {
        let label = format!("controller=\"{controller}\"");
        let prefix = format!("{name}_bucket");
        let mut buckets = Vec::new();
        for line in after.lines().filter(|line| line.starts_with(&prefix) && line.contains(&label)) {
            let Some((series, count)) = line.rsplit_once(' ') else { continue };
            let Some(bound) = series.split('"').skip_while(|part| !part.ends_with("le=")).nth(1) else {
                continue;
            };
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
            buckets.push((bound, count.parse::<f64>()? - metric(before, series)?));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = buckets.last().map_or(0.0, |(_, count)| *count);
        ensure!(count > 0.0, "{name} of {controller} counted nothing");
        Ok(Self { count, p50: quantile(&buckets, count / 2.0), p99: quantile(&buckets, count * 0.99) })
    }

    pub(super) fn text(&self) -> String {
        let ms = |seconds: f64| show(seconds * 1000.0);
        format!("p50 {}, p99 {}, n = {}", ms(self.p50), ms(self.p99), self.count)
    }

    pub(super) fn json(&self) -> Value {
        json!({"count": self.count, "p50Ms": self.p50 * 1000.0, "p99Ms": self.p99 * 1000.0})
    }
}

/// The value that so many do not exceed, as if those of a bucket were spread evenly; of the last bucket, its begin.
fn quantile(buckets: &[(f64, f64)], rank: f64) -> f64 {
    let (mut from, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            let part = (rank - below) / (count - below);
            return if bound.is_finite() { from + (bound - from) * part } else { from };
        }
        (from, below) = (*bound, *count);
    }
    from
}
