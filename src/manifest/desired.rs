//! What all files together ask for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Authored, Code, Diagnostic, FileOutcome, MAX_PROMPT_BYTES, PROMPT_PREFIX, Position, Reference, Severity,
    Target,
};
use crate::{
    kinds::{Kind, ObjectId, meta},
    ledger::digest,
    names::{ObjectName, RepoPath},
};

/// An object that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its file; for the ConfigMap of a prompt, the prompt's file.
    pub path: RepoPath,
    /// Where in the file.
    pub at: Position,
    /// The object as authored.
    pub object: Arc<Authored>,
    /// For a run: the digest over its spec and prompt.
    pub digest: Option<String>,
    /// For a run with a prompt file: the ConfigMap that holds its text.
    pub prompt: Option<ObjectName>,
}

impl Item {
    /// The manifest.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.object.value
    }

    /// A warning or error about it.
    #[must_use]
    pub fn tell(&self, code: Code, message: String) -> Diagnostic {
        tell(&self.path, &self.object.source, self.at, code, message)
    }
}

/// What all files together ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// The objects, in no other order than that of their ids.
    pub objects: BTreeMap<ObjectId, Item>,
    /// Files with an error, and the objects that they name as far as known.
    pub failed: BTreeMap<RepoPath, Vec<ObjectId>>,
    /// Failed files that may name more objects than those.
    pub opaque: BTreeSet<RepoPath>,
    /// Errors and warnings, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// How many documents were somebody else's.
    pub foreign: usize,
    /// How many files were read.
    pub files: usize,
}

impl Desired {
    /// True when some file has an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// The same with warnings made errors, as `--strict` wants it. Only what is told changes.
    #[must_use]
    pub fn strict(mut self) -> Self {
        for told in &mut self.diagnostics {
            told.severity = Severity::Error;
        }
        self
    }
}

/// Puts the files together: objects that stand in two files, prompts, dangling references, digests.
pub(super) fn join<'a>(
    files: impl Iterator<Item = (&'a RepoPath, &'a FileOutcome)>,
    prompt: impl Fn(&RepoPath) -> Option<Vec<u8>>,
) -> Desired {
    let files: BTreeMap<&RepoPath, &FileOutcome> = files.collect();
    let mut desired = Desired { files: files.len(), ..Desired::default() };
    for (path, outcome) in &files {
        desired.foreign += outcome.foreign;
        desired.diagnostics.extend(outcome.diagnostics.iter().cloned());
        if outcome.failed() {
            desired.failed.insert((*path).clone(), outcome.named.clone());
        }
        if outcome.opaque {
            desired.opaque.insert((*path).clone());
        }
    }
    let prompts = read_prompts(&files, &prompt, &mut desired.diagnostics);
    duplicates(&files, &mut desired.diagnostics);
    for told in desired.diagnostics.iter().filter(|told| told.is_error()) {
        if let (false, Some(outcome)) = (desired.failed.contains_key(&told.path), files.get(&told.path)) {
            desired.failed.insert(told.path.clone(), outcome.named.clone());
        }
    }
    for (path, outcome) in &files {
        if !desired.failed.contains_key(*path) {
            for object in &outcome.objects {
                let item = Item {
                    path: (*path).clone(),
                    at: object.at,
                    object: object.clone(),
                    digest: None,
                    prompt: None,
                };
                desired.objects.insert(object.id.clone(), item);
            }
        }
    }
    runs(&mut desired, &prompts);
    dangling(&mut desired, &prompts);
    desired.diagnostics.sort();
    desired
}

/// The text of each prompt file that is named and can be a prompt.
fn read_prompts(
    files: &BTreeMap<&RepoPath, &FileOutcome>,
    prompt: &impl Fn(&RepoPath) -> Option<Vec<u8>>,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<RepoPath, String> {
    let mut texts = BTreeMap::new();
    for (path, outcome) in files {
        for object in &outcome.objects {
            for reference in &object.references {
                let Target::Prompt(file) = &reference.target else { continue };
                let Some(bytes) = prompt(file) else { continue };
                match as_prompt(bytes) {
                    Ok(text) => {
                        texts.insert(file.clone(), text);
                    }
                    Err(why) => {
                        let message = format!("{file} cannot be a prompt: {why}");
                        diagnostics.push(tell(
                            path,
                            &reference.source,
                            reference.at,
                            Code::BadPrompt,
                            message,
                        ));
                    }
                }
            }
        }
    }
    texts
}

fn as_prompt(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() > MAX_PROMPT_BYTES {
        return Err(format!("it has {} bytes, and at most {MAX_PROMPT_BYTES} are allowed", bytes.len()));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text) }
}

