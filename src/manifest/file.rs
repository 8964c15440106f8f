//! One file.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Code, Diagnostic, MAX_DIAGNOSTICS, MAX_FILE_BYTES, Position, Reference, Scope, Target,
    identity::{self, Sort},
    reference,
    yaml::{self, Document, Finding},
};
use crate::{
    kinds::{Kind, ObjectId},
    names::RepoPath,
    schema,
};

/// An object as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Authored {
    /// Which object.
    pub id: ObjectId,
    /// Its document in the file, from 0.
    pub document: usize,
    /// Where its name stands.
    pub at: Position,
    /// The manifest: `metadata.namespace` filled in; nulls, which no server keeps, and status left out; nothing else
    /// changed.
    pub value: Value,
    /// What it refers to.
    pub references: Vec<Reference>,
    /// The file's line with its name, for diagnostics that need more than one file.
    pub(super) source: String,
}

/// What a file said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileOutcome {
    /// Its objects; none when the file failed.
    pub objects: Vec<Arc<Authored>>,
    /// Errors and warnings, in the order of the file; at most [`MAX_DIAGNOSTICS`].
    pub diagnostics: Vec<Diagnostic>,
    /// Documents that are somebody else's and were left alone.
    pub foreign: usize,
    /// The objects that a failed file names, as far as that can be known.
    pub named: Vec<ObjectId>,
    /// True when a failed file may name more objects than those.
    pub opaque: bool,
}

impl FileOutcome {
    /// True when the file has an error: none of its objects counts.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads one file.
#[must_use]
pub fn parse(path: &RepoPath, bytes: &[u8], scope: &Scope) -> FileOutcome {
    let refuse = |code, message: String| {
        let told = Diagnostic::new(path, "", Position { line: 1, column: 1 }, code, message);
        FileOutcome { diagnostics: vec![told], opaque: true, ..FileOutcome::default() }
    };
    if bytes.len() > MAX_FILE_BYTES {
        return refuse(Code::TooLarge, format!("{} bytes; a file has at most {MAX_FILE_BYTES}", bytes.len()));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return refuse(Code::NotText, "the file is not UTF-8 text".to_owned());
    };
    let stream = yaml::read(text);
    let mut reading = Reading {
        scope,
        text,
        objects: Vec::new(),
        named: Vec::new(),
        foreign: 0,
        opaque: stream.incomplete,
    };
    let mut findings = stream.findings;
    for document in stream.documents {
        reading.document(document, &mut findings);
    }
    reading.finish(path, findings)
}

struct Reading<'a> {
    scope: &'a Scope,
    text: &'a str,
    objects: Vec<Authored>,
    named: Vec<ObjectId>,
    foreign: usize,
    opaque: bool,
}

impl Reading<'_> {
    fn document(&mut self, document: Document, findings: &mut Vec<Finding>) {
        let sort = identity::sort(&document);
        if !matches!(sort, Sort::Foreign) {
            findings.extend_from_slice(&document.findings);
        }
        match sort {
            Sort::Foreign => self.foreign += 1,
            Sort::Wrong(finding) => {
                findings.push(finding);
                self.opaque = true;
            }
            Sort::Ours(kind) => self.ours(kind, document, findings),
        }
    }

    fn ours(&mut self, kind: Kind, mut document: Document, findings: &mut Vec<Finding>) {
        schema::drop_nulls(&mut document.value);
        fields(kind, &mut document, findings);
        identity::metadata(&document, findings);
        let Some(id) = identity::id(kind, &document, self.scope, findings) else {
            self.opaque = true;
            return;
        };
        images(&document, findings);
        code_repositories(&document, self.scope, findings);
        let at = document.spans.value("/metadata/name");
        if let Some(first) = self.objects.iter().find(|object| object.id == id) {
            let message = format!("{id} stands twice in this file; first on line {}", first.at.line);
            findings.push(Finding { at, code: Code::DuplicateObject, message });
        }
        prompt_path(&document, findings);
        if let Some(Value::Object(metadata)) = document.value.get_mut("metadata") {
            metadata.insert("namespace".to_owned(), id.namespace.as_str().into());
        }
        let references = reference::of(&id, &document.value, &document.spans, self.text);
        let source = self.text.lines().nth(at.line as usize - 1).unwrap_or_default().to_owned();
        self.named.push(id.clone());
        self.objects.push(Authored {
            id,
            document: document.index,
            at,
            value: document.value,
            references,
            source,
        });
    }

    fn finish(self, path: &RepoPath, mut findings: Vec<Finding>) -> FileOutcome {
        findings.sort_by_key(|finding| (finding.at, finding.code));
        let told = |f: Finding| Diagnostic::new(path, self.text, f.at, f.code, f.message);
        let mut diagnostics: Vec<Diagnostic> = findings.into_iter().map(told).collect();
        let failed = diagnostics.iter().any(Diagnostic::is_error);
        // errors first, should there be more than are kept
        if diagnostics.len() > MAX_DIAGNOSTICS {
            diagnostics.sort_by_key(|told| told.severity);
            diagnostics.truncate(MAX_DIAGNOSTICS);
        }
        let objects = if failed { Vec::new() } else { self.objects.into_iter().map(Arc::new).collect() };
        FileOutcome {
            objects,
            diagnostics,
            foreign: self.foreign,
            named: self.named,
            opaque: failed && self.opaque,
        }
    }
}

