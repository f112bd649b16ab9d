//! One pass over YAML events: a JSON value and the positions of its nodes.
//!
//! The events are read here and not loaded by the YAML crate, because a loader copies what an alias
//! points to without a limit ("billion laughs"), and recurses to the depth of the text.

use std::collections::{BTreeMap, HashMap};

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Number, Value};

use crate::diagnostic::{Diagnostic, Position, Severity, quoted};

use super::Chunk;
use super::bytes::Bytes;
use super::tree::Spots;

/// How deep mappings and lists may nest. Kubernetes objects reach about fifteen; everything that
/// walks a value recursively is safe below this.
const MAX_DEPTH: usize = 64;
/// How many nodes one text may hold, what its aliases stand for counted each time.
const MAX_NODES: usize = 1_000_000;
/// How many bytes of keys and scalars, counted likewise: twice the longest text.
const MAX_BYTES: usize = 2 * super::MAX_TEXT;
/// How many repeated keys of one document are reported.
const MAX_REPEATED: usize = 20;

type ParseOutcome = Result<(Value, Spots), Diagnostic>;

/// Reads the chunks of one text, which share one budget.
pub(super) struct YamlReader {
    spent: Weight,
    exhausted: bool,
}

/// What a node costs, in nodes and bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

/// A complete node.
#[derive(Debug, Clone)]
struct YamlNode {
    value: Value,
    spots: Spots,
    weight: Weight,
}

/// A node under construction.
struct Frame {
    at: Position,
    /// 0: none.
    anchor: usize,
    weight: Weight,
    content: YamlContent,
}

enum YamlContent {
    List {
        values: Vec<Value>,
        spots: Vec<Spots>,
    },
    Mapping {
        values: Map<String, Value>,
        spots: BTreeMap<String, (Position, Spots)>,
        key: Option<(String, Position)>,
        /// What stands under `<<`, nearest first.
        merged: Option<Vec<YamlNode>>,
    },
}

/// The key whose mappings are merged into the one it stands in. YAML 1.2 has it no more, and every
/// tool of Kubernetes still does.
const MERGE: &str = "<<";

/// The document under construction.
#[derive(Default)]
struct Build {
    open: Vec<Frame>,
    anchors: HashMap<usize, YamlNode>,
    /// Keys that stand twice in one mapping. The document is read to its end, so that all are
    /// named.
    repeated: Vec<Diagnostic>,
}

impl YamlReader {
    pub(super) fn new() -> Self {
        Self {
            spent: Weight::default(),
            exhausted: false,
        }
    }

    /// Whether the budget is spent. What follows in the text is not read.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// The documents of a chunk. An error ends it.
    pub(super) fn read(&mut self, chunk: &Chunk<'_>) -> Vec<ParseOutcome> {
        let mut outcomes = Vec::new();
        let mut parser = Parser::new_from_str(chunk.text);
        let mut build = Build::default();
        let places = SourceMap::new(chunk);
        while let Some(event) = parser.next_event() {
            let step = event
                .map_err(|error| not_yaml(&error, places.spot(&Span::empty(*error.marker()))))
                .and_then(|(event, span)| self.step(&mut build, event, places.spot(&span)));
            match step {
                Ok(None) => {}
                Ok(Some(root)) => {
                    let repeated = std::mem::take(&mut build.repeated);
                    if repeated.is_empty() {
                        outcomes.push(Ok((root.value, root.spots)));
                    } else {
                        outcomes.extend(repeated.into_iter().map(Err));
                    }
                    build = Build::default();
                }
                Err(diagnostic) => {
                    outcomes.extend(build.repeated.into_iter().map(Err));
                    outcomes.push(Err(diagnostic));
                    break;
                }
            }
        }
        outcomes
    }

