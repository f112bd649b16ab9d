//! The kernel side: one nftables table that follows the programs, and the elements that open
//! addresses.
//!
//! The way of a change, each step a module:
//!
//! 1. [`desired`]: what the kernel should hold, as plain data.
//! 2. [`layout`]: which sets a program needs, and which of their elements an address does.
//! 3. [`ruleset`]: desired × what stands → the steps of a change: chains of programs, elements of
//!    the table's sets, and the frame that changes with settings only.
//! 4. `netlink`: all this as bytes. Elements change all the time and are sent in batches.
//! 5. [`writer`]: the one thread that writes to the kernel; it groups commits, and it alone makes
//!    [`Committed`].
//! 6. [`audit`]: what stands × what should: damage by others, that the writer repairs.
//! 7. [`conntrack`]: the few conntrack operations that are needed.
//! 8. [`routing`]: what the interception modes need outside nftables (addresses on `lo`, policy
//!    routes).
//! 9. [`pod_links`]: which links lead to pods, and what may come from them.
//! 10. [`records`]: packets that the ruleset refused or noted, as it logs them.
//!
//! `bench_harness`: what is sent to the kernel, without one, to be measured.

pub mod audit;
#[doc(hidden)]
pub mod bench_harness;
pub mod conntrack;
pub mod desired;
pub mod layout;
mod netlink;
pub mod pod_links;
pub mod records;
pub mod routing;
pub mod ruleset;
pub mod writer;

pub use desired::{DesiredState, FailMode, Interception, KernelProgram, KernelTiers, Refusal, ResolverBinding};
pub use layout::{Element, ElementKey, ElementTemplate, SetId};
pub use writer::{AdmitError, Committed, Enforcer, InstallError, Renewal};
