//! `ostler get`.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{ResourceExt, runtime::watcher::Event};
use serde_json::{Value, json};

use super::{Error, Out, printable, reference, refused};
use crate::{
    cli::{
        columns::Table,
        target::{Plane, TargetArgs},
    },
    kinds::{Kind, Object, ObjectId},
    names::{Namespace, ObjectName},
    ports::objects::id_of,
};

/// Arguments of `ostler get`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ostler get                        everything in namespace default
  ostler get runs -A -w             all runs, and every change of one
  ostler get run fix-login -o yaml  one run with its status
  ostler get runs -o json | jq -r '.items[] | select(.status.phase == \"Failed\") | .metadata.name'")]
pub struct GetArgs {
    /// A kind, or KIND/NAME; default: all five kinds
    kind: Option<String>,
    /// One object
    name: Option<String>,
    /// The namespace
    #[arg(short, long, default_value = "default", conflicts_with = "all_namespaces")]
    namespace: Namespace,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print; default: a table
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    /// Go on with every change
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// How to print objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table with more columns
    Wide,
    /// The whole objects
    Yaml,
    /// The whole objects
    Json,
    /// KIND/NAME, as other verbs take it
    Name,
}

/// What is asked for.
struct Choice {
    kinds: Vec<Kind>,
    name: Option<ObjectName>,
    namespace: Option<Namespace>,
    form: Option<Form>,
}

impl GetArgs {
    fn choice(&self) -> Result<Choice, Error> {
        let (kinds, name) = match &self.kind {
            None => (Kind::OURS.to_vec(), None),
            Some(first) => {
                let (kind, name) = reference::choice(first, self.name.as_deref())?;
                (vec![kind], name.map(str::parse).transpose()?)
            }
        };
        if name.is_some() && self.all_namespaces {
            return Err(Error::Usage("one object is in one namespace: leave -A out".to_owned()));
        }
        let namespace = (!self.all_namespaces).then(|| self.namespace.clone());
        Ok(Choice { kinds, name, namespace, form: self.output })
    }

    pub(super) async fn run(self, out: Out<'_>) -> Result<ExitCode, Error> {
        let choice = self.choice()?;
        let plane = Plane::find(&self.target).await?;
        if self.watch { choice.watch(&plane, out).await } else { choice.list(&plane, out).await }
    }
}