    /// Takes in one event; returns the root when it is complete.
    fn step(&mut self, build: &mut Build, event: Event<'_>, at: Position) -> Result<Option<YamlNode>, Diagnostic> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let weight = Weight {
                    nodes: 1,
                    bytes: text.len(),
                };
                self.spend(weight, at)?;
                let value = scalar(&text, style, tag.as_deref(), at)?;
                self.complete(
                    build,
                    YamlNode {
                        value,
                        spots: Spots::scalar(at),
                        weight,
                    },
                    anchor,
                    at,
                )
            }
            Event::Alias(anchor) => {
                let node = build.anchors.get(&anchor).ok_or_else(|| {
                    refusal(
                        "not-yaml",
                        at,
                        "the alias stands inside the node that it points to".into(),
                    )
                })?;
                self.spend(node.weight, at)?;
                let node = node.clone();
                self.complete(build, node, 0, at)
            }
            Event::SequenceStart(anchor, _) => self.open(
                build,
                anchor,
                at,
                YamlContent::List {
                    values: Vec::new(),
                    spots: Vec::new(),
                },
            ),
            Event::MappingStart(anchor, _) => {
                let content = YamlContent::Mapping {
                    values: Map::new(),
                    spots: BTreeMap::new(),
                    key: None,
                    merged: None,
                };
                self.open(build, anchor, at, content)
            }
            Event::SequenceEnd | Event::MappingEnd => match build.open.pop() {
                Some(mut frame) => {
                    frame.at = whole(frame.at, at);
                    let (at, anchor) = (frame.at, frame.anchor);
                    self.complete(build, frame.close(), anchor, at)
                }
                None => Ok(None),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(None)
            }
        }
    }

    fn open(
        &mut self,
        build: &mut Build,
        anchor: usize,
        at: Position,
        content: YamlContent,
    ) -> Result<Option<YamlNode>, Diagnostic> {
        if build.open.len() >= MAX_DEPTH {
            return Err(refusal(
                "too-deep",
                at,
                format!("mappings and lists nest deeper than {MAX_DEPTH}"),
            ));
        }
        let weight = Weight { nodes: 1, bytes: 0 };
        self.spend(weight, at)?;
        build.open.push(Frame {
            at,
            anchor,
            weight,
            content,
        });
        Ok(None)
    }

    /// Puts a complete node where it belongs.
    fn complete(
        &mut self,
        build: &mut Build,
        node: YamlNode,
        anchor: usize,
        at: Position,
    ) -> Result<Option<YamlNode>, Diagnostic> {
        if anchor != 0 {
            // The copy is kept: it costs what the node costs.
            self.spend(node.weight, at)?;
            build.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = build.open.last_mut() else {
            return Ok(Some(node));
        };
        parent.weight.nodes += node.weight.nodes;
        parent.weight.bytes += node.weight.bytes;
        match &mut parent.content {
            YamlContent::List { values, spots } => {
                values.push(node.value);
                spots.push(node.spots);
            }
            YamlContent::Mapping {
                values,
                spots,
                key,
                merged,
            } => match key.take() {
                None => *key = Some((key_text(node.value, at)?, at)),
                Some((key, at)) if key == MERGE && merged.is_none() => *merged = Some(mappings(node, at)?),
                Some((key, at)) if key == MERGE || values.contains_key(&key) => {
                    if build.repeated.len() < MAX_REPEATED {
                        let reason = format!("the key {} stands twice in one mapping", quoted(&key));
                        build.repeated.push(refusal("duplicate-key", at, reason));
                    }
                }
                Some((key, at)) => {
                    spots.insert(key.clone(), (at, node.spots));
                    values.insert(key, node.value);
                }
            },
        }
        Ok(None)
    }

    fn spend(&mut self, weight: Weight, at: Position) -> Result<(), Diagnostic> {
        self.spent.nodes = self.spent.nodes.saturating_add(weight.nodes);
        self.spent.bytes = self.spent.bytes.saturating_add(weight.bytes);
        if self.spent.nodes <= MAX_NODES && self.spent.bytes <= MAX_BYTES {
            return Ok(());
        }
        self.exhausted = true;
        let reason = format!(
            "the text stands for more than {MAX_NODES} nodes or {MAX_BYTES} bytes, its aliases written out; nothing from here on is read"
        );
        Err(Diagnostic {
            suggestion: Some("write fewer aliases, or split the file".into()),
            ..refusal("too-large", at, reason)
        })
    }
}

