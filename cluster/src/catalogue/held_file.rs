//! What is kept of a file between two looks: of what is no policy no text, and objects that the
//! index shares.

use std::hash::Hasher;
use std::path::PathBuf;
use std::sync::Arc;

use policy::Diagnostic;
use policy::validate::StandIn;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

use crate::file_stamp::FileStamp;
use crate::object::{Object, ObjectKey, ObjectName};
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
    pub(super) kept: Vec<ObjectKey>,
    pub(super) reports: Vec<ReadReport>,
}

/// What is kept of a document.
#[derive(Debug)]
pub(super) enum HeldDocument {
    /// An object that is accepted, is no policy, and of which nothing is to be said.
    Plain(Object),
    Other(Box<DocumentDetails>),
}

#[derive(Debug)]
pub(super) struct DocumentDetails {
    pub(super) name: DocumentName,
    /// As written, when no earlier version is known.
    pub(super) state: ReportState,
    /// The object, unless it is refused.
    pub(super) object: Option<Object>,
    pub(super) stand_in: StandIn,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// What a document is called.
#[derive(Debug)]
pub(super) enum DocumentName {
    Key(ObjectKey),
    /// Of a kind that is refused as such.
    Label(Box<str>),
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
    /// What is kept of a file.
    pub(super) fn new(path: FileRef, content: FileContent, stamp: Option<FileStamp>, parsed: &mut ParsedFile) -> Self {
        let documents: Vec<HeldDocument> = parsed.objects.iter_mut().map(HeldDocument::new).collect();
        let id = ContentId::of(&content);
        let holds_policies = documents.iter().any(|document| document.policy_name().is_some());
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

    /// The place of the first document that defines an object. It looks at each.
    pub(super) fn place_of(&self, name: ObjectName<'_>) -> Option<usize> {
        let mut documents = self.documents.iter();
        documents.position(|document| document.name() == Some(name))
    }

    /// The objects that it defines, and those that it keeps.
    pub(super) fn names(&self) -> impl Iterator<Item = ObjectName<'_>> {
        let defined = self.documents.iter().filter_map(HeldDocument::name);
        defined.chain(self.kept.iter().map(ObjectKey::name))
    }
}

impl HeldDocument {
    fn new(parsed: &mut ParsedDocument) -> Self {
        let state = parsed.state();
        let is_plain = state == ReportState::Accepted && parsed.diagnostics.is_empty();
        match &parsed.object {
            None | Some(Object::Policy(_)) => {}
            Some(object) if is_plain => return Self::Plain(object.clone()),
            Some(_) => {}
        }
        Self::Other(Box::new(DocumentDetails {
            name: match &parsed.key {
                Some(key) => DocumentName::Key(key.clone()),
                None => DocumentName::Label(parsed.label.as_str().into()),
            },
            state,
            object: parsed.object.clone(),
            stand_in: std::mem::take(&mut parsed.stand_in),
            diagnostics: std::mem::take(&mut parsed.diagnostics),
        }))
    }

    /// Which object it is; `None` for a kind that is refused as such.
    pub(super) fn name(&self) -> Option<ObjectName<'_>> {
        match self {
            Self::Plain(object) => Some(object.name()),
            Self::Other(details) => match &details.name {
                DocumentName::Key(key) => Some(key.name()),
                DocumentName::Label(_) => None,
            },
        }
    }

    /// Which policy it is.
    pub(super) fn policy_name(&self) -> Option<ObjectName<'_>> {
        self.name().filter(|name| name.kind.is_policy())
    }

    pub(super) fn label(&self) -> String {
        match self {
            Self::Plain(object) => object.key().to_string(),
            Self::Other(details) => match &details.name {
                DocumentName::Key(key) => key.to_string(),
                DocumentName::Label(label) => label.to_string(),
            },
        }
    }

    /// As written, when no earlier version is known.
    pub(super) fn state(&self) -> ReportState {
        match self {
            Self::Plain(_) => ReportState::Accepted,
            Self::Other(details) => details.state,
        }
    }

    pub(super) fn is_refused(&self) -> bool {
        self.state() == ReportState::Rejected
    }

    pub(super) fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Plain(_) => &[],
            Self::Other(details) => &details.diagnostics,
        }
    }

    /// The object, unless it is refused.
    pub(super) fn object(&self) -> Option<&Object> {
        match self {
            Self::Plain(object) => Some(object),
            Self::Other(details) => details.object.as_ref(),
        }
    }

    /// Of a policy that is refused: what stands in for it while no earlier version is known.
    pub(super) fn stand_in(&self) -> Option<&StandIn> {
        match self {
            Self::Plain(_) => None,
            Self::Other(details) => Some(&details.stand_in),
        }
    }

    /// Whether it is a Pod of this node, which people are told the file of.
    pub(super) fn is_pod_of(&self, node: &str) -> bool {
        matches!(self.object(), Some(Object::Pod(pod)) if pod.is_on(node))
    }
}
