//! One pass over YAML events: a JSON value and the positions of its nodes.
//!
//! The YAML crate's loader is not used, because it copies what an alias points to without a limit
//! ("billion laughs"), and recurses to the depth of the text.

use std::collections::{BTreeMap, HashMap};

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Number, Value};

use crate::diagnostic::{Diagnostic, Position, Severity, quoted};

use super::Chunk;
use super::byte_offsets::ByteOffsets;
use super::node_positions::NodePositions;

/// How deep mappings and lists may nest. Kubernetes objects reach about 15 levels, and recursion
/// over 64 is safe.
const MAX_DEPTH: usize = 64;
/// How many nodes one text may hold. What an alias points to counts at each alias.
const MAX_NODES: usize = 1_000_000;
/// How many bytes of keys and scalars, counted in the same way: twice the longest text.
const MAX_BYTES: usize = 2 * super::MAX_TEXT;
/// How many repeated keys of one document are reported.
const MAX_REPEATED: usize = 20;

type ParseOutcome = Result<(Value, NodePositions), Diagnostic>;

/// Reads the chunks of one text, which share one budget of nodes and bytes.
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
    positions: NodePositions,
    weight: Weight,
}

/// A mapping or list whose end has not been read.
struct OpenNode {
    at: Position,
    /// The parser's number of its anchor; 0 without one.
    anchor: usize,
    weight: Weight,
    content: YamlContent,
}

enum YamlContent {
    List {
        values: Vec<Value>,
        positions: Vec<NodePositions>,
    },
    Mapping {
        values: Map<String, Value>,
        positions: BTreeMap<String, (Position, NodePositions)>,
        key: Option<(String, Position)>,
        /// The mappings under `<<`; the first wins.
        merged: Option<Vec<YamlNode>>,
    },
}

/// The merge key: its mappings are merged into the one that it stands in. YAML 1.2 dropped it, but
/// Kubernetes' tools still read it.
const MERGE: &str = "<<";

/// A document whose end has not been read.
#[derive(Default)]
struct DocumentBuilder {
    open: Vec<OpenNode>,
    anchors: HashMap<usize, YamlNode>,
    /// A diagnostic for each key that stands twice in one mapping. The document is read to its end,
    /// so that all of them are reported.
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