impl Frame {
    fn close(self) -> YamlNode {
        let (value, spots) = match self.content {
            YamlContent::List { values, spots } => (Value::Array(values), Spots::items(self.at, spots)),
            YamlContent::Mapping {
                mut values,
                mut spots,
                merged,
                ..
            } => {
                for node in merged.into_iter().flatten() {
                    let (Value::Object(fields), mut places) = (node.value, node.spots.into_fields()) else {
                        continue;
                    };
                    for (key, value) in fields {
                        if !values.contains_key(&key)
                            && let Some(place) = places.remove(&key)
                        {
                            spots.insert(key.clone(), place);
                            values.insert(key, value);
                        }
                    }
                }
                (Value::Object(values), Spots::fields(self.at, spots))
            }
        };
        YamlNode {
            value,
            spots,
            weight: self.weight,
        }
    }
}

/// A mapping or list from its first to its last token. Of no length where it runs over many lines,
/// or is in block style, which has no last token.
fn whole(first: Position, last: Position) -> Position {
    let length = match first.line == last.line && !last.is_empty() {
        true => last.end().saturating_sub(first.offset),
        false => 0,
    };
    Position { length, ..first }
}

/// Where the markers of a chunk are in its text.
struct SourceMap<'t> {
    line: usize,
    offset: usize,
    bytes: Bytes<'t>,
}

impl<'t> SourceMap<'t> {
    fn new(chunk: &Chunk<'t>) -> Self {
        Self {
            line: chunk.line,
            offset: chunk.offset,
            bytes: Bytes::of(chunk.text),
        }
    }

    fn spot(&self, span: &Span) -> Position {
        let byte = |marker: &Marker| self.bytes.before(marker.index());
        let start = byte(&span.start);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position {
            line: narrow(span.start.line() + self.line - 1),
            column: narrow(span.start.col() + 1),
            offset: narrow(self.offset + start),
            length: narrow(byte(&span.end).saturating_sub(start)),
        }
    }
}

/// A scalar by the core schema (YAML 1.2 §10.3).
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Value, Diagnostic> {
    let tag = tag.cloned().map(std::borrow::Cow::Owned);
    let Some(scalar) = Scalar::parse_from_cow_and_metadata(text.into(), style, tag.as_ref()) else {
        return Err(refusal(
            "not-yaml",
            at,
            format!("{} is not what its tag says", quoted(text)),
        ));
    };
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => value.into(),
        Scalar::Integer(value) => value.into(),
        // JSON has no infinities; such a number can only be meant as text.
        Scalar::FloatingPoint(value) => Number::from_f64(*value).map_or_else(|| text.into(), Value::Number),
        Scalar::String(value) => value.into_owned().into(),
    })
}

/// The mappings under a merge key: one, or a list of them, of which the first wins.
fn mappings(node: YamlNode, at: Position) -> Result<Vec<YamlNode>, Diagnostic> {
    let nodes = match node.value {
        Value::Object(_) => vec![node],
        Value::Array(values) => {
            let spots = node.spots.into_items();
            let weight = node.weight;
            let nodes = values.into_iter().zip(spots);
            nodes.map(|(value, spots)| YamlNode { value, spots, weight }).collect()
        }
        _ => Vec::new(),
    };
    match nodes.iter().all(|node| node.value.is_object()) && !nodes.is_empty() {
        true => Ok(nodes),
        false => Err(refusal(
            "not-yaml",
            at,
            format!("{MERGE} merges mappings, and what stands behind it is none"),
        )),
    }
}

/// A key as JSON has them: text. Other scalars become their text, as `kubectl` does.
fn key_text(value: Value, at: Position) -> Result<String, Diagnostic> {
    match value {
        Value::String(text) => Ok(text),
        Value::Array(_) | Value::Object(_) => Err(refusal(
            "not-yaml",
            at,
            "a key must be a string, and is a list or a mapping".into(),
        )),
        other => Ok(other.to_string()),
    }
}

fn not_yaml(error: &ScanError, at: Position) -> Diagnostic {
    let suggestion = match error.info().contains("tab") {
        true => "indent with spaces",
        false => {
            "look here and at the line before for wrong indentation, and for a quote or bracket that is not closed"
        }
    };
    Diagnostic {
        suggestion: Some(suggestion.into()),
        ..refusal("not-yaml", at, format!("it is not YAML: {}", error.info()))
    }
}

fn refusal(code: &'static str, at: Position, reason: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        path: String::new(),
        position: Some(at),
        reason,
        suggestion: None,
    }
}
