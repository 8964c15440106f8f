//! What was measured: several repetitions of one thing, and what is said of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Repetitions of one measurement, in milliseconds, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// At least one repetition.
    pub(crate) fn new(times: impl IntoIterator<Item = Duration>) -> anyhow::Result<Self> {
        let mut all: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        anyhow::ensure!(!all.is_empty(), "nothing was measured");
        all.sort_by(f64::total_cmp);
        Ok(Self(all))
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The smallest one that `percent` of all do not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }

    /// Median, least and most, for people.
    pub(crate) fn text(&self) -> String {
        let (least, most) = (self.percentile(0), self.percentile(100));
        format!("{} ({} to {}, n = {})", show(self.median()), show(least), show(most), self.0.len())
    }

    /// All of it, for machines.
    pub(crate) fn json(&self) -> Value {
        let rounded: Vec<f64> = self.0.iter().map(|ms| (ms * 1000.0).round() / 1000.0).collect();
        json!({"medianMs": self.median(), "p99Ms": self.percentile(99), "samplesMs": rounded})
    }
}

/// Milliseconds, for people.
pub(crate) fn show(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// One line of the report.
#[derive(Debug)]
pub(crate) struct Figure {
    /// A name for machines.
    pub(crate) id: &'static str,
    /// What was measured, from where to where.
    pub(crate) what: String,
    /// The figure, for people.
    pub(crate) value: String,
    /// The baseline of the same run, and how many times as much ours is.
    pub(crate) against: Option<Against>,
    /// The figure, for machines.
    pub(crate) json: Value,
}

/// A figure set against a baseline.
#[derive(Debug)]
pub(crate) struct Against {
    /// What the baseline does.
    pub(crate) baseline: &'static str,
    /// Its figure.
    pub(crate) value: String,
    /// Ours divided by it.
    pub(crate) ratio: f64,
}

impl Figure {
    /// The median of `ours`, set against the median of `theirs`.
    pub(crate) fn timed(
        id: &'static str,
        what: &str,
        ours: &Samples,
        theirs: Option<(&'static str, &Samples)>,
    ) -> Self {
        let against = theirs.map(|(baseline, samples)| Against {
            baseline,
            value: samples.text(),
            ratio: ours.median() / samples.median(),
        });
        let mut json = ours.json();
        if let Some((baseline, samples)) = theirs {
            json["baseline"] = json!({"what": baseline, "times": samples.json()});
        }
        Self { id, what: what.to_owned(), value: ours.text(), against, json }
    }

    /// A figure that stands alone.
    pub(crate) fn plain(id: &'static str, what: &str, value: String, json: Value) -> Self {
        Self { id, what: what.to_owned(), value, against: None, json }
    }
}
