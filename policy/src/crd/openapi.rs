//! Shapes → structural schemas (OpenAPI v3, as the API server wants them).

use serde_json::{Map, Value, json};

use crate::shape::FieldShape;

use super::constraints::Constraint;

/// A place whose entries may have other fields than are known: newer versions of an API have
/// others, and the agent must see that something stands there.
pub(super) struct Extensible {
    /// As in [`Constraint`].
    pub(super) at: &'static str,
    pub(super) known: &'static [(&'static str, FieldShape)],
}

/// The schema of a kind: its shape without the metadata, which the API server knows by itself, and
/// with the constraints.
pub(super) fn root(shape: &FieldShape, extensible: &[Extensible], constraints: &[Constraint]) -> Value {
    let writer = SchemaWriter {
        extensible,
        constraints,
    };
    let mut schema = writer.schema(shape, "", SchemaPart::Effective);
    if let Some(properties) = schema["properties"].as_object_mut() {
        // What every object has is never null.
        for field in ["apiVersion", "kind"] {
            properties.insert(field.into(), json!({"type": "string"}));
        }
        properties.insert("metadata".into(), json!({"type": "object"}));
    }
    schema
}

/// Whether `at` means `path`: the end of it by whole fields, or all of it where `at` is empty or
/// begins with a dot.
pub(super) fn is_at(at: &str, path: &str) -> bool {
    let is_whole = at.is_empty() || at.starts_with('.');
    match is_whole {
        true => at == path,
        false => path.strip_suffix(at).is_some_and(|before| before.ends_with('.')),
    }
}

struct SchemaWriter<'a> {
    extensible: &'a [Extensible],
    constraints: &'a [Constraint],
}

/// Whether what a part of an object says has an effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SchemaPart {
    /// What is not known there, or stands without a value, must reach the agent: a policy without
    /// it could say more than its author wrote. By itself the API server would drop it, and tell
    /// strict clients alone.
    Effective,
    /// As [`FieldShape::Inert`]: nothing is lost with what is dropped.
    Inert,
}

impl SchemaWriter<'_> {
    /// `path` names the place: fields joined with dots, `[]` for the items of a list.
    fn schema(&self, shape: &FieldShape, path: &str, part: SchemaPart) -> Value {
        let extensible = self.extensible.iter().find(|extensible| is_at(extensible.at, path));
        let mut schema = match (extensible, shape) {
            (Some(extensible), _) => json!({
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": self.fields(extensible.known, path, part),
            }),
            (None, FieldShape::Inert(shape)) => return self.schema(shape, path, SchemaPart::Inert),
            (None, FieldShape::Any) => json!({"x-kubernetes-preserve-unknown-fields": true}),
            (None, FieldShape::Text) => json!({"type": "string"}),
            (None, FieldShape::Integer) => json!({"type": "integer"}),
            (None, FieldShape::Boolean) => json!({"type": "boolean"}),
            (None, FieldShape::IntegerOrText) => json!({"x-kubernetes-int-or-string": true}),
            (None, FieldShape::List(items)) => {
                json!({"type": "array", "items": self.schema(items, &format!("{path}[]"), part)})
            }
            (None, FieldShape::Map(values)) => {
                let mut values = self.schema(values, &format!("{path}{{}}"), part);
                if part == SchemaPart::Effective {
                    values["nullable"] = true.into();
                }
                json!({"type": "object", "additionalProperties": values})
            }
            (None, FieldShape::Object(fields)) => {
                let mut schema = json!({"type": "object", "properties": self.fields(fields, path, part)});
                if part == SchemaPart::Effective {
                    schema["x-kubernetes-preserve-unknown-fields"] = true.into();
                }
                schema
            }
        };
        for constraint in self.constraints.iter().filter(|constraint| is_at(constraint.at, path)) {
            for (keyword, value) in constraint.keywords() {
                schema[keyword] = value;
            }
        }
        schema
    }

    fn fields(&self, fields: &[(&str, FieldShape)], path: &str, part: SchemaPart) -> Map<String, Value> {
        let field = |(name, shape): &(&str, FieldShape)| {
            let mut schema = self.schema(shape, &format!("{path}.{name}"), part);
            if part == SchemaPart::Effective && !matches!(shape, FieldShape::Any | FieldShape::Inert(_)) {
                schema["nullable"] = true.into();
            }
            ((*name).to_owned(), schema)
        };
        fields.iter().map(field).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_at_its_end_by_whole_fields() {
        assert!(is_at("egress[]", ".spec.egress[]"));
        assert!(is_at("egress[]", ".specs[].egress[]"));
        assert!(!is_at("egress[]", ".spec.notegress[]"));
        assert!(is_at(".spec", ".spec"));
        assert!(!is_at(".spec", ".other.spec"));
        assert!(is_at("", ""));
        assert!(!is_at("", ".spec"));
    }
}
