//! The annotation `namegate.io/ignore`: warnings that the author of an object does not want.

use std::collections::BTreeSet;

use crate::document::Document;

/// `code: reason`, several with `;` between them.
pub(crate) const IGNORE: &str = "namegate.io/ignore";

/// The codes of warnings that an object ignores, each with a reason.
pub(crate) fn codes(document: &Document) -> BTreeSet<&str> {
    let annotations = document.value.pointer("/metadata/annotations");
    let written = annotations.and_then(|annotations| annotations.get(IGNORE)?.as_str());
    entries(written.unwrap_or_default()).filter_map(code).collect()
}

/// The entries of the annotation.
pub(crate) fn entries(written: &str) -> impl Iterator<Item = &str> {
    written.split([';', '\n'])
}

/// The code of one entry, if it has a reason.
pub(crate) fn code(entry: &str) -> Option<&str> {
    let (code, reason) = entry.split_once(':')?;
    (!reason.trim().is_empty()).then_some(code.trim())
}
