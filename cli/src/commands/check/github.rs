//! Renders findings as annotations of a GitHub Actions workflow: the page of a pull request shows
//! each beside its line.
//!
//! Source: "Workflow commands for GitHub Actions", setting a notice, warning or error message.

use cluster::check::CheckedFiles;
use policy::Severity;

use super::findings::{CheckFinding, findings, summary};

pub(super) fn render(checked: &CheckedFiles) -> String {
    let mut text: String = findings(checked).iter().map(annotation).collect();
    text += &summary(checked);
    text
}

fn annotation(finding: &CheckFinding<'_>) -> String {
    let CheckFinding { report, diagnostic, .. } = finding;
    let command = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Unenforced | Severity::Warning => "warning",
    };
    let mut properties = Vec::new();
    if let Some(file) = &report.file {
        properties.push(format!("file={}", property(&file.display().to_string())));
    }
    if let Some(at) = diagnostic.position {
        properties.push(format!("line={},col={}", at.line, at.column));
    }
    properties.push(format!("title={}", property(diagnostic.code)));
    format!(
        "::{command} {}::{}\n",
        properties.join(","),
        message(&finding.sentence())
    )
}

/// Escapes what would end a message.
fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes what would end a property.
fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_finding_is_an_annotation_of_its_line() {
        let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  endpointSelector: {}\n  egress:\n  - toFQDN: []\n";
        let checked = CheckedFiles::new(BTreeMap::from([("a,b.yaml".into(), Ok(text.to_owned()))]));
        insta::assert_snapshot!(render(&checked));
    }

    #[test]
    fn what_is_found_cannot_write_a_command_of_its_own() {
        assert_eq!(message("100%\n::error::x"), "100%25%0A::error::x");
        assert_eq!(property("a,b:c"), "a%2Cb%3Ac");
    }
}
