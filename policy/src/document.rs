//! YAML text → documents that know where in the text each field stands.

mod byte_offsets;
mod node_positions;
mod yaml;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::diagnostic::{Diagnostic, MAX_FINDINGS, Position, Severity, left_out, quoted};

use node_positions::NodePositions;
use yaml::YamlReader;

/// The longest text that [`parse`] reads, in bytes: far above any policy (etcd refuses objects
/// above 1.5 MiB), low enough that a tree of it fits in the agent's memory.
pub const MAX_TEXT: usize = 4 << 20;

/// One YAML document (a Kubernetes object) with the positions of its fields.
#[derive(Debug, Clone)]
pub struct Document {
    /// The field `apiVersion`, never empty.
    pub api_version: String,
    /// The field `kind`, never empty.
    pub kind: String,
    /// `metadata.namespace`, empty where absent.
    pub namespace: String,
    /// The field `metadata.name`, never empty.
    pub name: String,
    /// The whole object.
    pub value: Value,
    /// Where its fields stand in the text; `None` for an object that came from no file.
    positions: Option<NodePositions>,
}

impl Document {
    /// A document from an object that came from no file, for example from a watch. Its fields have
    /// no positions.
    pub fn from_value(value: Value) -> Result<Self, Diagnostic> {
        Self::new(value, None)
    }

    /// The position of the value at `path` (`spec.egress[0].toPorts`), or of its key where the
    /// value runs over many lines. A field that is not there has the position of its nearest
    /// parent.
    pub fn position(&self, path: &str) -> Option<Position> {
        self.positions.as_ref().map(|positions| positions.find(path))
    }

    /// The position of the key of the field at `path`; for an item of a list, that of the item.
    pub fn key_position(&self, path: &str) -> Option<Position> {
        self.positions.as_ref().map(|positions| positions.find_key(path))
    }

    /// Reads the document as `T`, naming the field and line of what does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Diagnostic> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let path = match error.path().to_string() {
                root if root == "." => String::new(),
                path => path,
            };
            Diagnostic {
                severity: Severity::Error,
                code: "wrong-type",
                position: self.position(&path),
                path,
                reason: error.into_inner().to_string(),
                suggestion: None,
            }
        })
    }

    fn new(value: Value, positions: Option<NodePositions>) -> Result<Self, Diagnostic> {
        let refusal = |code, path: &str, reason: String| Diagnostic {
            severity: Severity::Error,
            code,
            path: path.to_owned(),
            position: positions.as_ref().map(|positions| positions.find(path)),
            reason,
            suggestion: None,
        };
        if !value.is_object() {
            return Err(refusal(
                "not-an-object",
                "",
                "it is not a Kubernetes object (a mapping)".into(),
            ));
        }
        let is_there = |field: &&str| value.get(field).is_some_and(|value| !value.is_null());
        if !["apiVersion", "kind"].iter().any(is_there) {
            return Err(refusal(
                "not-an-object",
                "",
                "it is not a Kubernetes object: it has neither `apiVersion` nor `kind`".into(),
            ));
        }
        let text = |pointer: &str, path: &str, required: bool| match value.pointer(pointer) {
            Some(Value::String(text)) if !(required && text.is_empty()) => Ok(text.clone()),
            None | Some(Value::Null) if !required => Ok(String::new()),
            None | Some(Value::Null | Value::String(_)) => {
                Err(refusal("missing-field", path, format!("`{path}` is required")))
            }
            Some(other) => Err(refusal(
                "wrong-type",
                path,
                format!("it must be a string, and is {}", kind_of(other)),
            )),
        };
        let api_version = text("/apiVersion", "apiVersion", true)?;
        let kind = text("/kind", "kind", true)?;
        let namespace = text("/metadata/namespace", "metadata.namespace", false)?;
        let name = text("/metadata/name", "metadata.name", true)?;
        Ok(Self {
            api_version,
            kind,
            namespace,
            name,
            value,
            positions,
        })
    }
}