    /// The documents of a chunk. Reading ends at the first syntax error.
    pub(super) fn read(&mut self, chunk: &Chunk<'_>) -> Vec<ParseOutcome> {
        let mut outcomes = Vec::new();
        let mut parser = Parser::new_from_str(chunk.text);
        let mut build = DocumentBuilder::default();
        let source = SourceMap::new(chunk);
        while let Some(event) = parser.next_event() {
            let step = event
                .map_err(|error| not_yaml(&error, source.position(&Span::empty(*error.marker()))))
                .and_then(|(event, span)| self.step(&mut build, event, source.position(&span)));
            match step {
                Ok(None) => {}
                Ok(Some(root)) => {
                    let repeated = std::mem::take(&mut build.repeated);
                    if repeated.is_empty() {
                        outcomes.push(Ok((root.value, root.positions)));
                    } else {
                        outcomes.extend(repeated.into_iter().map(Err));
                    }
                    build = DocumentBuilder::default();
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

    /// Handles one event; returns the document's root when it is complete.
    fn step(
        &mut self,
        build: &mut DocumentBuilder,
        event: Event<'_>,
        at: Position,
    ) -> Result<Option<YamlNode>, Diagnostic> {
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
                        positions: NodePositions::scalar(at),
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
                    positions: Vec::new(),
                },
            ),
            Event::MappingStart(anchor, _) => {
                let content = YamlContent::Mapping {
                    values: Map::new(),
                    positions: BTreeMap::new(),
                    key: None,
                    merged: None,
                };
                self.open(build, anchor, at, content)
            }
            Event::SequenceEnd | Event::MappingEnd => match build.open.pop() {
                Some(mut node) => {
                    node.at = span_of(node.at, at);
                    let (at, anchor) = (node.at, node.anchor);
                    self.complete(build, node.close(), anchor, at)
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
        build: &mut DocumentBuilder,
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
        build.open.push(OpenNode {
            at,
            anchor,
            weight,
            content,
        });
        Ok(None)
    }

    /// Adds a complete node to its parent, or returns it when it is the root.
    fn complete(
        &mut self,
        build: &mut DocumentBuilder,
        node: YamlNode,
        anchor: usize,
        at: Position,
    ) -> Result<Option<YamlNode>, Diagnostic> {
        if anchor != 0 {
            // The anchor keeps a copy, which costs as much as the node.
            self.spend(node.weight, at)?;
            build.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = build.open.last_mut() else {
            return Ok(Some(node));
        };
        parent.weight.nodes += node.weight.nodes;
        parent.weight.bytes += node.weight.bytes;
        match &mut parent.content {
            YamlContent::List { values, positions } => {
                values.push(node.value);
                positions.push(node.positions);
            }
            YamlContent::Mapping {
                values,
                positions,
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
                    positions.insert(key.clone(), (at, node.positions));
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

impl OpenNode {
    fn close(self) -> YamlNode {
        let (value, positions) = match self.content {
            YamlContent::List { values, positions } => (Value::Array(values), NodePositions::items(self.at, positions)),
            YamlContent::Mapping {
                mut values,
                mut positions,
                merged,
                ..
            } => {
                for node in merged.into_iter().flatten() {
                    let (Value::Object(fields), mut merged) = (node.value, node.positions.into_fields()) else {
                        continue;
                    };
                    for (key, value) in fields {
                        if !values.contains_key(&key)
                            && let Some(place) = merged.remove(&key)
                        {
                            positions.insert(key.clone(), place);
                            values.insert(key, value);
                        }
                    }
                }
                (Value::Object(values), NodePositions::fields(self.at, positions))
            }
        };
        YamlNode {
            value,
            positions,
            weight: self.weight,
        }
    }
}

/// The position of a mapping or list from its first to its last token. It has no length when it
/// runs over many lines, or is in block style, which has no last token.
fn span_of(first: Position, last: Position) -> Position {
    let length = match first.line == last.line && !last.is_empty() {
        true => last.end().saturating_sub(first.offset),
        false => 0,
    };
    Position { length, ..first }
}

/// Translates the parser's positions in a chunk to positions in the whole text.
struct SourceMap<'t> {
    line: usize,
    offset: usize,
    offsets: ByteOffsets<'t>,
}

impl<'t> SourceMap<'t> {
    fn new(chunk: &Chunk<'t>) -> Self {
        Self {
            line: chunk.line,
            offset: chunk.offset,
            offsets: ByteOffsets::of(chunk.text),
        }
    }

    fn position(&self, span: &Span) -> Position {
        let byte = |marker: &Marker| self.offsets.of_char(marker.index());
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

/// The value of a scalar by the core schema (YAML 1.2 §10.3).
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
        // JSON has no infinities, so that such a number can only be meant as text.
        Scalar::FloatingPoint(value) => Number::from_f64(*value).map_or_else(|| text.into(), Value::Number),
        Scalar::String(value) => value.into_owned().into(),
    })
}

/// The mappings under a merge key: one, or those of a list, of which the first wins.
fn mappings(node: YamlNode, at: Position) -> Result<Vec<YamlNode>, Diagnostic> {
    let nodes = match node.value {
        Value::Object(_) => vec![node],
        Value::Array(values) => {
            let positions = node.positions.into_items();
            let weight = node.weight;
            let nodes = values.into_iter().zip(positions);
            nodes
                .map(|(value, positions)| YamlNode {
                    value,
                    positions,
                    weight,
                })
                .collect()
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

/// A key as JSON has it: a string. As in `kubectl`, other scalars become their text.
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
