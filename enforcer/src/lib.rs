//! The kernel side: one nftables table that follows the programs, and the set elements that open
//! addresses.
//!
//! A change goes through these modules, in this order:
//!
//! 1. [`desired`]: what the kernel should hold, as plain data.
//! 2. [`layout`]: which sets a program needs, and which of their elements an address gets.
//! 3. [`ruleset`]: compares desired state and existing objects, and returns the steps of a change:
//!    chains of programs, elements of the table's sets, and the base ruleset, which changes with
//!    settings only.
//! 4. `netlink`: encodes these as netlink messages. Elements change all the time and are sent in
//!    batches.
//! 5. [`writer`]: the one writer to the kernel. It groups commits, and it alone makes
//!    [`Committed`].
//! 6. [`audit`]: compares the kernel with the desired state. What somebody else has changed the
//!    writer repairs.
//! 7. [`conntrack`]: deletes conntrack entries, and hears of flows that begin and end.
//! 8. [`routing`]: addresses on `lo` and policy routes, which the interception modes need outside
//!    nftables.
//! 9. [`pod_links`]: which links lead to pods, and which source addresses may come from them.
//! 10. [`records`]: reads the packets that the ruleset logs as refused or audited.
//! 11. [`revocation`]: which live flows policies do not allow any more.
//!
//! `bench_harness` encodes batches without a kernel, for benchmarks.

pub mod audit;
#[doc(hidden)]
pub mod bench_harness;
pub mod conntrack;
pub mod desired;
pub mod layout;
mod netlink;
pub mod pod_links;
pub mod records;
pub mod revocation;
pub mod routing;
pub mod ruleset;
pub mod writer;

pub use desired::{
    DesiredState, ElementSet, FailMode, Handover, Interception, KernelProgram, KernelTiers, LocalHost, ResolverBinding,
};
pub use layout::{Element, ElementKey, ElementTemplate, SetId};
pub use writer::{AdmitError, Committed, Enforcer, InstallError, Renewal};
