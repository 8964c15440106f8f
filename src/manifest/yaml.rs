//! Reads YAML into JSON values and remembers where everything stands.
//!
//! One pass over the parser's events: the second reading that spans would need is as dear as the first, and only here
//! can all duplicate keys of a file be reported, and the documents after a broken one.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::{
    MAX_DEPTH, MAX_DOCUMENTS, MAX_EXPANDED_BYTES,
    diagnostic::{Code, Position},
    scalar,
    spans::Spans,
};
use crate::schema::escape;

/// Something wrong or doubtful at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub at: Position,
    pub code: Code,
    pub message: String,
}

/// A document of a file.
#[derive(Debug)]
pub(super) struct Document {
    /// Its place in the file, from 0.
    pub index: usize,
    /// Its content.
    pub value: Value,
    /// Where its parts stand.
    pub spans: Spans,
    /// What was found in it; it counts only when the document is ours.
    pub findings: Vec<Finding>,
}

/// All documents of a text that could be read, and what kept the others from it. Empty documents are left out.
pub(super) struct Stream {
    pub documents: Vec<Document>,
    pub findings: Vec<Finding>,
    /// True when a document is missing because it could not be read.
    pub incomplete: bool,
}

/// Reads all documents.
pub(super) fn read(text: &str) -> Stream {
    let mut stream = Stream { documents: Vec::new(), findings: Vec::new(), incomplete: false };
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        findings: Vec::new(),
        anchors: HashMap::new(),
        spans: Spans::default(),
        budget: MAX_EXPANDED_BYTES,
    };
    let mut index = 0;
    loop {
        match reader.next_document() {
            Ok(None) => break,
            Ok(Some(Value::Null)) => {}
            Ok(Some(_)) if stream.documents.len() == MAX_DOCUMENTS => {
                stream.incomplete = true;
                let message = format!("a file holds at most {MAX_DOCUMENTS} documents");
                let at = reader.spans.value("");
                stream.findings.push(Finding { at, code: Code::TooLarge, message });
                break;
            }
            Ok(Some(value)) => stream.documents.push(Document {
                index,
                value,
                spans: std::mem::take(&mut reader.spans),
                findings: std::mem::take(&mut reader.findings),
            }),
            Err(stop) => {
                stream.incomplete = true;
                stream.findings.append(&mut reader.findings);
                stream.findings.push(stop.0);
                if !reader.parser.proceed_next_document().unwrap_or(false) {
                    break;
                }
            }
        }
        index += 1;
    }
    stream
}

/// The document cannot be read on.
struct Stop(Finding);

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    findings: Vec<Finding>,
    anchors: HashMap<usize, Value>,
    spans: Spans,
    budget: usize,
}

