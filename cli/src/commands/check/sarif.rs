//! Findings as a log of SARIF 2.1.0 (OASIS), which code scanning reads.

use std::path::Path;

use cluster::check::CheckedFiles;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use policy::Severity;
use serde_json::{Value, json};

use super::findings::{CheckFinding, findings};

/// What a URI may not hold as it is, in the parts of a path (RFC 3986, section 3.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The log of one run of this `version`.
pub(super) fn log(checked: &CheckedFiles, version: &str) -> Value {
    let findings = findings(checked);
    let mut codes: Vec<&str> = findings.iter().map(|finding| finding.diagnostic.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| json!({"id": code})).collect();
    let results: Vec<Value> = findings.iter().map(|finding| result(finding, &codes)).collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "namegate", "version": version, "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(finding: &CheckFinding<'_>, codes: &[&str]) -> Value {
    let (report, diagnostic) = (finding.report, finding.diagnostic);
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Unenforced | Severity::Warning => "warning",
    };
    let mut result = json!({
        "ruleId": diagnostic.code,
        "ruleIndex": codes.iter().position(|code| *code == diagnostic.code),
        "level": level,
        "message": {"text": finding.sentence()},
    });
    if let Some(file) = &report.file {
        let mut place = json!({"artifactLocation": {"uri": uri(file)}});
        if let Some(at) = diagnostic.position {
            place["region"] = json!({"startLine": at.line, "startColumn": at.column});
            if !at.is_empty() {
                place["region"]["byteOffset"] = at.offset.into();
                place["region"]["byteLength"] = at.length.into();
            }
        }
        let object = Some(&report.object).filter(|object| !object.is_empty());
        let object = object.map(|object| json!([{"fullyQualifiedName": object}]));
        result["locations"] = json!([{"physicalLocation": place}]);
        if let Some(object) = object {
            result["locations"][0]["logicalLocations"] = object;
        }
    }
    result
}

/// A path as a URI: relative to the repository as long as the path is.
fn uri(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path);
    let encoded = utf8_percent_encode(&path.display().to_string(), ENCODED).to_string();
    match path.is_absolute() {
        true => format!("file://{encoded}"),
        false => encoded,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_finding_is_a_result_with_its_place() {
        let text = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  endpointSelector: {}\n  egress:\n  - toFQDN: []\n";
        let checked = CheckedFiles::new(BTreeMap::from([("./a b/c.yaml".into(), Ok(text.to_owned()))]));
        let text = serde_json::to_string_pretty(&log(&checked, "0.0.0")).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_result_without_a_region() {
        let checked = CheckedFiles::new(BTreeMap::from([("/a.yaml".into(), Err("it is gone".to_owned()))]));
        let log = log(&checked, "0.0.0");
        let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(*place, json!({"artifactLocation": {"uri": "file:///a.yaml"}}));
    }
}
