//! Labels and the selectors over them (`matchLabels`, `matchExpressions`).

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::special_keys as keys;

/// The labels of an endpoint, special keys included (`io.kubernetes.pod.namespace`, …).
pub type Labels = BTreeMap<String, String>;

/// A validated label selector: all requirements must hold. With none it selects everything.
///
/// Keys have lost their `k8s:` or `any:` prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSelector {
    /// Requirements, all of which must hold.
    pub requirements: Vec<Requirement>,
}

/// One requirement on one label key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// The label's key, without source prefix.
    pub key: String,
    /// What must be true of its value.
    pub operator: Operator,
}

/// The source of labels that only endpoints of Cilium's own have (`reserved:health`).
pub(crate) const RESERVED: &str = "reserved";

/// The operators of `metav1.LabelSelectorRequirement`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The value is one of these.
    In(Vec<String>),
    /// The key is absent or its value is none of these.
    NotIn(Vec<String>),
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// Why a written selector is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// `operator` is none of the four.
    #[error("the operator {0:?} is not one of In, NotIn, Exists, DoesNotExist")]
    Operator(String),
    /// `In` and `NotIn` need values.
    #[error("the operator {0} needs at least one value")]
    NoValues(&'static str),
    /// `Exists` and `DoesNotExist` take none.
    #[error("the operator {0} takes no values")]
    Values(&'static str),
    /// A label source other than `k8s`, `any` and `reserved`.
    #[error("the label source {0:?} is not known here; use `k8s:`, `any:` or none")]
    Source(String),
}

impl LabelSelector {
    /// Reads `matchLabels` and `matchExpressions` (key, operator, values) as they are written.
    ///
    /// The same key may stand in several: all must hold.
    pub fn new(
        match_labels: impl IntoIterator<Item = (String, String)>,
        expressions: impl IntoIterator<Item = (String, String, Vec<String>)>,
    ) -> Result<Self, SelectorError> {
        let equalities = match_labels
            .into_iter()
            .map(|(key, value)| Requirement::new(key, Operator::In(vec![value])));
        let expressions = expressions
            .into_iter()
            .map(|(key, operator, values)| Requirement::new(key, Operator::new(&operator, values)?));
        let requirements = equalities.chain(expressions).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// The one namespace whose pods it may match, if it says so.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.requirements
            .iter()
            .find_map(|requirement| match (requirement.key.as_str(), &requirement.operator) {
                (keys::NAMESPACE, Operator::In(values)) => match values.as_slice() {
                    [namespace] => Some(namespace.as_str()),
                    _ => None,
                },
                _ => None,
            })
    }

    /// Whether every requirement holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    /// That the label `key` has this value.
    pub fn equals(key: &str, value: &str) -> Self {
        Self {
            key: key.to_owned(),
            operator: Operator::In(vec![value.to_owned()]),
        }
    }

    /// Whether it speaks of a label that only endpoints of Cilium's own have. No Pod has it.
    pub fn is_of_reserved(&self) -> bool {
        self.key.split_once(':').is_some_and(|(source, _)| source == RESERVED)
    }

    /// Whether it is true of these labels.
    pub fn holds(&self, labels: &Labels) -> bool {
        self.operator.holds(labels.get(&self.key))
    }

    /// A label that makes it true; none where the label must be absent, or may be.
    pub fn example(&self) -> Option<(String, String)> {
        match &self.operator {
            Operator::In(values) => Some((self.key.clone(), values.first()?.clone())),
            Operator::Exists => Some((self.key.clone(), String::new())),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        }
    }

    fn new(key: String, operator: Operator) -> Result<Self, SelectorError> {
        // A label key of Kubernetes holds no colon, so what stands before one is a source.
        let key = match key.split_once(':') {
            None => key,
            Some(("k8s" | "any", key)) => key.to_owned(),
            // Of endpoints of Cilium's own. It keeps its source, so that no label of a Pod is it.
            Some((RESERVED, _)) => key,
            Some((source, _)) => return Err(SelectorError::Source(source.to_owned())),
        };
        Ok(Self { key, operator })
    }
}

impl Operator {
    fn new(name: &str, values: Vec<String>) -> Result<Self, SelectorError> {
        match name {
            "In" if values.is_empty() => Err(SelectorError::NoValues("In")),
            "In" => Ok(Operator::In(values)),
            "NotIn" if values.is_empty() => Err(SelectorError::NoValues("NotIn")),
            "NotIn" => Ok(Operator::NotIn(values)),
            "Exists" if !values.is_empty() => Err(SelectorError::Values("Exists")),
            "Exists" => Ok(Operator::Exists),
            "DoesNotExist" if !values.is_empty() => Err(SelectorError::Values("DoesNotExist")),
            "DoesNotExist" => Ok(Operator::DoesNotExist),
            unknown => Err(SelectorError::Operator(unknown.to_owned())),
        }
    }

    /// Whether it is true of the value that a label key has; `None` when the key is absent.
    fn holds(&self, value: Option<&String>) -> bool {
        match self {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// As `kubectl -l` writes it: `app=web,tier in (a, b)`; `every one` without requirements.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("every one");
        }
        for (position, requirement) in self.requirements.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) => match values.as_slice() {
                [value] => write!(f, "{key}={value}"),
                values => write!(f, "{key} in ({})", values.join(", ")),
            },
            Operator::NotIn(values) => match values.as_slice() {
                [value] => write!(f, "{key}!={value}"),
                values => write!(f, "{key} notin ({})", values.join(", ")),
            },
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn by_labels(pairs: &[(&str, &str)]) -> Result<LabelSelector, SelectorError> {
        LabelSelector::new(labels(pairs), [])
    }

    fn by_expression(key: &str, operator: &str, values: &[&str]) -> Result<LabelSelector, SelectorError> {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        LabelSelector::new([], [(key.to_owned(), operator.to_owned(), values)])
    }

    #[test]
    fn a_selector_without_requirements_selects_everything() {
        let selector = by_labels(&[]).unwrap();
        assert!(selector.matches(&Labels::new()));
        assert!(selector.matches(&labels(&[("app", "web")])));
    }

    #[test]
    fn all_requirements_must_hold() {
        let selector = LabelSelector::new(
            labels(&[("app", "web")]),
            [("tier".to_owned(), "Exists".to_owned(), Vec::new())],
        )
        .unwrap();
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "db"), ("tier", "x")])));
    }

    #[test]
    fn sources_k8s_and_any_are_left_out_of_the_key() {
        let web = labels(&[("app", "web"), ("io.kubernetes.pod.namespace", "shop")]);
        for key in ["app", "k8s:app", "any:app"] {
            assert!(by_labels(&[(key, "web")]).unwrap().matches(&web), "{key}");
        }
        let namespace = by_expression("k8s:io.kubernetes.pod.namespace", "In", &["shop", "pay"]).unwrap();
        assert!(namespace.matches(&web));
        assert_eq!(namespace.requirements[0].key, "io.kubernetes.pod.namespace");
    }

    #[test]
    fn other_sources_are_refused() {
        let refused = |source: &str| Err(SelectorError::Source(source.to_owned()));
        // Only endpoints of Cilium's own have them, so that no label of a Pod is one.
        let reserved = by_labels(&[("reserved:host", "")]).unwrap();
        assert!(reserved.requirements[0].is_of_reserved() && !reserved.matches(&labels(&[("host", "")])));
        assert_eq!(by_expression("container:id", "Exists", &[]), refused("container"));
        assert_eq!(by_labels(&[("K8S:app", "web")]), refused("K8S"));
    }

    #[test]
    fn operators_mean_what_they_mean_in_kubernetes() {
        let absent = Labels::new();
        let web = labels(&[("app", "web")]);
        let db = labels(&[("app", "db")]);
        for (operator, values, expected) in [
            ("In", &["web", "api"][..], [false, true, false]),
            ("NotIn", &["web", "api"], [true, false, true]),
            ("Exists", &[], [false, true, true]),
            ("DoesNotExist", &[], [true, false, false]),
        ] {
            let selector = by_expression("app", operator, values).unwrap();
            assert_eq!(
                [&absent, &web, &db].map(|l| selector.matches(l)),
                expected,
                "{operator}"
            );
        }
    }

    #[test]
    fn operators_are_refused_with_the_wrong_number_of_values() {
        assert_eq!(by_expression("a", "In", &[]), Err(SelectorError::NoValues("In")));
        assert_eq!(by_expression("a", "NotIn", &[]), Err(SelectorError::NoValues("NotIn")));
        assert_eq!(
            by_expression("a", "Exists", &["x"]),
            Err(SelectorError::Values("Exists"))
        );
        assert_eq!(
            by_expression("a", "DoesNotExist", &["x"]),
            Err(SelectorError::Values("DoesNotExist"))
        );
        assert_eq!(
            by_expression("a", "in", &["x"]),
            Err(SelectorError::Operator("in".to_owned()))
        );
    }
}