impl<'a> Reader<'a> {
    fn next_event(&mut self) -> Result<Option<(Event<'a>, Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(Stop(Finding {
                at: position(*error.marker()),
                code: Code::Syntax,
                message: format!("not YAML: {}", error.info()),
            })),
        }
    }

    fn next_document(&mut self) -> Result<Option<Value>, Stop> {
        self.anchors.clear();
        self.spans = Spans::default();
        loop {
            match self.next_event()? {
                None | Some((Event::StreamEnd, _)) => return Ok(None),
                Some((Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _)) => {}
                Some((event, span)) => return self.node(event, span, "", 0).map(Some),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, at: &str, depth: usize) -> Result<Value, Stop> {
        let place = position(span.start);
        if depth > MAX_DEPTH {
            return Err(stop(place, Code::TooLarge, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.spans.put_value(at, place);
        self.spend(16 + at.len(), place)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(text.len(), place)?;
                (self.scalar(&text, style, tag.as_deref(), place), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(at, depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(at, depth)?, anchor),
            Event::Alias(id) => {
                let unclosed = || {
                    stop(place, Code::UnsupportedYaml, "an alias cannot stand inside what it names".into())
                };
                let value = self.anchors.get(&id).cloned().ok_or_else(unclosed)?;
                self.spend(weight(&value), place)?;
                (value, 0)
            }
            other => return Err(stop(place, Code::Syntax, format!("not YAML: unexpected {other:?}"))),
        };
        if anchor != 0 {
            self.spend(weight(&value), place)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn list(&mut self, at: &str, depth: usize) -> Result<Value, Stop> {
        let mut list = Vec::new();
        loop {
            match self.expect_event()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(list)),
                (event, span) => {
                    let item = self.node(event, span, &format!("{at}/{}", list.len()), depth + 1)?;
                    list.push(item);
                }
            }
        }
    }

    fn map(&mut self, at: &str, depth: usize) -> Result<Value, Stop> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.expect_event()?;
            let place = position(span.start);
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => self.key(&text, style, place)?,
                _ => return Err(stop(place, Code::UnsupportedYaml, "a key must be a text".to_owned())),
            };
            let below = format!("{at}/{}", escape(&key));
            let (event, span) = self.expect_event()?;
            if key == "<<" {
                merged.push((self.node(event, span, &below, depth + 1)?, place));
            } else if let Some(first) = self.spans.known_key(&below).filter(|_| map.contains_key(&key)) {
                let message = format!("the key {key:?} stands here again; first on line {}", first.line);
                self.findings.push(Finding { at: place, code: Code::DuplicateKey, message });
                // read over, in a place of its own so that the first one keeps its spans
                self.node(event, span, &format!("{below}~"), depth + 1)?;
            } else {
                self.spans.put_key(&below, place);
                let value = self.node(event, span, &below, depth + 1)?;
                map.insert(key, value);
            }
        }
        for (value, place) in merged {
            merge(&mut map, value, place)?;
        }
        Ok(Value::Object(map))
    }

    fn key(&mut self, text: &str, style: ScalarStyle, place: Position) -> Result<String, Stop> {
        if style != ScalarStyle::Plain || text == "<<" {
            return Ok(text.to_owned());
        }
        match scalar::resolve(text) {
            Ok(resolved) => {
                if resolved.surprising {
                    self.surprising(text, &resolved.value, place);
                }
                match resolved.value {
                    Value::String(text) => Ok(text),
                    Value::Null => Err(stop(place, Code::UnsupportedYaml, "a key must be a text".to_owned())),
                    other => Ok(other.to_string()),
                }
            }
            Err(text) => Ok(text.to_owned()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Position) -> Value {
        let plain = style == ScalarStyle::Plain;
        match tag.map(Tag::core_suffix) {
            Some(Some("str" | "binary")) => return text.into(),
            Some(Some("bool" | "int" | "float" | "null")) => {}
            Some(_) => {
                let message = "tags are not supported here; write the plain value".to_owned();
                self.findings.push(Finding { at: place, code: Code::UnsupportedYaml, message });
                return text.into();
            }
            None if plain => {}
            None => return text.into(),
        }
        match scalar::resolve(text) {
            Ok(resolved) => {
                if resolved.surprising {
                    self.surprising(text, &resolved.value, place);
                }
                resolved.value
            }
            Err(text) => {
                let message = format!("{text} is a number that JSON does not have");
                self.findings.push(Finding { at: place, code: Code::UnsupportedYaml, message });
                text.into()
            }
        }
    }

    fn surprising(&mut self, text: &str, value: &Value, at: Position) {
        let message = format!("an unquoted {text} means {value}: write {value}, or quote it");
        self.findings.push(Finding { at, code: Code::UnquotedBoolean, message });
    }

    fn expect_event(&mut self) -> Result<(Event<'a>, Span), Stop> {
        let end =
            || stop(Position { line: 1, column: 1 }, Code::Syntax, "not YAML: it ends too early".to_owned());
        self.next_event()?.ok_or_else(end)
    }

    /// Aliases repeat what they name; the budget is over what the file becomes.
    fn spend(&mut self, bytes: usize, place: Position) -> Result<(), Stop> {
        let too_large =
            || stop(place, Code::TooLarge, format!("aliases make it larger than {MAX_EXPANDED_BYTES} bytes"));
        self.budget = self.budget.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }
}

/// Adds what `<<` names where the map itself says nothing.
fn merge(map: &mut Map<String, Value>, value: Value, place: Position) -> Result<(), Stop> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) => list.into_iter().try_for_each(|item| match item {
            Value::Object(_) => merge(map, item, place),
            _ => Err(stop(place, Code::UnsupportedYaml, "<< takes maps only".to_owned())),
        }),
        _ => Err(stop(place, Code::UnsupportedYaml, "<< takes maps only".to_owned())),
    }
}

fn weight(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 0,
    }
}

fn stop(at: Position, code: Code, message: String) -> Stop {
    Stop(Finding { at, code, message })
}

/// The parser counts lines from 1 and columns from 0, in characters.
fn position(marker: Marker) -> Position {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}
