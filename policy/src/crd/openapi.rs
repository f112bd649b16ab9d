//! Shapes → structural schemas (OpenAPI v3, as the API server wants them).

use serde_json::{Map, Value, json};

use crate::shape::Shape;

use super::constraints::Constraint;

/// The schema of a kind: its shape without the metadata, which the API server knows by itself, and with the constraints.
///
/// # Panics
/// Never: every shape of a kind is an object, which a test makes sure of for all of them.
pub(super) fn root(shape: &Shape, constraints: &[Constraint]) -> Value {
    let mut schema = schema(shape, "", constraints);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.insert("metadata".into(), json!({"type": "object"}));
    }
    schema
}

/// `path` names the place as [`Constraint::at`] does: fields joined with dots, `[]` for the items of a list.
fn schema(shape: &Shape, path: &str, constraints: &[Constraint]) -> Value {
    let mut schema = match shape {
        Shape::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Shape::Text => json!({"type": "string"}),
        Shape::Integer => json!({"type": "integer"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::IntegerOrText => json!({"x-kubernetes-int-or-string": true}),
        Shape::List(items) => {
            let items = self::schema(items, &format!("{path}[]"), constraints);
            json!({"type": "array", "items": items})
        }
        Shape::Map(values) => {
            let values = self::schema(values, &format!("{path}{{}}"), constraints);
            json!({"type": "object", "additionalProperties": values})
        }
        Shape::Object(fields) => {
            let field = |(name, shape): &(&str, Shape)| {
                let schema = self::schema(shape, &format!("{path}.{name}"), constraints);
                ((*name).to_owned(), schema)
            };
            json!({"type": "object", "properties": fields.iter().map(field).collect::<Map<_, _>>()})
        }
    };
    for constraint in constraints.iter().filter(|constraint| constraint.holds_at(path)) {
        for (keyword, value) in constraint.keywords() {
            schema[keyword] = value;
        }
    }
    schema
}