/// The object against the schema and rules of its kind. A status is the controllers' and is dropped.
fn fields(kind: Kind, document: &mut Document, findings: &mut Vec<Finding>) {
    let spans = &document.spans;
    if let Value::Object(object) = &mut document.value
        && object.shift_remove("status").is_some()
    {
        let message = "status is written by the controllers; it is left out here".to_owned();
        findings.push(Finding { at: spans.key("/status"), code: Code::StatusIgnored, message });
    }
    for unknown in schema::unknown_fields(kind, &document.value) {
        let name = unknown.pointer.rsplit('/').next().unwrap_or_default();
        let hint = unknown.meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
        let message = format!("{kind} has no field {name:?} here{hint}");
        findings.push(Finding { at: spans.key(&unknown.pointer), code: Code::UnknownField, message });
    }
    for violation in schema::check(kind, &document.value, None).err().unwrap_or_default() {
        let at = match violation.code {
            schema::Code::MissingField => spans.key(&violation.pointer),
            _ => spans.value(&violation.pointer),
        };
        findings.push(Finding { at, code: Code::Schema(violation.code), message: violation.message });
    }
}

fn images(document: &Document, findings: &mut Vec<Finding>) {
    let image = document.value.pointer("/spec/image").and_then(Value::as_str);
    if let Some(image) = image.filter(|image| !image.contains("@sha256:")) {
        let message = format!("{image} may change under the same name: pin it as {image}@sha256:…");
        findings.push(Finding {
            at: document.spans.value("/spec/image"),
            code: Code::ImageNotPinned,
            message,
        });
    }
}

/// Every code repository that the object names is one of those allowed.
fn code_repositories(document: &Document, scope: &Scope, findings: &mut Vec<Finding>) {
    let contexts = document.value.pointer("/spec/contexts").and_then(Value::as_array).map_or(0, Vec::len);
    let of_contexts = (0..contexts).map(|index| format!("/spec/contexts/{index}/git/url"));
    for pointer in of_contexts.chain(["/spec/repository/url".to_owned()]) {
        let Some(url) = document.value.pointer(&pointer).and_then(Value::as_str) else { continue };
        if let Err(refused) = scope.code().check(url) {
            let (at, code) = (document.spans.value(&pointer), Code::RepositoryNotAllowed);
            findings.push(Finding { at, code, message: refused.in_words() });
        }
    }
}

fn prompt_path(document: &Document, findings: &mut Vec<Finding>) {
    let pointer = "/spec/task/promptFrom/path";
    let path = document.value.pointer(pointer).and_then(Value::as_str);
    if let Some(Err(error)) = path.map(str::parse::<RepoPath>) {
        let at = document.spans.value(pointer);
        findings.push(Finding { at, code: Code::BadPrompt, message: error.to_string() });
    }
}

impl Authored {
    /// The file that holds its prompt, if it names one.
    #[must_use]
    pub fn prompt(&self) -> Option<&RepoPath> {
        self.references.iter().find_map(|reference| match &reference.target {
            Target::Prompt(path) => Some(path),
            Target::Object(_) => None,
        })
    }
}
