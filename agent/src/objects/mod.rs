//! Where Kubernetes objects come from.
//!
//! Every source feeds the same loop with the same [`Update`]s, so that a directory is a cluster
//! too.
//!
//! - [`reading`]: one document → one object, or why not.
//! - [`catalogue`]: files' contents over time → [`Update`]s; keeps last good versions. Pure.
//! - [`last_good`]: the last good versions on disk, for the next process.
//! - [`tree`], `watch`: a directory's files, and when to read them again.
//! - [`directory`]: the source that these make.
//! - [`kubernetes`]: the source that watches the API server of a cluster.

pub mod catalogue;
pub mod directory;
pub mod kubernetes;
pub mod last_good;
pub mod reading;
pub mod tree;

pub(crate) mod readiness;
mod watch;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use policy::{CidrGroup, Diagnostic, Policy, PolicyId, Severity};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;

use crate::reconcile::Progress;
use kubernetes::health::Health;

/// An object that Namegate acts on.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A workload.
    Pod(Box<Pod>),
    /// Its labels are part of its pods' labels.
    Namespace(Box<Namespace>),
    /// Its addresses and pod ranges belong to the cluster.
    Node(Box<Node>),
    /// Its addresses belong to the cluster; a DNS Service is a trusted resolver.
    Service(Box<Service>),
    /// Backends of a Service.
    EndpointSlice(Box<EndpointSlice>),
    /// Prefixes that policies refer to.
    CidrGroup(Box<CidrGroup>),
    /// A validated policy.
    Policy(Box<Policy>),
}

/// The identity of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// Namespace and name of a Pod.
    Pod(String, String),
    /// Name of a Namespace.
    Namespace(String),
    /// Name of a Node.
    Node(String),
    /// Namespace and name of a Service.
    Service(String, String),
    /// Namespace and name of an EndpointSlice.
    EndpointSlice(String, String),
    /// Name of a CiliumCIDRGroup.
    CidrGroup(String),
    /// A policy.
    Policy(PolicyId),
}

impl ObjectKey {
    /// The kind, as objects write it.
    pub fn kind(&self) -> &'static str {
        match self {
            ObjectKey::Pod(..) => "Pod",
            ObjectKey::Namespace(_) => "Namespace",
            ObjectKey::Node(_) => "Node",
            ObjectKey::Service(..) => "Service",
            ObjectKey::EndpointSlice(..) => "EndpointSlice",
            ObjectKey::CidrGroup(_) => "CiliumCIDRGroup",
            ObjectKey::Policy(id) => id.kind.as_str(),
        }
    }
}

/// `kind namespace/name`, or `kind name` for what has no namespace.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            ObjectKey::Pod(namespace, name)
            | ObjectKey::Service(namespace, name)
            | ObjectKey::EndpointSlice(namespace, name) => {
                write!(f, "{kind} {namespace}/{name}")
            }
            ObjectKey::Namespace(name) | ObjectKey::Node(name) | ObjectKey::CidrGroup(name) => {
                write!(f, "{kind} {name}")
            }
            ObjectKey::Policy(id) => write!(f, "{kind} {id}"),
        }
    }
}

/// One thing that happened to the objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The object is now this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectKey),
}

/// What a source says at a time. The first update is the complete initial list: nothing is
/// enforced before it, so that half a list is never in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// In order.
    pub changes: Vec<Change>,
    /// What is to be said of every file or object, complete: it replaces the reports of the update
    /// before.
    pub reports: Vec<Report>,
}

/// How a file's or an object's reading went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file, where the source is a directory.
    pub file: Option<PathBuf>,
    /// Kind, namespace and name as `kind namespace/name`; empty when the whole file is meant.
    pub object: String,
    /// What became of it.
    pub state: ReportState,
    /// What was found, most severe first.
    pub diagnostics: Vec<Diagnostic>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportState {
    /// In force as written.
    Accepted,
    /// In force; parts of it are not enforced here and fail closed.
    Partial,
    /// Refused, and its last good version stays in force.
    KeptLastGood,
    /// Refused, and there is no good version to keep. The findings say whether something stands in
    /// for it.
    Rejected,
}

impl Report {
    /// A report with its diagnostics in order: most severe first, then as they stand in the file.
    pub fn new(file: Option<&Path>, object: String, state: ReportState, diagnostics: Vec<Diagnostic>) -> Self {
        let mut report = Self {
            file: file.map(Path::to_owned),
            object,
            state,
            diagnostics,
        };
        report.sort();
        report
    }

    /// Brings diagnostics that were added into order.
    pub fn sort(&mut self) {
        self.diagnostics
            .sort_by_key(|it| (std::cmp::Reverse(it.severity), it.position));
    }

    /// Whether it is about a policy, of whichever kind, and not about a file or another object.
    pub fn is_policy(&self) -> bool {
        let kind = self.object.split(' ').next().unwrap_or_default();
        kind.ends_with("Policy")
    }

    /// The most severe finding.
    pub fn worst(&self) -> Option<Severity> {
        self.diagnostics.iter().map(|it| it.severity).max()
    }

    /// One finding of this report in one line: `file:line:column: severity[code] field: reason`.
    /// What is not known is left out; without a position, the object is named.
    pub fn headline(&self, diagnostic: &Diagnostic) -> String {
        let mut line = String::new();
        let mut part = |text: &dyn fmt::Display| line.push_str(&format!("{text}: "));
        let severity = format!("{}[{}]", diagnostic.severity, diagnostic.code);
        match (&self.file, diagnostic.position) {
            (Some(file), Some(at)) => part(&format_args!("{}:{}:{}", file.display(), at.line, at.column)),
            (Some(file), None) => part(&file.display()),
            (None, _) => {}
        }
        let object = (diagnostic.position.is_none() && !self.object.is_empty()).then_some(&self.object);
        let path = (!diagnostic.path.is_empty()).then_some(&diagnostic.path);
        match (object, path) {
            (None, None) => part(&severity),
            (Some(it), None) | (None, Some(it)) => part(&format_args!("{severity} {it}")),
            (Some(object), Some(path)) => part(&format_args!("{severity} {object}: {path}")),
        }
        line + &diagnostic.reason
    }
}

impl ReportState {
    /// The state in one word, as `namegate status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportState::Accepted => "accepted",
            ReportState::Partial => "partial",
            ReportState::KeptLastGood => "kept-last-good",
            ReportState::Rejected => "rejected",
        }
    }
}

/// A source of objects.
pub trait Source: Send + 'static {
    /// Why it cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Called once before [`run`](Self::run): a source may tell its objects' authors what became of
    /// them, and how current they are.
    fn attend(&mut self, _progress: Receiver<Progress>) -> Option<Health> {
        None
    }

    /// Sends updates until the receiver is dropped. Transient trouble is reported and retried, not
    /// returned.
    fn run(self, updates: mpsc::Sender<Update>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
