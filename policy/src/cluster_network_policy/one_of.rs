//! Entries that must have exactly one field, such as peers and protocols.

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Action;
use crate::shape::{DocumentNode, FieldShape};
use crate::wrong_direction;

/// An entry that has none of the fields that are known, or one beside them that is not.
pub(super) struct Unknown {
    path: String,
    reason: String,
    suggestion: Option<String>,
}

/// What an entry that must have exactly one field has.
pub(super) enum OneOf<'a> {
    Known(&'static str, DocumentNode<'a>),
    Unknown(Unknown),
    /// An error says why.
    Refused,
}

impl<'a> OneOf<'a> {
    /// Reads an entry, and holds what stands in it against its shape.
    pub(super) fn read(
        entry: &DocumentNode<'a>,
        known: &'static [(&'static str, FieldShape)],
        report: &mut DiagnosticReport<'_>,
    ) -> Self {
        if !entry.value.is_object() {
            return OneOf::Refused;
        }
        let names = || known.iter().map(|(name, _)| *name);
        let mut nulls = entry.nulls().filter(|(name, _)| names().any(|known| known == *name));
        if let Some((name, node)) = nulls.next() {
            crate::shape::no_value(name, &node, report);
            return OneOf::Refused;
        }
        let stranger = entry.fields().find(|(name, _)| !names().any(|known| known == *name));
        if let Some((name, node)) = stranger {
            return OneOf::Unknown(Unknown {
                suggestion: wrong_direction::meant(name, &node.path)
                    .or_else(|| closest(name, names()).map(|meant| format!("did you mean `{meant}`?"))),
                path: node.path,
                reason: format!("{} is not known here", quoted(name)),
            });
        }
        let mut present = known
            .iter()
            .filter_map(|(name, shape)| entry.get(name).map(|node| (*name, shape, node)));
        let Some((name, shape, node)) = present.next() else {
            return OneOf::Unknown(Unknown {
                path: entry.path.clone(),
                reason: "nothing that is known stands in it".to_owned(),
                suggestion: None,
            });
        };
        if let Some((other, ..)) = present.next() {
            report
                .error(
                    "two-selectors",
                    &entry.path,
                    format!("`{name}` and `{other}` stand in one entry"),
                )
                .suggest("write one entry for each");
            return OneOf::Refused;
        }
        crate::shape::check(&node, shape, report);
        OneOf::Known(name, node)
    }
}

impl Unknown {
    /// Reports it, with what that does to a rule of this action.
    pub(super) fn say(&self, action: Action, report: &mut DiagnosticReport<'_>) {
        let effect = match action {
            Action::Allow => "the rule matches nothing",
            Action::Deny | Action::Pass => "the rule denies everything",
        };
        let finding = report.unenforced(&self.path, format!("{}, so {effect}", self.reason));
        if let Some(suggestion) = &self.suggestion {
            finding.suggest(suggestion.clone());
        }
    }
}
