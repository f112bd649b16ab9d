//! `egress` and `egressDeny` apart.

/// Which list a rule stands in. What cannot be enforced opens nothing in an allowing rule, and is
/// widened in a denying one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Allow,
    Deny,
}
