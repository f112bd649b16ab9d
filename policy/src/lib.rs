//! What a policy means.
//!
//! This crate is pure: it reads no file, opens no socket and asks no clock. It turns the policy
//! objects that people write into one [`Program`] per endpoint, and answers what that program says
//! about a name.
//!
//! The way through it, in reading order:
//!
//! 1. [`document`]: YAML text → objects with the lines they came from.
//! 2. [`cilium`]: the `cilium.io/v2` types, and [`validate`](cilium::validate) to a [`Policy`] with every problem named.
//! 3. [`policy`]: a validated policy, in this project's own terms.
//! 4. [`endpoint`]: who a policy may select, and [`labels`] to select them by.
//! 5. [`compile`]: all policies of one endpoint → one [`Program`], with an [`Inventory`] of the objects that rules may speak of.
//! 6. [`name`], [`pattern`], [`index`]: names, what they match, and many patterns matched at once.
//! 7. [`question`]: may this endpoint ask this name?
//! 8. [`lint`]: what is valid but probably not meant.
//! 9. [`crd`]: the kinds as the API server is told of them.

pub mod address;
pub mod cidr_group;
pub mod cilium;
pub mod compile;
pub mod crd;
pub mod diagnostic;
pub mod document;
pub mod endpoint;
pub mod index;
pub mod inventory;
pub mod labels;
pub mod lint;
pub mod name;
pub mod pattern;
pub mod policy;
pub mod ports;
pub mod program;
pub mod question;

mod prefix;
mod selector;
mod shape;

pub use cidr_group::CidrGroup;
pub use diagnostic::{Diagnostic, Severity};
pub use endpoint::Endpoint;
pub use index::NameIndex;
pub use inventory::Inventory;
pub use name::Name;
pub use pattern::Pattern;
pub use policy::{Policy, PolicyId};
pub use ports::{PortRange, PortSet, Protocol};
pub use program::{Program, ProgramId};