impl Choice {
    async fn list(&self, plane: &Plane, out: Out<'_>) -> Result<ExitCode, Error> {
        if let (Some(name), Some(namespace)) = (&self.name, &self.namespace) {
            let id = ObjectId::new(self.kinds[0], namespace.clone(), name.clone());
            let object = reference::read(plane.objects(), &id).await?;
            match self.form {
                Some(Form::Json) => writeln!(out, "{:#}", plain(&object))?,
                Some(Form::Yaml) => out.write_all(yaml(&plain(&object)).as_bytes())?,
                _ => self.table(&[(id.kind, vec![object])], out)?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut found = Vec::new();
        for kind in &self.kinds {
            found.push((*kind, plane.objects().list(*kind, self.namespace.as_ref()).await?));
        }
        let whole = || {
            let items: Vec<Value> = found.iter().flat_map(|(_, objects)| objects).map(plain).collect();
            json!({"apiVersion": "v1", "kind": "List", "items": items})
        };
        match self.form {
            Some(Form::Json) => writeln!(out, "{:#}", whole())?,
            Some(Form::Yaml) => out.write_all(yaml(&whole()).as_bytes())?,
            _ => self.table(&found, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Tables or names. Kinds without objects are left out; when nothing is left, that is said on standard error.
    fn table(&self, found: &[(Kind, Vec<Object>)], out: Out<'_>) -> Result<(), Error> {
        let mut first = true;
        for (kind, objects) in found.iter().filter(|(_, objects)| !objects.is_empty()) {
            if self.form == Some(Form::Name) {
                for object in objects {
                    writeln!(out, "{}", name(*kind, object))?;
                }
                continue;
            }
            if !std::mem::take(&mut first) {
                writeln!(out)?;
            }
            let mut table = self.new_table(*kind);
            for object in objects {
                table.add(&self.shown(*kind, object), Timestamp::now());
            }
            out.write_all(printable(&table.render(true)).as_bytes())?;
        }
        if found.iter().all(|(_, objects)| objects.is_empty()) {
            let place = self.namespace.as_ref().map_or_else(String::new, |ns| format!(" in namespace {ns}"));
            eprintln!("nothing found{place}");
        }
        Ok(())
    }

    fn new_table(&self, kind: Kind) -> Table {
        Table::new(kind, self.form == Some(Form::Wide), self.namespace.is_none())
    }

    /// With more than one kind to show, names carry theirs.
    fn shown(&self, kind: Kind, object: &Object) -> Object {
        let mut object = object.clone();
        if self.kinds.len() > 1 {
            object.metadata.name = Some(name(kind, &object));
        }
        object
    }

    async fn watch(&self, plane: &Plane, out: Out<'_>) -> Result<ExitCode, Error> {
        let objects = plane.running()?;
        let streams = self.kinds.iter().map(|kind| {
            let kind = *kind;
            objects.watch(kind, self.namespace.clone()).map(move |event| (kind, event)).boxed()
        });
        let mut events = stream::select_all(streams);
        let (mut seen, mut begun) = (Seen::default(), false);
        let mut tables: BTreeMap<Kind, Table> = BTreeMap::new();
        while let Some((kind, event)) = events.next().await {
            let changes = match event {
                Ok(event) => {
                    begun |= matches!(event, Event::InitDone);
                    seen.take(kind, event)
                }
                Err(error) => {
                    if !begun {
                        refused(&error)?;
                    }
                    eprintln!("the watch is broken and begins again: {}", crate::telemetry::Chain(&error));
                    continue;
                }
            };
            for change in changes.into_iter().filter(|change| self.wants(change.object())) {
                let fresh = !tables.contains_key(&kind);
                let table = tables.entry(kind).or_insert_with(|| self.new_table(kind));
                self.tell(kind, &change, table, fresh, out)?;
            }
            out.flush()?;
        }
        Err(Error::Refused("`ostler up` has ended".to_owned()))
    }

    fn wants(&self, object: &Object) -> bool {
        self.name.as_ref().is_none_or(|name| object.name_any() == name.as_str())
    }

    fn tell(
        &self,
        kind: Kind,
        change: &Change,
        table: &mut Table,
        fresh: bool,
        out: Out<'_>,
    ) -> Result<(), Error> {
        let object = change.object();
        match (self.form, change) {
            (Some(Form::Json), _) => writeln!(out, "{}", change.to_json())?,
            (Some(Form::Yaml), _) => write!(out, "---\n{}", yaml(&change.to_json()))?,
            (_, Change::Gone(_)) => writeln!(out, "{} is gone", name(kind, object))?,
            (Some(Form::Name), _) => writeln!(out, "{}", name(kind, object))?,
            _ => {
                table.add(&self.shown(kind, object), Timestamp::now());
                out.write_all(printable(&table.drain(fresh)).as_bytes())?;
            }
        }
        Ok(())
    }
}

/// One change of a watch.
enum Change {
    Is(Object),
    Gone(Object),
}

impl Change {
    fn object(&self) -> &Object {
        let (Self::Is(object) | Self::Gone(object)) = self;
        object
    }

    /// As `kubectl get --output-watch-events` writes it.
    fn to_json(&self) -> Value {
        let word = if matches!(self, Self::Is(_)) { "MODIFIED" } else { "DELETED" };
        json!({"type": word, "object": plain(self.object())})
    }
}

/// What was shown last, so that a watch that begins again repeats nothing and misses no deletion.
#[derive(Default)]
struct Seen {
    shown: BTreeMap<ObjectId, Object>,
    again: BTreeMap<Kind, Vec<Object>>,
}

impl Seen {
    fn take(&mut self, kind: Kind, event: Event<Object>) -> Vec<Change> {
        match event {
            Event::Init => {
                self.again.insert(kind, Vec::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.again.entry(kind).or_default().push(object);
                Vec::new()
            }
            Event::InitDone => self.begun_again(kind),
            Event::Apply(object) => self.is(kind, object).into_iter().collect(),
            Event::Delete(object) => {
                if let Some(id) = id_of(kind, &object) {
                    self.shown.remove(&id);
                }
                vec![Change::Gone(object)]
            }
        }
    }

    fn is(&mut self, kind: Kind, object: Object) -> Option<Change> {
        let id = id_of(kind, &object)?;
        let before = self.shown.insert(id, object.clone());
        let same = before.is_some_and(|before| before.resource_version() == object.resource_version());
        (!same).then_some(Change::Is(object))
    }

    fn begun_again(&mut self, kind: Kind) -> Vec<Change> {
        let there = self.again.remove(&kind).unwrap_or_default();
        let is_there = |id: &ObjectId| there.iter().any(|object| id_of(kind, object).as_ref() == Some(id));
        let gone: Vec<ObjectId> =
            self.shown.keys().filter(|id| id.kind == kind && !is_there(id)).cloned().collect();
        let mut changes: Vec<Change> =
            gone.iter().filter_map(|id| self.shown.remove(id)).map(Change::Gone).collect();
        changes.extend(there.into_iter().filter_map(|object| self.is(kind, object)));
        changes
    }
}

fn name(kind: Kind, object: &Object) -> String {
    format!("{}/{}", kind.typed_names()[1], object.name_any())
}

/// The object without the book-keeping of field managers.
pub(super) fn plain(object: &Object) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    value
}

/// The value as YAML, with a line end.
pub(super) fn yaml(value: &Value) -> String {
    let text = serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string());
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, version: &str) -> Object {
        serde_json::from_value(json!({
            "apiVersion": "ostler.dev/v1alpha1", "kind": "HarnessRun",
            "metadata": {"namespace": "default", "name": name, "resourceVersion": version,
                "managedFields": [{"manager": "x", "operation": "Apply"}]},
            "spec": {"task": {"prompt": "Fix\nit\n"}}, "status": {"phase": "Running"}
        }))
        .unwrap()
    }

    fn words(changes: &[Change]) -> Vec<String> {
        let word = |change: &Change| {
            let sign = if matches!(change, Change::Is(_)) { '+' } else { '-' };
            format!("{sign}{}", change.object().name_any())
        };
        changes.iter().map(word).collect()
    }

    #[test]
    fn a_watch_that_begins_again_tells_what_was_missed() {
        let mut seen = Seen::default();
        let mut start = |objects: &[Object]| {
            seen.take(Kind::HarnessRun, Event::Init);
            for object in objects {
                assert!(seen.take(Kind::HarnessRun, Event::InitApply(object.clone())).is_empty());
            }
            words(&seen.take(Kind::HarnessRun, Event::InitDone))
        };
        assert_eq!(start(&[run("a", "1"), run("b", "2"), run("c", "3")]), ["+a", "+b", "+c"]);
        assert_eq!(start(&[run("a", "1"), run("b", "9")]), ["-c", "+b"]);
        assert_eq!(words(&seen.take(Kind::HarnessRun, Event::Delete(run("a", "10")))), ["-a"]);
    }

    #[test]
    fn whole_objects_are_shown_without_book_keeping() {
        let value = plain(&run("a", "1"));
        assert!(value.pointer("/metadata/managedFields").is_none());
        let read: Value = serde_saphyr::from_str(&yaml(&value)).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn all_kinds_carry_their_kind_in_the_name() {
        let choice = |kinds: &[Kind], form| Choice {
            kinds: kinds.to_vec(),
            name: None,
            namespace: Some("default".parse().unwrap()),
            form,
        };
        let found = [(Kind::Agent, vec![]), (Kind::HarnessRun, vec![run("a\u{1b}[2J", "1")])];
        let text = |choice: Choice| {
            let mut out = Vec::new();
            choice.table(&found, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let all = text(choice(&Kind::OURS, None));
        assert!(
            all.starts_with("NAME") && all.contains("harnessrun/a\u{fffd}[2J") && all.contains("Running"),
            "{all}"
        );
        assert!(!text(choice(&[Kind::HarnessRun], None)).contains("harnessrun/"));
        assert_eq!(text(choice(&Kind::OURS, Some(Form::Name))).lines().count(), 1);
    }
}
