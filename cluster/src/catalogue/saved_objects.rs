//! Good versions for a later process, told as what changed since the last time.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use crate::kept_object::KeptObject;

/// The good versions of the objects of some files.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SavedObjects {
    /// Of a file that holds none any more, nothing.
    pub(crate) files: BTreeMap<PathBuf, Vec<SavedVersion>>,
}

/// The good version of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SavedVersion {
    /// The version.
    Kept(KeptObject),
    /// The one that was saved before, of the object with this label.
    AsBefore(String),
}

impl SavedObjects {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Takes `newer` over, in which "as before" means what is here.
    pub(crate) fn update(&mut self, mut newer: Self) {
        let versions = || newer.files.values().flatten();
        if versions().any(|version| matches!(version, SavedVersion::AsBefore(_))) {
            let known: HashMap<String, &SavedVersion> = self
                .files
                .values()
                .flatten()
                .filter_map(|version| Some((version.label()?, version)))
                .collect();
            for version in newer.files.values_mut().flatten() {
                if let SavedVersion::AsBefore(label) = version
                    && let Some(before) = known.get(label)
                {
                    *version = (*before).clone();
                }
            }
        }
        self.files.extend(newer.files);
    }

    /// The versions, with the files that they stand in.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&PathBuf, &KeptObject)> {
        let versions = self
            .files
            .iter()
            .flat_map(|(file, versions)| versions.iter().map(move |it| (file, it)));
        versions.filter_map(|(file, version)| match version {
            SavedVersion::Kept(kept) => Some((file, kept)),
            SavedVersion::AsBefore(_) => None,
        })
    }
}

impl SavedVersion {
    fn label(&self) -> Option<String> {
        match self {
            SavedVersion::Kept(kept) => kept.label(),
            SavedVersion::AsBefore(label) => Some(label.clone()),
        }
    }
}
