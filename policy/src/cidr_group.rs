//! CiliumCIDRGroup: prefixes outside the cluster, under a name that policies refer to.

use ipnet::IpNet;

use crate::diagnostic::Diagnostic;
use crate::diagnostic_report::DiagnosticReport;
use crate::document::Document;
use crate::labels::Labels;
use crate::prefix;
use crate::shape::FieldShape::{Any, Inert, List, Object, Text};
use crate::shape::{self, DocumentNode, FieldShape};

/// A CiliumCIDRGroup: prefixes that rules select by its name or labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CidrGroup {
    /// Its name; it has no namespace.
    pub name: String,
    /// The labels that `cidrGroupSelector` selects it by.
    pub labels: Labels,
    /// Its prefixes, as `spec.externalCIDRs` lists them.
    pub prefixes: Vec<IpNet>,
}

pub(crate) static CIDR_GROUP: FieldShape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Any),
    ("spec", Object(&[("externalCIDRs", Inert(&List(&Text)))])),
    ("status", Any),
]);

/// Whether a document is a CiliumCIDRGroup.
pub fn is_cidr_group(document: &Document) -> bool {
    matches!(document.api_version.as_str(), "cilium.io/v2" | "cilium.io/v2alpha1") && document.kind == "CiliumCIDRGroup"
}

/// Reads a group, reporting every problem at once; `None` when some is an error.
pub fn read(document: &Document) -> (Option<CidrGroup>, Vec<Diagnostic>) {
    let mut report = DiagnosticReport::new(document);
    let root = DocumentNode::root(&document.value);
    shape::check(&root, &CIDR_GROUP, &mut report);
    let entries = root
        .get("spec")
        .map(|spec| spec.list("externalCIDRs"))
        .unwrap_or_default();
    let prefixes = entries
        .iter()
        .filter_map(|entry| prefix::read_or_address(entry, &mut report))
        .collect();
    let labels = root.get("metadata").and_then(|metadata| metadata.get("labels"));
    let labels = labels.iter().flat_map(DocumentNode::fields);
    let group = CidrGroup {
        name: document.name.clone(),
        labels: labels
            .filter_map(|(key, value)| Some((key.to_owned(), value.value.as_str()?.to_owned())))
            .collect(),
        prefixes,
    };
    ((!report.is_refused()).then_some(group), report.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;

    fn read_text(spec: &str) -> (Option<CidrGroup>, Vec<String>) {
        let text = format!(
            "apiVersion: cilium.io/v2alpha1\nkind: CiliumCIDRGroup\nmetadata: {{name: g, labels: {{a: b}}}}\nspec: {spec}\n"
        );
        let (documents, errors) = parse(&text);
        assert_eq!(errors, []);
        assert!(is_cidr_group(&documents[0]));
        let (group, diagnostics) = read(&documents[0]);
        let found = diagnostics.iter().map(|it| format!("{} {}", it.code, it.path));
        (group, found.collect())
    }

    #[test]
    fn a_group_is_its_prefixes_and_labels() {
        let (group, found) = read_text("{externalCIDRs: [192.0.2.0/24, '2001:db8::/32', 198.51.100.7]}");
        assert_eq!(found, [""; 0]);
        let group = group.unwrap();
        assert_eq!((group.name.as_str(), group.labels["a"].as_str()), ("g", "b"));
        assert_eq!(group.prefixes.len(), 3);
    }

    #[test]
    fn a_group_with_something_else_is_refused() {
        for (spec, finding) in [
            ("{externalCIDRs: [nowhere]}", "bad-cidr spec.externalCIDRs[0]"),
            ("{externalCIDR: []}", "unknown-field spec.externalCIDR"),
            ("{externalCIDRs: 192.0.2.0/24}", "wrong-type spec.externalCIDRs"),
        ] {
            assert_eq!(read_text(spec), (None, vec![finding.to_owned()]), "{spec}");
        }
    }
}
