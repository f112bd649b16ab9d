//! The source of a sandbox's objects: one namespace, one pod for the command, and its policies,
//! which are read again when their files change.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ReportRow;
use cluster::index::Cluster;
use cluster::slim::{PodTemplate, SlimNamespace, SlimPod};
use cluster::{Object, ObjectChange, ObjectKey, ObjectSource, ReadReport, ReportState, Update};
use policy::document::{self, Document};
use policy::labels::LabelSelector;
use policy::{
    Action, Diagnostic, DirectionSpec, Extensions, PerDirection, Policy, PolicyId, PolicyKind, PolicyRule, PolicySpec,
    Severity, SubjectKind, Tier, validate,
};
use tokio::sync::mpsc;
use tracing::{error, info};

use crate::allowance::Allowance;

/// The name of the node that the pod is on.
pub(crate) const NODE: &str = "exec";

/// The namespace of everything in a sandbox.
const NAMESPACE: &str = "exec";

/// The pod that stands for the command.
const POD: &str = "sandbox";

/// The name of the policy that is made from `--allow`. It is no valid name of an object, so no
/// policy of a file can replace it.
const COMMAND_LINE: &str = "--allow";

/// How often files are looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// A source with one update, which contains everything, and one for each change of the files.
#[derive(Debug)]
pub(crate) struct SandboxSource {
    update: Update,
    files: Vec<PathBuf>,
    /// Their contents when they were read.
    texts: Vec<FileText>,
    /// Their policies that are in force.
    in_force: BTreeSet<PolicyId>,
}

/// What the command line says of names and networks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowances {
    pub(crate) allow: Vec<Allowance>,
    pub(crate) deny: Vec<Allowance>,
    /// Nothing is refused, and what would have been is recorded.
    pub(crate) audit: bool,
}

impl SandboxSource {
    /// The source of a pod with these addresses and labels, which may reach what `allowances` and
    /// `policies` allow.
    pub(crate) fn new(
        addresses: impl Iterator<Item = IpAddr>,
        labels: BTreeMap<String, String>,
        allowances: &Allowances,
        policies: Policies,
    ) -> Self {
        let mut changes = vec![
            ObjectChange::Apply(Object::Namespace(Arc::new(SlimNamespace {
                name: NAMESPACE.into(),
                labels: BTreeMap::new(),
            }))),
            ObjectChange::Apply(Object::Pod(Arc::new(pod(addresses, labels)))),
            ObjectChange::Apply(Object::Policy(Box::new(command_line_policy(allowances)))),
        ];
        let in_force = policies.policies.iter().map(|policy| policy.id.clone()).collect();
        let read = policies.policies.into_iter();
        changes.extend(read.map(|policy| ObjectChange::Apply(Object::Policy(Box::new(policy)))));
        Self {
            update: Update {
                changes,
                reports: policies.reports.into(),
                ..Update::default()
            },
            files: policies.files,
            texts: policies.texts,
            in_force,
        }
    }
}

impl SandboxSource {
    /// The policies that do not select the pod, which is probably a mistake.
    pub(crate) fn idle_policies(&self) -> Vec<PolicyId> {
        let mut cluster = Cluster::new(NODE);
        self.update
            .changes
            .iter()
            .cloned()
            .for_each(|change| cluster.apply(change));
        let endpoints = cluster.endpoints();
        let selects = |policy: &&Arc<Policy>| {
            endpoints
                .iter()
                .any(|pod| policy.specs.iter().any(|spec| spec.selects(pod)))
        };
        let idle = cluster.policies().iter().filter(|policy| !selects(policy));
        idle.map(|policy| policy.id.clone()).collect()
    }
}

impl ObjectSource for SandboxSource {
    type Error = Infallible;

    async fn run(mut self, updates: mpsc::Sender<Update>) -> Result<(), Infallible> {
        let mut update = std::mem::take(&mut self.update);
        // An error means that the receiver is gone, and the agent with it.
        while updates.send(update).await.is_ok() {
            update = tokio::select! {
                changed = self.changed() => changed,
                () = updates.closed() => break,
            };
        }
        Ok(())
    }
}

impl SandboxSource {
    /// Waits until the files say something else. While one of them is wrong, what was read before
    /// stays in force.
    async fn changed(&mut self) -> Update {
        loop {
            tokio::time::sleep(PAUSE).await;
            let texts = read_texts(&self.files);
            if texts == self.texts {
                continue;
            }
            self.texts = texts;
            match Policies::of_texts(&self.files, &self.texts) {
                Ok(policies) => {
                    let now: BTreeSet<PolicyId> = policies.policies.iter().map(|policy| policy.id.clone()).collect();
                    let gone = self.in_force.difference(&now).cloned();
                    let gone = gone.map(|id| ObjectChange::Delete(ObjectKey::Policy(id)));
                    let read = policies.policies.into_iter();
                    let read = read.map(|policy| ObjectChange::Apply(Object::Policy(Box::new(policy))));
                    let changes = gone.chain(read).collect();
                    self.in_force = now;
                    info!("the policies have changed, and are read again");
                    return Update {
                        changes,
                        reports: policies.reports.into(),
                        ..Update::default()
                    };
                }
                Err(wrong) => {
                    for line in wrong {
                        error!("{line}; what was read before stays in force");
                    }
                }
            }
        }
    }
}

/// The content of a file, or why it cannot be read.
type FileText = Result<String, String>;

