//! Labels and the selectors over them (`matchLabels`, `matchExpressions`).

use std::collections::BTreeMap;

use thiserror::Error;

/// The labels of an endpoint, special keys included (`io.kubernetes.pod.namespace`, …).
pub type Labels = BTreeMap<String, String>;

/// A validated label selector: all requirements must hold. With none it selects everything.
///
/// Keys have lost their `k8s:` or `any:` prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Requirements, all of which must hold.
    pub requirements: Vec<Requirement>,
}

/// One requirement on one label key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key, without source prefix.
    pub key: String,
    /// What must be true of its value.
    pub operator: Operator,
}

/// The operators of `metav1.LabelSelectorRequirement`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A label source other than `k8s` and `any`.
    #[error("the label source {0:?} is not known here; use `k8s:`, `any:` or none")]
    Source(String),
}

impl LabelSelector {
    /// Whether every requirement holds for these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let _ = labels;
        todo!()
    }
}
