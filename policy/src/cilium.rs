//! The `cilium.io/v2` policy objects.

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::policy::Policy;

/// Whether a document is a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy.
pub fn is_policy(document: &Document) -> bool {
    document.api_version == "cilium.io/v2"
        && matches!(
            document.kind.as_str(),
            "CiliumNetworkPolicy" | "CiliumClusterwideNetworkPolicy"
        )
}

/// Reads and validates a policy object, reporting every problem at once.
///
/// `None` when it cannot stand at all (some diagnostic is an error). Parts that are valid for the kind but
/// not enforced here are reported as [`Unenforced`](crate::Severity::Unenforced) and fail closed in the result.
pub fn validate(document: &Document) -> (Option<Policy>, Vec<Diagnostic>) {
    let _ = document;
    todo!()
}
