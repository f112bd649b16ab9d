//! The source of a sandbox's objects: one namespace, one pod for the command, and its policies.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::ReportRow;
use cluster::index::Cluster;
use cluster::slim::{PodTemplate, SlimNamespace, SlimPod};
use cluster::{Object, ObjectChange, ObjectSource, ReadReport, ReportState, Update};
use names::Pattern;
use policy::document::{self, Document};
use policy::labels::LabelSelector;
use policy::{
    Action, Diagnostic, DirectionSpec, Extensions, PeerSelector, PerDirection, Policy, PolicyId, PolicyKind,
    PolicyRule, PolicySpec, PortSet, Severity, Tier, validate,
};
use tokio::sync::mpsc;

/// The name of the node that the pod is on.
pub(crate) const NODE: &str = "exec";

/// The namespace of everything in a sandbox.
const NAMESPACE: &str = "exec";

/// The pod that stands for the command.
const POD: &str = "sandbox";

/// The name of the policy that is made from `--allow`. It is no valid name of an object, so no
/// policy of a file can replace it.
const COMMAND_LINE: &str = "--allow";

/// A source with one update, which contains everything.
#[derive(Debug)]
pub(crate) struct SandboxSource {
    update: Update,
}

impl SandboxSource {
    /// The source of a pod with these addresses and labels, which may reach `allow` and what
    /// `policies` allow.
    pub(crate) fn new(
        addresses: impl Iterator<Item = IpAddr>,
        labels: BTreeMap<String, String>,
        allow: &[Pattern],
        policies: Policies,
    ) -> Self {
        let mut changes = vec![
            ObjectChange::Apply(Object::Namespace(Arc::new(SlimNamespace {
                name: NAMESPACE.into(),
                labels: BTreeMap::new(),
            }))),
            ObjectChange::Apply(Object::Pod(Arc::new(pod(addresses, labels)))),
            ObjectChange::Apply(Object::Policy(Box::new(command_line_policy(allow)))),
        ];
        let read = policies.policies.into_iter();
        changes.extend(read.map(|policy| ObjectChange::Apply(Object::Policy(Box::new(policy)))));
        Self {
            update: Update {
                changes,
                reports: policies.reports,
                ..Update::default()
            },
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
            let subjects = policy.specs.iter().map(|spec| &spec.subject);
            endpoints
                .iter()
                .any(|pod| subjects.clone().any(|subject| subject.matches(&pod.labels)))
        };
        let idle = cluster.policies().iter().filter(|policy| !selects(policy));
        idle.map(|policy| policy.id.clone()).collect()
    }
}

impl ObjectSource for SandboxSource {
    type Error = Infallible;

    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), Infallible> {
        // An error means that the receiver is gone, and the agent with it.
        if updates.send(self.update).await.is_ok() {
            updates.closed().await;
        }
        Ok(())
    }
}

/// The policies of `--policy` files.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    policies: Vec<Policy>,
    reports: Vec<ReadReport>,
}

impl Policies {
    /// Reads files. If any policy in them is rejected, returns all errors, one a line.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, Vec<String>> {
        let mut read = Self::default();
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        for file in files {
            let text = match fs::read_to_string(file) {
                Ok(text) => text,
                Err(error) => {
                    wrong.push(format!("{}: {error}", file.display()));
                    continue;
                }
            };
            let (documents, diagnostics) = document::parse(&text);
            read.report(file, String::new(), diagnostics);
            for document in documents {
                let object = format!("{} {}", document.kind, document.name);
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

/// The policy that closes the sandbox, and allows the names of `--allow` on every port.
fn command_line_policy(allow: &[Pattern]) -> Policy {
    let rule = |patterns: &[Pattern]| PolicyRule {
        origin: COMMAND_LINE.to_owned(),
        action: Action::Allow,
        peers: PeerSelector::Names(patterns.to_vec()),
        ports: PortSet::All,
        named: Vec::new(),
        inspected: Vec::new(),
        dns: Vec::new(),
    };
    Policy {
        id: PolicyId {
            // Clusterwide ones have no namespace, and print as their name alone.
            kind: PolicyKind::CiliumClusterwideNetworkPolicy,
            namespace: String::new(),
            name: COMMAND_LINE.to_owned(),
        },
        extensions: Extensions::default(),
        specs: vec![PolicySpec {
            subject: LabelSelector::default(),
            tier: Tier::Network,
            directions: PerDirection::of_egress(DirectionSpec {
                closes: true,
                rules: if allow.is_empty() {
                    Vec::new()
                } else {
                    vec![rule(allow)]
                },
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