fn read_texts(files: &[PathBuf]) -> Vec<FileText> {
    let read = |file: &PathBuf| fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
    files.iter().map(read).collect()
}

/// The policies of `--policy` files.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    policies: Vec<Policy>,
    reports: Vec<ReadReport>,
    files: Vec<PathBuf>,
    texts: Vec<FileText>,
}

impl Policies {
    /// Reads files. If any policy in them is rejected, returns all errors, one a line.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, Vec<String>> {
        let texts = read_texts(files);
        let read = Self::of_texts(files, &texts)?;
        Ok(Self {
            files: files.to_vec(),
            texts,
            ..read
        })
    }

    /// As [`read`](Self::read), of files with these contents.
    fn of_texts(files: &[PathBuf], texts: &[FileText]) -> Result<Self, Vec<String>> {
        let mut read = Self::default();
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        for (file, text) in files.iter().zip(texts) {
            let text = match text {
                Ok(text) => text,
                Err(error) => {
                    wrong.push(error.clone());
                    continue;
                }
            };
            let (documents, diagnostics) = document::parse(text);
            read.report(file, String::new(), diagnostics);
            for document in documents {
                let object = format!("{} {}", document.kind, document.name);
                // Manifests often hold what a policy is for beside it.
                if validate::id(&document).is_none() && validate::foreign_policy(&document).is_none() {
                    continue;
                }
                let (policy, mut diagnostics) = policy_of(document);
                if let Some(policy) = &policy
                    && !seen.insert(policy.id.clone())
                {
                    diagnostics.push(refusal(
                        "duplicate",
                        "metadata.name",
                        "another policy has this name already",
                    ));
                }
                read.report(file, object, diagnostics);
                read.policies.extend(policy);
            }
        }
        let rejected = |report: &&ReadReport| report.state == ReportState::Rejected;
        wrong.extend(read.reports.iter().filter(rejected).flat_map(lines));
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }

    /// The findings in policies that are accepted, one a line.
    pub(crate) fn remarks(&self) -> Vec<String> {
        self.reports.iter().flat_map(lines).collect()
    }

    fn report(&mut self, file: &Path, object: String, diagnostics: Vec<Diagnostic>) {
        if object.is_empty() && diagnostics.is_empty() {
            return;
        }
        let state = match diagnostics.iter().map(|diagnostic| diagnostic.severity).max() {
            Some(Severity::Error) => ReportState::Rejected,
            Some(Severity::Unenforced) => ReportState::Partial,
            Some(Severity::Warning) | None => ReportState::Accepted,
        };
        self.reports.push(ReadReport {
            file: Some(file.to_owned()),
            object,
            state,
            diagnostics,
        });
    }
}

/// The policy of a document, moved to the sandbox's namespace.
fn policy_of(mut document: Document) -> (Option<Policy>, Vec<Diagnostic>) {
    let Some(id) = validate::id(&document) else {
        let other = validate::foreign_policy(&document);
        let no_policy = || refusal("not-a-policy", "kind", "only policies are read here");
        return (None, vec![other.unwrap_or_else(no_policy)]);
    };
    if id.kind.is_namespaced() {
        NAMESPACE.clone_into(&mut document.namespace);
        if let Some(metadata) = document
            .value
            .get_mut("metadata")
            .and_then(|value| value.as_object_mut())
        {
            metadata.insert("namespace".to_owned(), NAMESPACE.into());
        }
    }
    let (verdict, diagnostics) = validate::validate(&document);
    (verdict.accepted(), diagnostics)
}

/// The policy that closes the sandbox, allows what `--allow` names and denies what `--deny` names.
fn command_line_policy(allowances: &Allowances) -> Policy {
    let rule = |flag: &str, action: Action, value: &Allowance| PolicyRule {
        origin: format!("{flag} {value}"),
        action,
        peers: value.peers(),
        ports: value.ports(),
        named: Vec::new(),
        inspected: value.inspected(),
        dns: Vec::new(),
    };
    let allow = allowances
        .allow
        .iter()
        .map(|value| rule(COMMAND_LINE, Action::Allow, value));
    let deny = allowances.deny.iter().map(|value| rule("--deny", Action::Deny, value));
    Policy {
        id: PolicyId {
            // Clusterwide ones have no namespace, and print as their name alone.
            kind: PolicyKind::CiliumClusterwideNetworkPolicy,
            namespace: String::new(),
            name: COMMAND_LINE.to_owned(),
        },
        extensions: Extensions {
            audit: allowances.audit,
            ..Extensions::default()
        },
        specs: vec![PolicySpec {
            subject_kind: SubjectKind::Pods,
            subject: LabelSelector::default(),
            tier: Tier::Network,
            directions: PerDirection::of_egress(DirectionSpec {
                closes: true,
                rules: deny.chain(allow).collect(),
            }),
        }],
    }
}

fn pod(addresses: impl Iterator<Item = IpAddr>, labels: BTreeMap<String, String>) -> SlimPod {
    SlimPod {
        name: POD.into(),
        template: Arc::new(PodTemplate {
            namespace: NAMESPACE.into(),
            labels,
            service_account: "default".into(),
            ports: Box::default(),
            on_host: false,
        }),
        node: None,
        addresses: addresses.collect(),
        being_deleted: false,
    }
}

fn refusal(code: &'static str, path: &str, reason: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code,
        path: path.to_owned(),
        position: None,
        reason: reason.to_owned(),
        suggestion: None,
    }
}

fn lines(report: &ReadReport) -> Vec<String> {
    ReportRow::from(report).findings
}
