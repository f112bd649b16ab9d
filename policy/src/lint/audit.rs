//! Policies that do not enforce.

use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Policy;

/// An audit that nobody ended looks like a policy that works.
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
