//! Policies in mode audit.

use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Policy;

/// Warns of mode audit, since a policy whose audit was never ended looks like one that works.
pub(super) fn left_on(policy: &Policy, report: &mut DiagnosticReport<'_>) {
    if policy.extensions.audit {
        report
            .warning(
                "audit-mode",
                "metadata.annotations.namegate.io/mode",
                "the policy drops nothing: what it would drop is only recorded",
            )
            .suggest("write `enforce`, or take the annotation out, when the audit is over");
    }
}
