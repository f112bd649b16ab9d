//! Good versions of objects, as snapshots hold them.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::object::{Object, ObjectKey};
use crate::reading;
use crate::slim::Interner;

/// A good version of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptObject {
    /// An object of Kubernetes itself.
    Slim(Object),
    /// Any other, as a document.
    Document(Arc<str>),
}

impl KeptObject {
    /// Reads a document; `None` where it is no object.
    pub(crate) fn read(document: &str, interner: &mut Interner) -> Option<Self> {
        match reading::reread_slim(document) {
            Some(mut object) => {
                interner.share(&mut object);
                Some(Self::Slim(object))
            }
            None => reading::reread(document).map(|_| Self::Document(document.into())),
        }
    }

    /// Which object it is.
    pub fn key(&self) -> Option<ObjectKey> {
        match self {
            Self::Slim(object) => Some(object.key()),
            Self::Document(document) => Some(reading::reread(document)?.0),
        }
    }

    /// The object.
    pub fn object(&self) -> Option<Object> {
        match self {
            Self::Slim(object) => Some(object.clone()),
            Self::Document(document) => Some(reading::reread(document)?.1),
        }
    }

    /// `kind namespace/name`.
    pub(crate) fn label(&self) -> Option<String> {
        match self {
            Self::Slim(object) => Some(object.key().to_string()),
            Self::Document(document) => reading::label_of(document),
        }
    }

    /// The document of an object that is not kept as such.
    pub(crate) fn document(&self) -> Option<&Arc<str>> {
        match self {
            Self::Slim(_) => None,
            Self::Document(document) => Some(document),
        }
    }
}

/// As a document.
impl Serialize for KeptObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Slim(Object::Pod(pod)) => pod.serialize(serializer),
            Self::Slim(Object::Namespace(namespace)) => namespace.serialize(serializer),
            Self::Slim(Object::Node(node)) => node.serialize(serializer),
            Self::Slim(Object::Service(service)) => service.serialize(serializer),
            Self::Slim(Object::EndpointSlice(slice)) => slice.serialize(serializer),
            Self::Slim(Object::ServiceImport(import)) => import.serialize(serializer),
            Self::Slim(Object::CidrGroup(_) | Object::Policy(_)) => {
                Err(serde::ser::Error::custom("it is kept as a document"))
            }
            Self::Document(document) => {
                let raw: &RawValue = serde_json::from_str(document).map_err(serde::ser::Error::custom)?;
                raw.serialize(serializer)
            }
        }
    }
}
