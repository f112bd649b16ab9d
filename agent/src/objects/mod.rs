//! Where Kubernetes objects come from.
//!
//! Every source feeds the same loop with the same [`Update`]s, so that a directory is a cluster too.

use std::future::Future;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use policy::{Diagnostic, Policy, PolicyId};
use serde::Serialize;
use tokio::sync::mpsc;

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
    /// A policy.
    Policy(PolicyId),
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
    /// What is to be said of every file or object, complete: it replaces the reports of the update before.
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
    /// Refused, and there is no good version to keep.
    Rejected,
}

/// A source of objects.
pub trait Source: Send + 'static {
    /// Why it cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Sends updates until the receiver is dropped. Transient trouble is reported and retried, not returned.
    fn run(self, updates: mpsc::Sender<Update>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
