//! YAML text → documents that remember where each field stood.

mod bytes;
mod tree;
mod yaml;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::diagnostic::{Diagnostic, MAX_FINDINGS, Position, Severity, left_out, quoted};

use tree::Spots;
use yaml::YamlReader;

/// The longest text that [`parse`] reads, in bytes: far above any policy (etcd refuses objects
/// above 1.5 MiB), low enough that a tree of it fits in the agent's memory.
pub const MAX_TEXT: usize = 4 << 20;

/// One YAML document (a Kubernetes object) with the positions of its fields.
#[derive(Debug, Clone)]
pub struct Document {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.namespace`, empty where absent.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The whole object.
    pub value: Value,
    /// Where its fields stood; `None` for an object that came from no file.
    spots: Option<Spots>,
}

impl Document {
    /// An object that came from no file, for example from a watch. Its fields have no positions.
    pub fn from_value(value: Value) -> Result<Self, Diagnostic> {
        Self::new(value, None)
    }

    /// Where the value at `path` (`spec.egress[0].toPorts`) stands; its key, where the value runs
    /// over many lines. Of a field that is not there its nearest known parent.
    pub fn position(&self, path: &str) -> Option<Position> {
        self.spots.as_ref().map(|spots| spots.find(path))
    }

    /// Where the key of the field at `path` stands; as [`position`](Self::position) for an item of
    /// a list.
    pub fn key_position(&self, path: &str) -> Option<Position> {
        self.spots.as_ref().map(|spots| spots.find_key(path))
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

    fn new(value: Value, spots: Option<Spots>) -> Result<Self, Diagnostic> {
        let refusal = |code, path: &str, reason: String| Diagnostic {
            severity: Severity::Error,
            code,
            path: path.to_owned(),
            position: spots.as_ref().map(|spots| spots.find(path)),
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
            spots,
        })
    }
}

/// Splits a file into documents.
///
/// Empty documents are skipped; a `kind: List` (or `…List`) is taken apart into its items. A
/// document that is not an object, or lacks `apiVersion`, `kind` or `metadata.name`, becomes a
/// diagnostic; so does text that is not YAML. The good documents of a file are returned beside the
/// bad ones' diagnostics.
///
/// Text is hostile: its length, its depth, and what its aliases expand to are limited.
pub fn parse(text: &str) -> (Vec<Document>, Vec<Diagnostic>) {
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
        return (documents, diagnostics);
    }
    let mut unshown = 0;
    let mut reader = YamlReader::new();
    for chunk in chunks(text) {
        for outcome in reader.read(&chunk) {
            match outcome {
                Ok((Value::Null, _)) => {}
                Ok((value, spots)) => expand(value, spots, &mut documents, &mut diagnostics),
                Err(diagnostic) => diagnostics.push(diagnostic),
            }
        }
        unshown += diagnostics.len().saturating_sub(MAX_FINDINGS);
        diagnostics.truncate(MAX_FINDINGS);
        if reader.is_exhausted() {
            break;
        }
    }
    diagnostics.extend(left_out(unshown));
    (documents, diagnostics)
}

/// Puts an object, or each item of a list of objects, with the documents.
fn expand(mut value: Value, mut spots: Spots, documents: &mut Vec<Document>, diagnostics: &mut Vec<Diagnostic>) {
    let item_kind = match value.get("kind").and_then(Value::as_str) {
        Some(kind) if value.get("items").is_some() => kind.strip_suffix("List").map(str::to_owned),
        _ => None,
    };
    let Some(item_kind) = item_kind else {
        match Document::new(value, Some(spots)) {
            Ok(document) => documents.push(document),
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
        return;
    };
    let api_version = value.get("apiVersion").cloned().unwrap_or(Value::Null);
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => {
            for (mut item, spots) in items.into_iter().zip(spots.take_items("items")) {
                // The items of a typed list (`PodList`) need not say what they are.
                if let Some(object) = item.as_object_mut()
                    && !item_kind.is_empty()
                {
                    object.entry("kind").or_insert_with(|| item_kind.clone().into());
                    object.entry("apiVersion").or_insert_with(|| api_version.clone());
                }
                expand(item, spots, documents, diagnostics);
            }
        }
        None | Some(Value::Null) => {}
        Some(other) => diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: "wrong-type",
            path: "items".into(),
            position: Some(spots.find("items")),
            reason: format!("it must be a list, and is {}", kind_of(&other)),
            suggestion: None,
        }),
    }
}

/// A piece of a text.
struct Chunk<'t> {
    /// The number of its first line, from 1.
    line: usize,
    /// How many bytes of the text stand before it.
    offset: usize,
    text: &'t str,
}

/// The text cut before each `---` line.
///
/// A line that begins with `---` and a blank ends a document wherever it stands, inside block
/// scalars too (YAML 1.2 §9.1.2), so cutting there is exact and a syntax error costs one document
/// only. Lines of directives (`%YAML`) belong to what follows.
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

/// What a JSON value is, as a phrase.
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