/// Splits a file into documents.
///
/// Empty documents are skipped, and a `kind: List` (or `…List`) is taken apart into its items. Text
/// that is not YAML becomes a diagnostic, and so does a document that is not an object, or lacks
/// `apiVersion`, `kind` or `metadata.name`. The other documents of the file are still returned.
///
/// Text may be hostile: its length, its depth, and what its aliases expand to are limited.
pub fn parse(text: &str) -> (Vec<Document>, Vec<Diagnostic>) {
    let mut documents = Vec::new();
    let diagnostics = parse_each(text, &mut |document| documents.push(document));
    (documents, diagnostics)
}

/// As [`parse`], one document after the other. Whoever keeps little of each has no more than one in
/// memory, and what is kept does not lie between what is freed of hundreds.
pub fn parse_each(text: &str, visit: &mut dyn FnMut(Document)) -> Vec<Diagnostic> {
    let mut documents = Vec::new();
    let mut diagnostics = Vec::new();
    if text.len() > MAX_TEXT {
        let reason = format!("the text has {} bytes, and at most {MAX_TEXT} are read", text.len());
        diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: "too-large",
            path: String::new(),
            position: None,
            reason,
            suggestion: Some("split it into several files".into()),
        });
        return diagnostics;
    }
    let mut unshown = 0;
    let mut reader = YamlReader::new();
    for chunk in chunks(text) {
        for outcome in reader.read(&chunk) {
            match outcome {
                Ok((Value::Null, _)) => {}
                Ok((value, positions)) => expand(value, positions, &mut documents, &mut diagnostics),
                Err(diagnostic) => diagnostics.push(diagnostic),
            }
        }
        documents.drain(..).for_each(&mut *visit);
        unshown += diagnostics.len().saturating_sub(MAX_FINDINGS);
        diagnostics.truncate(MAX_FINDINGS);
        if reader.is_exhausted() {
            break;
        }
    }
    diagnostics.extend(left_out(unshown));
    diagnostics
}

/// Adds an object, or each item of a list of objects, to the documents.
fn expand(
    mut value: Value,
    mut positions: NodePositions,
    documents: &mut Vec<Document>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let item_kind = match value.get("kind").and_then(Value::as_str) {
        Some(kind) if value.get("items").is_some() => kind.strip_suffix("List").map(str::to_owned),
        _ => None,
    };
    let Some(item_kind) = item_kind else {
        match Document::new(value, Some(positions)) {
            Ok(document) => documents.push(document),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
        return;
    };
    let api_version = value.get("apiVersion").cloned().unwrap_or(Value::Null);
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => {
            for (mut item, positions) in items.into_iter().zip(positions.take_items("items")) {
                // The items of a typed list (`PodList`) need not say what they are.
                if let Some(object) = item.as_object_mut()
                    && !item_kind.is_empty()
                {
                    object.entry("kind").or_insert_with(|| item_kind.clone().into());
                    object.entry("apiVersion").or_insert_with(|| api_version.clone());
                }
                expand(item, positions, documents, diagnostics);
            }
        }
        None | Some(Value::Null) => {}
        Some(other) => diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: "wrong-type",
            path: "items".into(),
            position: Some(positions.find("items")),
            reason: format!("it must be a list, and is {}", kind_of(&other)),
            suggestion: None,
        }),
    }
}

/// A part of a text, from one `---` line to the next. It is parsed by itself.
struct Chunk<'t> {
    /// The number of its first line, from 1.
    line: usize,
    /// Its byte offset in the text.
    offset: usize,
    text: &'t str,
}

/// Cuts the text before each `---` line, so that a syntax error costs one document only.
///
/// The cut is exact: a line that begins with `---` and a blank ends a document everywhere, inside
/// block scalars too (YAML 1.2 §9.1.2). Directives (`%YAML`) belong to the document that follows.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut start = (1, 0);
    let chunk = |(line, offset), end| Chunk {
        line,
        offset,
        text: &text[offset..end],
    };
    let mut holds_content = false;
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if is_marker && holds_content {
            chunks.push(chunk(start, offset));
            start = (index + 1, offset);
        }
        holds_content |= is_marker || !(line.trim().is_empty() || line.starts_with(['%', '#']));
        offset += line.len();
    }
    chunks.push(chunk(start, text.len()));
    chunks
}

/// A JSON value's kind, and its value if it is short, as messages name it.
pub(crate) fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("the boolean {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => format!("the string {}", quoted(value)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

#[cfg(test)]
mod tests;
