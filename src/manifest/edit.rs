//! Sets one switch of an object in the text of its file, and leaves every other byte as it is.

use std::ops::Range;

use granit_parser::{Event, Parser, Span, StrInput};
use serde_json::Value;

use super::yaml;
use crate::kinds::ObjectId;

/// Why a file is not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file does not hold the object.
    #[error("the file does not hold {0}")]
    NotFound(ObjectId),
    /// The file is not readable YAML.
    #[error("the file has errors: {0}")]
    Unreadable(String),
    /// The text is written in a way that cannot be changed safely.
    #[error(
        "the spec of {id} is written in a way that cannot be edited safely; set spec.{field}: {value} by hand"
    )]
    ByHand {
        /// Which object.
        id: ObjectId,
        /// The field.
        field: String,
        /// What it should say.
        value: bool,
    },
}

/// Sets `spec.<field>` of an object to `value` in the text of its file: the value is replaced where the field stands, or
/// a line is added right below `spec:`. Comments and layout stay. The result is read again; had anything else changed,
/// nothing is returned.
///
/// An object that names no namespace counts as one of `id`'s.
///
/// # Errors
/// When the object is not in the text, or the text cannot be edited safely.
pub fn set_flag(text: &str, id: &ObjectId, field: &str, value: bool) -> Result<String, EditError> {
    let by_hand = || EditError::ByHand { id: id.clone(), field: field.to_owned(), value };
    let before = documents(text)?;
    let index = before.iter().position(|document| names(document, id));
    let index = index.ok_or_else(|| EditError::NotFound(id.clone()))?;
    let spec = locate(text, id, field).ok_or_else(by_hand)?;
    let edited = spec.write(text, field, value).ok_or_else(by_hand)?;
    let mut expected = before;
    expected[index]["spec"][field] = value.into();
    match documents(&edited) {
        Ok(after) if after == expected => Ok(edited),
        _ => Err(by_hand()),
    }
}

fn documents(text: &str) -> Result<Vec<Value>, EditError> {
    let stream = yaml::read(text);
    if stream.incomplete {
        let first = stream.findings.into_iter().next();
        return Err(EditError::Unreadable(first.map_or_else(String::new, |finding| finding.message)));
    }
    Ok(stream.documents.into_iter().map(|document| document.value).collect())
}

fn names(document: &Value, id: &ObjectId) -> bool {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    text("/kind") == Some(id.kind.as_str())
        && text("/metadata/name") == Some(id.name.as_str())
        && text("/metadata/namespace").is_none_or(|namespace| namespace == id.namespace.as_str())
}

/// Where a spec, and the field in it, stand in the text.
struct Spec {
    /// The bytes of the key `spec`.
    key: Range<usize>,
    /// The first byte of the map.
    start: usize,
    /// The first byte of the map's first key.
    first: Option<usize>,
    /// The bytes of the field's value.
    field: Option<Range<usize>>,
}

impl Spec {
    fn write(&self, text: &str, field: &str, value: bool) -> Option<String> {
        if let Some(old) = &self.field {
            return Some(format!("{}{value}{}", text.get(..old.start)?, text.get(old.end..)?));
        }
        if text.get(self.start..)?.starts_with('{') {
            let quote = if text.get(self.key.clone())?.starts_with('"') { "\"" } else { "" };
            let comma = if self.first.is_some() { ", " } else { "" };
            let at = self.start + 1;
            return Some(format!("{}{quote}{field}{quote}: {value}{comma}{}", &text[..at], &text[at..]));
        }
        let line =
            |at: usize| text.get(..at).map(|before| before.rfind('\n').map_or(0, |newline| newline + 1));
        let first = self.first?;
        let indent = text.get(line(first)?..first)?;
        let below = self.key.end + text.get(self.key.end..)?.find('\n')? + 1;
        let newline = if text[..below].ends_with("\r\n") { "\r\n" } else { "\n" };
        Some(format!("{}{indent}{field}: {value}{newline}{}", &text[..below], &text[below..]))
    }
}

/// A part of a document with its place.
enum Node {
    Scalar(String, Range<usize>),
    Map(usize, Vec<(Self, Self)>),
    Other,
}

impl Node {
    fn text(&self) -> Option<&str> {
        if let Self::Scalar(text, _) = self { Some(text) } else { None }
    }

    fn entry(&self, name: &str) -> Option<&(Self, Self)> {
        let Self::Map(_, entries) = self else { return None };
        entries.iter().find(|(key, _)| key.text() == Some(name))
    }
}