/// An object in two files: nobody can say which one is meant, so both files fail, and each names the other.
fn duplicates(files: &BTreeMap<&RepoPath, &FileOutcome>, diagnostics: &mut Vec<Diagnostic>) {
    let mut places: BTreeMap<&ObjectId, Vec<(&RepoPath, &Authored)>> = BTreeMap::new();
    for (path, outcome) in files {
        for object in &outcome.objects {
            places.entry(&object.id).or_default().push((path, object));
        }
    }
    for (id, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        for (path, object) in places {
            let others = places.iter().filter(|(other, _)| other != path);
            let others: Vec<String> = others.map(|(other, o)| format!("{other}:{}", o.at.line)).collect();
            let message = format!("{id} stands in {} as well", others.join(", "));
            diagnostics.push(tell(path, &object.source, object.at, Code::DuplicateObject, message));
        }
    }
}

/// Digests, and the ConfigMaps of prompt files.
fn runs(desired: &mut Desired, prompts: &BTreeMap<RepoPath, String>) {
    let mut maps = BTreeMap::new();
    let mut found = Vec::new();
    for (id, item) in desired.objects.iter().filter(|(id, _)| id.kind == Kind::HarnessRun) {
        let file = item.object.prompt().and_then(|path| prompts.get_key_value(path));
        let text = file.map(|(_, text)| text.as_str()).or_else(|| config_map_text(desired, id, item.value()));
        let spec = item.value().get("spec").unwrap_or(&Value::Null);
        let digest = digest::of_run(spec, text.map(str::as_bytes));
        let map = file.map(|(path, text)| prompt_map(id, path, text));
        found.push((id.clone(), digest, map.as_ref().map(|(id, _)| id.name.clone())));
        // two files with one text make one map, of the first path
        if let Some((id, map)) = map {
            maps.entry(id).or_insert(map);
        }
    }
    for (id, digest, prompt) in found {
        if let Some(item) = desired.objects.get_mut(&id) {
            item.digest = Some(digest);
            item.prompt = prompt;
        }
    }
    desired.objects.extend(maps);
}

fn config_map_text<'a>(desired: &'a Desired, run: &ObjectId, value: &Value) -> Option<&'a str> {
    let reference = value.pointer("/spec/task/promptFrom/configMapKeyRef")?;
    let name = reference.get("name")?.as_str()?.parse().ok()?;
    let map = desired.objects.get(&ObjectId::new(Kind::ConfigMap, run.namespace.clone(), name))?;
    map.value().get("data")?.get(reference.get("key")?.as_str()?)?.as_str()
}

/// An immutable ConfigMap, named by its content: another text is another name, so a run never sees a prompt change.
fn prompt_map(run: &ObjectId, path: &RepoPath, text: &str) -> (ObjectId, Item) {
    let hash = digest::hex(&Sha256::digest(text.as_bytes()));
    let name: ObjectName =
        format!("{PROMPT_PREFIX}{}", &hash[..16]).parse().expect("hexadecimal digits make a name");
    let id = ObjectId::new(Kind::ConfigMap, run.namespace.clone(), name);
    let value = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": id.name, "namespace": id.namespace},
        "immutable": true,
        "data": {meta::PROMPT_KEY: text}
    });
    let at = Position { line: 1, column: 1 };
    let source = text.lines().next().unwrap_or_default().to_owned();
    let object = Authored { id: id.clone(), document: 0, at, value, references: Vec::new(), source };
    (id, Item { path: path.clone(), at, object: Arc::new(object), digest: None, prompt: None })
}

/// References to nothing. What a failed file names is there: it is held, not gone.
fn dangling(desired: &mut Desired, prompts: &BTreeMap<RepoPath, String>) {
    let held: BTreeSet<&ObjectId> = desired.failed.values().flatten().collect();
    let there = |target: &Target| match target {
        Target::Object(id) => desired.objects.contains_key(id) || held.contains(id),
        Target::Prompt(path) => prompts.contains_key(path),
    };
    let mut told = Vec::new();
    for item in desired.objects.values() {
        for reference in item.object.references.iter().filter(|reference| !there(&reference.target)) {
            let message = missing(reference);
            told.push(tell(&item.path, &reference.source, reference.at, Code::DanglingReference, message));
        }
    }
    desired.diagnostics.extend(told);
}

fn missing(reference: &Reference) -> String {
    match &reference.target {
        Target::Object(id) if reference.implied => format!("no agent is named, and there is no {id}"),
        Target::Object(id) => format!("there is no {id} in this repository"),
        Target::Prompt(path) => format!("there is no file {path} in this repository"),
    }
}

fn tell(path: &RepoPath, source: &str, at: Position, code: Code, message: String) -> Diagnostic {
    let mut told = Diagnostic::new(path, "", at, code, message);
    source.clone_into(&mut told.source);
    told
}
