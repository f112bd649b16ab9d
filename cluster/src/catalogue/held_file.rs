//! What is kept of a file between two looks: of what is no policy neither text nor object.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use policy::validate::StandIn;
use policy::{Diagnostic, Policy};
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

use crate::file_stamp::FileStamp;
use crate::object::{Object, ObjectKey};
use crate::reading::{ParsedDocument, ParsedFile};
use crate::report::{ReadReport, ReportState};

use super::FileContent;

/// A path that many objects name.
pub(super) type FileRef = Arc<PathBuf>;

/// What tells one content of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentId {
    Text(u128),
    /// It cannot be read, and why.
    Unreadable(String),
}

/// A file as it was read last.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub(super) path: FileRef,
    /// `None` where the file is to be read at the next look, whatever its stamp is.
    pub(super) stamp: Option<FileStamp>,
    /// `None` where what it says is to be read again even if it is the same.
    pub(super) content: Option<ContentId>,
    /// The text of a file that holds policies: whether it ends early now is told by it.
    pub(super) text: Option<String>,
    /// In the order of the file.
    pub(super) documents: Vec<HeldDocument>,
    /// What is wrong with the file itself.
    pub(super) faults: Vec<Diagnostic>,
    /// The labels of objects that Namegate has no use for.
    pub(super) foreign: Vec<String>,
    /// Objects that stay in force because the file cannot be told, in order.
    pub(super) kept: Vec<Arc<ObjectKey>>,
    pub(super) reports: Vec<ReadReport>,
}

/// What is kept of a document.
#[derive(Debug)]
pub(super) struct HeldDocument {
    pub(super) name: DocumentName,
    pub(super) digest: u64,
    /// Whether it is a Pod of the agent's node, which people are told the file of.
    pub(super) is_local_pod: bool,
    /// `None` for an object that is accepted, is no policy, and of which nothing is to be said.
    pub(super) details: Option<Box<DocumentDetails>>,
}

/// What a document is called.
#[derive(Debug)]
pub(super) enum DocumentName {
    Key(Arc<ObjectKey>),
    /// Of a kind that is refused as such.
    Label(Box<str>),
}

#[derive(Debug)]
pub(super) struct DocumentDetails {
    /// As written, when no earlier version is known.
    pub(super) state: ReportState,
    pub(super) policy: Option<Policy>,
    pub(super) stand_in: StandIn,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl ContentId {
    pub(super) fn of(content: &FileContent) -> Self {
        match content {
            Ok(text) => {
                let mut hasher = SipHasher128::new();
                hasher.write(text.as_bytes());
                Self::Text(hasher.finish128().as_u128())
            }
            Err(reason) => Self::Unreadable(reason.clone()),
        }
    }
}

impl HeldFile {
    /// What is kept of a file. `node` is the agent's; `key` gives the one copy of a key.
    pub(super) fn new(
        path: FileRef,
        content: FileContent,
        stamp: Option<FileStamp>,
        parsed: &mut ParsedFile,
        node: &str,
        mut key: impl FnMut(&ObjectKey) -> Arc<ObjectKey>,
    ) -> Self {
        let documents: Vec<HeldDocument> = parsed
            .objects
            .iter_mut()
            .map(|parsed| HeldDocument::new(parsed, node, &mut key))
            .collect();
        let id = ContentId::of(&content);
        let holds_policies = documents.iter().any(|document| document.policy_key().is_some());
        Self {
            path,
            stamp,
            content: Some(id),
            text: content.ok().filter(|_| holds_policies),
            documents,
            faults: std::mem::take(&mut parsed.faults),
            foreign: std::mem::take(&mut parsed.foreign),
            kept: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// The place of the first document that defines an object.
    pub(super) fn place_of(&self, key: &Arc<ObjectKey>) -> Option<usize> {
        let mut documents = self.documents.iter();
        documents.position(|document| document.key().is_some_and(|other| Arc::ptr_eq(other, key)))
    }

    /// The objects that it defines, and those that it keeps.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<ObjectKey>> {
        self.documents.iter().filter_map(HeldDocument::key).chain(&self.kept)
    }
}

impl HeldDocument {
    fn new(parsed: &mut ParsedDocument, node: &str, key: &mut impl FnMut(&ObjectKey) -> Arc<ObjectKey>) -> Self {
        let state = parsed.state();
        let policy = match &parsed.object {
            Some(Object::Policy(policy)) => Some((**policy).clone()),
            _ => None,
        };
        let is_local_pod = match &parsed.object {
            Some(Object::Pod(pod)) => is_on(pod, node),
            _ => false,
        };
        let is_plain = state == ReportState::Accepted && policy.is_none() && parsed.diagnostics.is_empty();
        let details = DocumentDetails {
            state,
            policy,
            stand_in: std::mem::take(&mut parsed.stand_in),
            diagnostics: std::mem::take(&mut parsed.diagnostics),
        };
        Self {
            name: match &parsed.key {
                Some(known) => DocumentName::Key(key(known)),
                None => DocumentName::Label(parsed.label.as_str().into()),
            },
            digest: digest(&parsed.source),
            is_local_pod,
            details: (!is_plain).then(|| Box::new(details)),
        }
    }

    pub(super) fn key(&self) -> Option<&Arc<ObjectKey>> {
        match &self.name {
            DocumentName::Key(key) => Some(key),
            DocumentName::Label(_) => None,
        }
    }

    /// Which policy it is.
    pub(super) fn policy_key(&self) -> Option<&Arc<ObjectKey>> {
        self.key().filter(|key| matches!(***key, ObjectKey::Policy(_)))
    }

    pub(super) fn label(&self) -> String {
        match &self.name {
            DocumentName::Key(key) => key.to_string(),
            DocumentName::Label(label) => label.to_string(),
        }
    }

    /// As written, when no earlier version is known.
    pub(super) fn state(&self) -> ReportState {
        self.details
            .as_ref()
            .map_or(ReportState::Accepted, |details| details.state)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.state() == ReportState::Rejected
    }

    pub(super) fn diagnostics(&self) -> &[Diagnostic] {
        let details = self.details.as_ref();
        details.map_or(&[][..], |details| details.diagnostics.as_slice())
    }

    pub(super) fn policy(&self) -> Option<&Policy> {
        self.details.as_ref()?.policy.as_ref()
    }
}

/// A Pod without a node is on every one.
fn is_on(pod: &Pod, node: &str) -> bool {
    let named = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    named.is_none_or(|named| named.is_empty() || named == node)
}

/// Tells one version of an object from another.
pub(super) fn digest(source: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    source.hash(&mut hasher);
    hasher.finish()
}
