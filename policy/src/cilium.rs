//! The `cilium.io/v2` policy objects.
//!
//! - `schema`: the fields that their CRDs have.
//! - `spec`, and the modules that it uses: what a valid object means.
//! - `stand_in`: whom a refused object selects, so that these endpoints fail closed.

mod icmp;
mod l7;
mod names;
mod objects;
mod peers;
mod port;
mod rule;
mod schema;
mod spec;
mod stand_in;
mod to_ports;
mod written_list;

#[cfg(test)]
mod tests;

use crate::diagnostic_report::DiagnosticReport;
use crate::policy::PolicySpec;
use crate::policy_id::PolicyId;
use crate::shape::{self, DocumentNode};

pub(crate) use stand_in::read as stand_in;

pub(crate) use peers::ENTITIES;
pub(crate) use schema::POLICY as POLICY_SHAPE;
pub use spec::HOST_POLICY;

/// Reads a policy object, and reports every finding. A spec whose subject cannot be told is left
/// out.
pub(crate) fn read(root: &DocumentNode<'_>, id: &PolicyId, report: &mut DiagnosticReport<'_>) -> Vec<PolicySpec> {
    shape::check(root, &schema::POLICY, report);
    let nodes = specs(root);
    if nodes.is_empty() {
        report
            .error("missing-field", "", "it has neither `spec` nor `specs`")
            .suggest("write a `spec` with an `endpointSelector`");
    }
    nodes.iter().filter_map(|node| spec::read(node, id, report)).collect()
}

/// `spec`, followed by the items of `specs`.
fn specs<'a>(root: &DocumentNode<'a>) -> Vec<DocumentNode<'a>> {
    root.get("spec").into_iter().chain(root.list("specs")).collect()
}
