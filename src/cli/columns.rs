//! Tables with the printer columns of the kinds: what `kubectl get` would show.

use jiff::{SpanRound, Timestamp, Unit};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::{
    kinds::{Kind, Object},
    schema,
};

/// One column.
struct Column {
    title: String,
    path: Option<JsonPath>,
    is_date: bool,
}

/// A table of objects of one kind, with a namespace column when there is more than one namespace to show.
pub(crate) struct Table {
    columns: Vec<Column>,
    with_namespace: bool,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; `wide` adds the columns of lower priority.
    pub(crate) fn new(kind: Kind, wide: bool, with_namespace: bool) -> Self {
        let crds = schema::crds();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind.as_str());
        let defined = crd.and_then(|crd| crd.spec.versions.first()?.additional_printer_columns.clone());
        let defined = defined.unwrap_or_default();
        let shown = defined.iter().filter(|c| wide || c.priority.unwrap_or(0) == 0);
        let columns = shown.map(column).collect();
        let mut table = Self { columns, with_namespace, widths: Vec::new(), rows: Vec::new() };
        let header = table.header();
        widen(&mut table.widths, &header);
        table
    }

    /// Adds an object.
    pub(crate) fn add(&mut self, object: &Object, now: Timestamp) {
        let value = serde_json::to_value(object).unwrap_or_default();
        let mut row = Vec::new();
        let metadata = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        if self.with_namespace {
            row.push(metadata("namespace"));
        }
        row.push(metadata("name"));
        row.extend(self.columns.iter().map(|column| cell(column, &value, now)));
        widen(&mut self.widths, &row);
        self.rows.push(row);
    }

    /// The header line and the rows, aligned.
    pub(crate) fn render(&self, with_header: bool) -> String {
        let header = self.header();
        let rows = std::iter::once(&header).filter(|_| with_header).chain(&self.rows);
        rows.map(|row| line(row, &self.widths)).collect()
    }

    /// The same, and forgets the rows: what is added later is aligned with them and comes alone.
    pub(crate) fn drain(&mut self, with_header: bool) -> String {
        let text = self.render(with_header);
        self.rows.clear();
        text
    }

    fn header(&self) -> Vec<String> {
        let mut header: Vec<String> = self.columns.iter().map(|c| c.title.to_uppercase()).collect();
        header.insert(0, "NAME".to_owned());
        if self.with_namespace {
            header.insert(0, "NAMESPACE".to_owned());
        }
        header
    }
}

/// Lines of cells, padded to the widest of each column, three spaces apart.
pub(crate) fn align<'a>(rows: impl Iterator<Item = &'a Vec<String>> + Clone) -> String {
    let mut widths = Vec::new();
    rows.clone().for_each(|row| widen(&mut widths, row));
    rows.map(|row| line(row, &widths)).collect()
}

fn widen(widths: &mut Vec<usize>, row: &[String]) {
    widths.resize(widths.len().max(row.len()), 0);
    for (width, cell) in widths.iter_mut().zip(row) {
        *width = (*width).max(cell.chars().count());
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
}

fn column(defined: &CustomResourceColumnDefinition) -> Column {
    Column {
        title: defined.name.clone(),
        path: JsonPath::parse(&format!("${}", defined.json_path)).ok(),
        is_date: defined.type_ == "date",
    }
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> String {
    let found = column.path.as_ref().and_then(|path| path.query(object).first());
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) if column.is_date => {
            text.parse().map_or_else(|_| text.clone(), |then| age(then, now))
        }
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// How long ago, in at most two units, as kubectl says it: `5s`, `3m20s`, `2d`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    let (largest, smallest) = match seconds {
        0..120 => (Unit::Second, Unit::Second),
        120..600 => (Unit::Minute, Unit::Second),
        600..10_800 => (Unit::Minute, Unit::Minute),
        _ => (Unit::Hour, Unit::Hour),
    };
    if seconds >= 172_800 {
        return format!("{}d", seconds / 86_400);
    }
    let span = jiff::Span::new().seconds(seconds);
    let rounded =
        span.round(SpanRound::new().largest(largest).smallest(smallest).mode(jiff::RoundMode::Trunc));
    rounded.map_or_else(|_| format!("{seconds}s"), |span| format!("{span:#}").replace(' ', ""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_are_short() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (200, "3m20s"),
            (900, "15m"),
            (7300, "121m"),
            (11_000, "3h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(at(0), at(seconds)), expected);
        }
    }

    #[test]
    fn a_run_shows_its_phase_and_reason() {
        let run: Object = serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"name": "fix", "namespace": "team", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"sessionRef": {"name": "pay"}},
            "status": {"phase": "Failed", "reason": "NonZeroExit", "startTime": "1970-01-01T00:00:10Z"}
        }))
        .unwrap();
        let mut table = Table::new(Kind::HarnessRun, false, true);
        table.add(&run, Timestamp::from_second(70).unwrap());
        let text = table.render(true);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(
            lines[0],
            ["NAMESPACE", "NAME", "SESSION", "PHASE", "REASON", "STARTED", "FINISHED", "AGE"]
        );
        assert_eq!(lines[1], ["team", "fix", "pay", "Failed", "NonZeroExit", "60s", "70s"]);
    }

    #[test]
    fn conditions_are_found() {
        let repository: Object = serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "ConfigRepository", "metadata": {"name": "c"},
            "spec": {"url": "/r"}, "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded"}]}
        }))
        .unwrap();
        let mut table = Table::new(Kind::ConfigRepository, false, false);
        table.add(&repository, Timestamp::from_second(0).unwrap());
        let text = table.render(false);
        assert!(
            text.split_whitespace().collect::<Vec<_>>().windows(2).any(|w| w == ["True", "Succeeded"]),
            "{text}"
        );
    }

    #[test]
    fn rows_that_come_later_are_aligned() {
        let object = |name: &str| -> Object {
            serde_json::from_value(json!({
                "apiVersion": "ostler.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": {"preset": "pi"}
            }))
            .unwrap()
        };
        let mut table = Table::new(Kind::Agent, false, false);
        let now = Timestamp::from_second(0).unwrap();
        table.add(&object("a-long-name"), now);
        let first = table.drain(true);
        table.add(&object("b"), now);
        let second = table.drain(false);
        assert_eq!(second.lines().count(), 1);
        assert_eq!(first.lines().nth(1).unwrap().find("pi"), second.find("pi"));
    }
}
