//! Walking a JSON value with its path, and holding it against a shape.

use serde_json::Value;

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::document::kind_of;
use crate::wrong_direction;

/// What a field may hold.
pub(crate) enum FieldShape {
    /// Any JSON value.
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
    List(&'static FieldShape),
    /// A mapping with free keys.
    Map(&'static FieldShape),
    /// A mapping with these fields and no others.
    Object(&'static [(&'static str, FieldShape)]),
    /// As this, of a field that may stand without a value: what that means to the API is what its
    /// author sees, or nothing here.
    Inert(&'static FieldShape),
}

/// A value and the path it stands at.
#[derive(Debug, Clone)]
pub(crate) struct DocumentNode<'a> {
    pub(crate) value: &'a Value,
    pub(crate) path: String,
}

impl<'a> DocumentNode<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    /// The field `name`; `None` where it is absent or null. [`check`] has reported a null that
    /// matters.
    pub(crate) fn get(&self, name: &str) -> Option<DocumentNode<'a>> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(DocumentNode {
            value,
            path: self.path_of(name),
        })
    }

    /// The items under the field `name`; none where it is absent or no list.
    pub(crate) fn list(&self, name: &str) -> Vec<DocumentNode<'a>> {
        self.get(name).map(|node| node.items().collect()).unwrap_or_default()
    }

    /// The items, if it is a list.
    pub(crate) fn items(&self) -> impl Iterator<Item = DocumentNode<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(index, value)| DocumentNode {
            value,
            path: format!("{path}[{index}]"),
        })
    }

    /// The fields, if it is a mapping, null ones left out.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'a str, DocumentNode<'a>)> + '_ {
        let fields = self
            .value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null());
        fields.map(|(name, value)| {
            (
                name.as_str(),
                DocumentNode {
                    value,
                    path: self.path_of(name),
                },
            )
        })
    }

    /// Whether the field `name` is written, and nothing stands behind it.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.value.get(name).is_some_and(Value::is_null)
    }

    /// The fields that have no value, if it is a mapping.
    pub(crate) fn nulls(&self) -> impl Iterator<Item = (&'a str, DocumentNode<'a>)> + '_ {
        let fields = self.value.as_object().into_iter().flatten();
        let nulls = fields.filter(|(_, value)| value.is_null());
        nulls.map(|(name, value)| {
            (
                name.as_str(),
                DocumentNode {
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

/// Reports every field that `shape` does not know, that stands without a value, or whose value it
/// does not allow.
pub(crate) fn check(node: &DocumentNode<'_>, shape: &FieldShape, report: &mut DiagnosticReport<'_>) {
    let expected = match (shape, node.value) {
        (FieldShape::Any, _)
        | (FieldShape::Text | FieldShape::IntegerOrText, Value::String(_))
        | (FieldShape::Boolean, Value::Bool(_)) => {
            return;
        }
        (FieldShape::Integer | FieldShape::IntegerOrText, Value::Number(number))
            if number.is_i64() || number.is_u64() =>
        {
            return;
        }
        (FieldShape::List(shape), Value::Array(_)) => return node.items().for_each(|item| check(&item, shape, report)),
        (FieldShape::Inert(shape), _) => return check(node, shape, report),
        (FieldShape::Map(shape), Value::Object(_)) => {
            if !matches!(shape, FieldShape::Any) {
                node.nulls().for_each(|(name, item)| no_value(name, &item, report));
            }
            return node.fields().for_each(|(_, item)| check(&item, shape, report));
        }
        (FieldShape::Object(known), Value::Object(_)) => {
            for (name, field) in node.nulls() {
                match known.iter().find(|(known, _)| *known == name) {
                    Some((_, FieldShape::Any | FieldShape::Inert(_))) => {}
                    Some(_) => no_value(name, &field, report),
                    None => unknown_field(name, &field, known, report),
                }
            }
            for (name, field) in node.fields() {
                match known.iter().find(|(known, _)| *known == name) {
                    Some((_, shape)) => check(&field, shape, report),
                    None => unknown_field(name, &field, known, report),
                }
            }
            return;
        }
        (FieldShape::Text, _) => "a string",
        (FieldShape::Boolean, _) => "true or false",
        (FieldShape::Integer, _) => "an integer",
        (FieldShape::IntegerOrText, _) => "an integer or a string",
        (FieldShape::List(_), _) => "a list",
        (FieldShape::Map(_) | FieldShape::Object(_), _) => "a mapping",
    };
    let reason = format!("it must be {expected}, and is {}", kind_of(node.value));
    let finding = report.error("wrong-type", &node.path, reason);
    match (shape, node.value) {
        (FieldShape::Text, Value::Number(number)) => finding.suggest(format!("write it in quotes: \"{number}\"")),
        (FieldShape::Text, Value::Bool(value)) => finding.suggest(format!("write it in quotes: \"{value}\"")),
        (FieldShape::List(_), Value::String(_) | Value::Object(_)) => finding.suggest("write `- ` before it"),
        _ => {}
    }
}

/// Reports a field that stands without a value, such as a list whose entries are all commented out.
/// Its author sees nothing in it; the APIs read it as left out, which often means everything.
pub(crate) fn no_value(name: &str, field: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    let mut reason =
        "nothing stands behind it, which Kubernetes and Cilium read as if the field were left out".to_owned();
    if let Some(effect) = when_left_out(name) {
        reason = format!("{reason}: {effect}");
    }
    let suggestion = match name {
        "toFQDNs" | "toCIDR" | "toCIDRSet" | "toEntities" | "toEndpoints" | "toServices" | "toNodes" | "fromCIDR"
        | "fromCIDRSet" | "fromEntities" | "fromEndpoints" | "fromNodes" => {
            format!("write what is meant, `{name}: []` for nothing, or take the line out")
        }
        "egress" | "egressDeny" | "ingress" | "ingressDeny" => {
            format!("write what is meant, `{name}: [{{}}]` for nothing, or take the line out")
        }
        _ => "write what is meant, or take the line out".to_owned(),
    };
    report.wrong_key("no-value", &field.path, reason).suggest(suggestion);
}

/// What the APIs (Cilium's, and those of Kubernetes) do where a field is left out, where that is
/// more than is written.
fn when_left_out(name: &str) -> Option<&'static str> {
    Some(match name {
        "toFQDNs" | "toCIDR" | "toCIDRSet" | "toEntities" | "toEndpoints" | "toServices" | "toNodes" | "toGroups"
        | "to" => "the rule then speaks of its ports at every destination",
        "fromCIDR" | "fromCIDRSet" | "fromEntities" | "fromEndpoints" | "fromNodes" | "fromGroups" | "from" => {
            "the rule then speaks of its ports from every source"
        }
        "toPorts" | "icmps" | "protocols" => "the rule then speaks of every port and protocol",
        "ports" | "port" => "every port is meant then",
        "protocol" => "another protocol is meant then",
        "rules" | "dns" | "http" | "kafka" | "l7" | "l7proto" | "serverNames" | "listener" | "terminatingTLS"
        | "originatingTLS" => "the ports are then opened, and nobody looks at what is sent to them",
        "toRequires" | "fromRequires" | "authentication" => "the rule then has no such condition",
        "except" => "nothing is then left out of the prefix",
        "matchLabels" | "matchExpressions" | "endpointSelector" | "podSelector" | "namespaceSelector" => {
            "more is then selected, or everything"
        }
        "namespace" => "every namespace is meant then",
        "egress" => "egress is then not closed",
        "ingress" => "ingress is then not closed",
        "egressDeny" | "ingressDeny" => "nothing is then denied",
        "policyTypes" => "what is governed then follows from the rules",
        _ => return None,
    })
}

fn unknown_field(
    name: &str,
    field: &DocumentNode<'_>,
    known: &[(&'static str, FieldShape)],
    report: &mut DiagnosticReport<'_>,
) {
    let finding = report.wrong_key(
        "unknown-field",
        &field.path,
        format!("there is no field {} here", quoted(name)),
    );
    if let Some(meant) = wrong_direction::meant(name, &field.path) {
        finding.suggest(meant);
        return;
    }
    let names = known.iter().map(|(name, _)| *name);
    match closest(name, names.clone()) {
        Some(meant) => finding.suggest(format!("did you mean `{meant}`?")),
        None if names.len() <= 8 => {
            finding.suggest(format!("the fields are {}", names.collect::<Vec<_>>().join(", ")));
        }
        None => {}
    }
}