fn locate(text: &str, id: &ObjectId, field: &str) -> Option<Spec> {
    let (mark, body) =
        text.strip_prefix('\u{feff}').map_or((0, text), |body| (text.len() - body.len(), body));
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(body, options);
    loop {
        let (event, span) = parser.next_event()?.ok()?;
        let node = match event {
            Event::StreamEnd => return None,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => continue,
            event => node(&mut parser, event, span)?,
        };
        let part =
            |of: &Node, name: &str| of.entry(name).and_then(|(_, value)| value.text().map(str::to_owned));
        let metadata = node.entry("metadata").map_or(&Node::Other, |(_, value)| value);
        let is_meant = part(&node, "kind").as_deref() == Some(id.kind.as_str())
            && part(metadata, "name").as_deref() == Some(id.name.as_str())
            && part(metadata, "namespace").is_none_or(|namespace| namespace == id.namespace.as_str());
        if is_meant {
            return spec(&node, field, mark);
        }
    }
}

fn spec(document: &Node, field: &str, mark: usize) -> Option<Spec> {
    let shift = |range: &Range<usize>| range.start + mark..range.end + mark;
    let (Node::Scalar(_, key), spec @ Node::Map(start, entries)) = document.entry("spec")? else {
        return None;
    };
    let first = entries.first().and_then(|(key, _)| match key {
        Node::Scalar(_, range) => Some(range.start + mark),
        _ => None,
    });
    let field = match spec.entry(field) {
        Some((_, Node::Scalar(_, range))) => Some(shift(range)),
        Some(_) => return None,
        None => None,
    };
    Some(Spec { key: shift(key), start: start + mark, first, field })
}

/// Reads one node. Depth was bounded when the text was read the first time.
fn node<'a>(parser: &mut Parser<'a, StrInput<'a>>, event: Event<'a>, span: Span) -> Option<Node> {
    let range = span.byte_range()?;
    match event {
        Event::Scalar(text, ..) => Some(Node::Scalar(text.into_owned(), range)),
        Event::SequenceStart(..) => loop {
            match parser.next_event()?.ok()? {
                (Event::SequenceEnd, _) => return Some(Node::Other),
                (event, span) => {
                    node(parser, event, span)?;
                }
            }
        },
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                let (event, span) = parser.next_event()?.ok()?;
                if matches!(event, Event::MappingEnd) {
                    return Some(Node::Map(range.start, entries));
                }
                let key = node(parser, event, span)?;
                let (event, span) = parser.next_event()?.ok()?;
                entries.push((key, node(parser, event, span)?));
            }
        }
        _ => Some(Node::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;

    fn fix() -> ObjectId {
        ObjectId::new(Kind::HarnessRun, "team".parse().unwrap(), "fix".parse().unwrap())
    }

    const HEAD: &str = "apiVersion: ostler.dev/v1alpha1\nkind: HarnessRun\nmetadata: {name: fix}\n";

    fn edited(spec: &str) -> Result<String, EditError> {
        let text = format!("{HEAD}{spec}");
        set_flag(&text, &fix(), "stop", true).map(|text| text.strip_prefix(HEAD).unwrap().to_owned())
    }

    #[test]
    fn only_the_switch_changes() {
        let cases = [
            (
                "spec: # what\n  # the session\n  sessionRef: {name: ä}   # pay\n",
                "spec: # what\n  stop: true\n  # the session\n  sessionRef: {name: ä}   # pay\n",
            ),
            (
                "spec:\n  stop:   false # not yet\n  args: [a]\n",
                "spec:\n  stop:   true # not yet\n  args: [a]\n",
            ),
            (
                "spec:\n    args: [ä]\n    'stop': !!bool 'false'\n",
                "spec:\n    args: [ä]\n    'stop': !!bool true\n",
            ),
            ("spec: {args: [a]}\n", "spec: {stop: true, args: [a]}\n"),
            ("spec: {}", "spec: {stop: true}"),
            ("\"spec\": {\"args\": []}\n", "\"spec\": {\"stop\": true, \"args\": []}\n"),
            ("spec:\r\n  args: [a]\r\n", "spec:\r\n  stop: true\r\n  args: [a]\r\n"),
        ];
        for (before, after) in cases {
            assert_eq!(edited(before).as_deref(), Ok(after));
        }
    }

    #[test]
    fn the_right_document_is_found() {
        let other = "---\napiVersion: v1\nkind: HarnessRun\nmetadata: {name: fix, namespace: other}\nspec: {args: [a]}\n";
        let text = format!("\u{feff}{other}---\n{HEAD}spec:\n  args: [b]\n---\nnote: ü\n");
        let after = set_flag(&text, &fix(), "stop", true).unwrap();
        assert_eq!(after, text.replace("  args: [b]", "  stop: true\n  args: [b]"));
    }

    #[test]
    fn what_cannot_be_done_safely_is_left_to_people() {
        for spec in ["spec:\n", "spec:\n  &a\n  args: [b]\n", "", "x: &x {args: [b]}\nspec: *x\n"] {
            assert!(matches!(edited(spec), Err(EditError::ByHand { .. })), "{spec:?}: {:?}", edited(spec));
        }
        assert!(matches!(edited("spec: {a: [}\n"), Err(EditError::Unreadable(_))));
        let missing = set_flag("kind: Agent\n", &fix(), "stop", true);
        assert_eq!(missing, Err(EditError::NotFound(fix())));
    }
}
