//! Walking a JSON value with its path, and holding it against a shape.

use serde_json::Value;

use crate::diagnostic::{Report, closest, quoted};
use crate::document::kind_of;

/// What a field may hold.
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// A string.
    Text,
    /// An integer.
    Integer,
    /// A boolean.
    Boolean,
    /// An integer or a string.
    IntegerOrText,
    /// A list.
    List(&'static Shape),
    /// A mapping with free keys.
    Map(&'static Shape),
    /// A mapping with these fields and no others.
    Object(&'static [(&'static str, Shape)]),
}

/// A value and the path it stands at.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    /// The field `name`; `None` where it is absent or null, which mean the same in Kubernetes.
    pub(crate) fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Node {
            value,
            path: self.path_of(name),
        })
    }

    /// The items under the field `name`; none where it is absent or no list.
    pub(crate) fn list(&self, name: &str) -> Vec<Node<'a>> {
        self.get(name).map(|node| node.items().collect()).unwrap_or_default()
    }

    /// The items, if it is a list.
    pub(crate) fn items(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(index, value)| Node {
            value,
            path: format!("{path}[{index}]"),
        })
    }

    /// The fields, if it is a mapping, null ones left out.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> + '_ {
        let fields = self
            .value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null());
        fields.map(|(name, value)| {
            (
                name.as_str(),
                Node {
                    value,
                    path: self.path_of(name),
                },
            )
        })
    }

    /// The text under the field `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.value.get(name).and_then(Value::as_str)
    }

    /// Whether it is a list without items.
    pub(crate) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(Vec::is_empty)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }
}

/// Reports every field that `shape` does not know and every value that it does not allow.
pub(crate) fn check(node: &Node<'_>, shape: &Shape, report: &mut Report<'_>) {
    let expected = match (shape, node.value) {
        (Shape::Any, _) | (Shape::Text | Shape::IntegerOrText, Value::String(_)) | (Shape::Boolean, Value::Bool(_)) => {
            return;
        }
        (Shape::Integer | Shape::IntegerOrText, Value::Number(number)) if number.is_i64() || number.is_u64() => return,
        (Shape::List(shape), Value::Array(_)) => return node.items().for_each(|item| check(&item, shape, report)),
        (Shape::Map(shape), Value::Object(_)) => {
            return node.fields().for_each(|(_, item)| check(&item, shape, report));
        }
        (Shape::Object(known), Value::Object(_)) => {
            for (name, field) in node.fields() {
                match known.iter().find(|(known, _)| *known == name) {
                    Some((_, shape)) => check(&field, shape, report),
                    None => unknown_field(name, &field, known, report),
                }
            }
            return;
        }
        (Shape::Text, _) => "a string",
        (Shape::Boolean, _) => "true or false",
        (Shape::Integer, _) => "an integer",
        (Shape::IntegerOrText, _) => "an integer or a string",
        (Shape::List(_), _) => "a list",
        (Shape::Map(_) | Shape::Object(_), _) => "a mapping",
    };
    let reason = format!("it must be {expected}, and is {}", kind_of(node.value));
    let finding = report.error("wrong-type", &node.path, reason);
    match (shape, node.value) {
        (Shape::Text, Value::Number(number)) => finding.suggest(format!("write it in quotes: \"{number}\"")),
        (Shape::Text, Value::Bool(value)) => finding.suggest(format!("write it in quotes: \"{value}\"")),
        (Shape::List(_), Value::String(_) | Value::Object(_)) => finding.suggest("write `- ` before it"),
        _ => {}
    }
}

fn unknown_field(name: &str, field: &Node<'_>, known: &[(&'static str, Shape)], report: &mut Report<'_>) {
    let finding = report.wrong_key(
        "unknown-field",
        &field.path,
        format!("there is no field {} here", quoted(name)),
    );
    let names = known.iter().map(|(name, _)| *name);
    match closest(name, names.clone()) {
        Some(meant) => finding.suggest(format!("did you mean `{meant}`?")),
        None if names.len() <= 8 => {
            finding.suggest(format!("the fields are {}", names.collect::<Vec<_>>().join(", ")));
        }
        None => {}
    }
}
