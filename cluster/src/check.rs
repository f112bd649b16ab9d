//! Checks files of objects as an agent would read them, without an agent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use policy::document::Document;
use policy::{Diagnostic, Policy, PolicyId, Severity, lint};

use crate::catalogue::{Catalogue, FileContent};
use crate::index::Cluster;
use crate::reading::ParsedDocument;
use crate::{Object, ObjectKey, ReadReport};

/// The files of a check and the reports about them.
pub struct CheckedFiles {
    /// The files, by their paths.
    pub contents: BTreeMap<PathBuf, FileContent>,
    /// The reports about files and objects.
    pub reports: Vec<ReadReport>,
    /// The number of objects of kinds that Namegate does not use.
    pub foreign: usize,
    /// The number of files and documents that are no objects and were passed over.
    pub passed_over: usize,
}

impl CheckedFiles {
    /// As [`new`](Self::new), but `found` are files that were found in directories and not named.
    /// Those of them that are no objects are passed over: the values and templates of charts, and
    /// the files that kustomize reads.
    pub fn of_repository(mut contents: BTreeMap<PathBuf, FileContent>, found: &BTreeSet<PathBuf>) -> Self {
        let all = contents.len();
        contents.retain(|path, _| !(found.contains(path) && is_for_a_tool(path)));
        let mut passed_over = all - contents.len();
        let mut checked = Self::new(contents);
        for report in &mut checked.reports {
            let Some(file) = report.file.as_ref().filter(|file| found.contains(*file)) else {
                continue;
            };
            let is_template = matches!(checked.contents.get(file), Some(Ok(text)) if text.contains("{{"));
            let before = report.diagnostics.len();
            report.diagnostics.retain(|finding| match finding.code {
                "not-an-object" => false,
                "not-yaml" => !is_template,
                _ => true,
            });
            passed_over += before - report.diagnostics.len();
        }
        checked
            .reports
            .retain(|report| !(report.object.is_empty() && report.diagnostics.is_empty()));
        Self { passed_over, ..checked }
    }

    /// Checks `contents` as one cluster: each object by itself, and policies beside each other.
    pub fn new(contents: BTreeMap<PathBuf, FileContent>) -> Self {
        let mut catalogue = Catalogue::default();
        let mut policies = AcceptedPolicies::default();
        let mut visit = |file: &Path, document: Document, said: &ParsedDocument| policies.visit(file, document, said);
        // The first scan always gives an update.
        let update = catalogue
            .scan_visiting(contents.clone(), &mut visit)
            .unwrap_or_default();
        let mut cluster = Cluster::new("");
        update.changes.into_iter().for_each(|change| cluster.apply(change));
        let mut reports = update.reports.to_vec();
        add_findings_across(&policies.accepted, &cluster, &mut reports);
        Self {
            contents,
            reports,
            foreign: catalogue.foreign().len(),
            passed_over: 0,
        }
    }

    /// Whether there is no error; with `strict` also no warning and nothing that is not enforced.
    pub fn passes(&self, strict: bool) -> bool {
        !self.reports.iter().any(|report| match report.worst() {
            Some(Severity::Error) => true,
            Some(Severity::Warning | Severity::Unenforced) => strict,
            None => false,
        })
    }
}

/// Whether a file is read by kustomize or Helm, and holds no object.
fn is_for_a_tool(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(
        name,
        Some("kustomization.yaml" | "kustomization.yml" | "Chart.yaml" | "Chart.yml")
    )
}

/// Adds the findings that depend on several objects, each to the report of its policy.
fn add_findings_across(policies: &[AcceptedPolicy], cluster: &Cluster, reports: &mut [ReadReport]) {
    let pairs: Vec<_> = policies.iter().map(|it| (&it.document, &it.policy)).collect();
    let found = lint::across(&pairs, &cluster.lint_context());
    let mut findings: HashMap<&Path, HashMap<&str, Vec<Diagnostic>>> = HashMap::new();
    for (policy, found) in policies.iter().zip(found) {
        let of_file = findings.entry(&policy.file).or_default();
        of_file.insert(&policy.label, found);
    }
    for report in reports {
        let of_file = report.file.as_deref().and_then(|file| findings.get_mut(file));
        // A second definition of an object has a report of the same name, behind the first. Only
        // the first gets the findings.
        if let Some(found) = of_file.and_then(|of_file| of_file.remove(report.object.as_str())) {
            report.diagnostics.extend(found);
            report.sort();
        }
    }
}

/// A policy that is accepted.
struct AcceptedPolicy {
    /// The file of the report about it.
    file: PathBuf,
    /// The object of that report.
    label: String,
    document: Document,
    policy: Policy,
}

/// The accepted policies of a check. As in the catalogue, only the first definition of a policy
/// counts, accepted or not.
#[derive(Default)]
struct AcceptedPolicies {
    known: HashSet<PolicyId>,
    accepted: Vec<AcceptedPolicy>,
}

impl AcceptedPolicies {
    fn visit(&mut self, file: &Path, document: Document, said: &ParsedDocument) {
        let Some(ObjectKey::Policy(id)) = &said.key else { return };
        if !self.known.insert(id.clone()) {
            return;
        }
        if let Some(Object::Policy(policy)) = &said.object {
            self.accepted.push(AcceptedPolicy {
                file: file.to_owned(),
                label: said.label.clone(),
                document,
                policy: (**policy).clone(),
            });
        }
    }
}
