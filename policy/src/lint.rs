//! What is valid but probably not meant.

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::policy::Policy;

/// Findings about one valid policy, each with a stable code and a suggestion.
pub fn lint(document: &Document, policy: &Policy) -> Vec<Diagnostic> {
    let _ = (document, policy);
    todo!()
}
