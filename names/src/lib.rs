//! DNS names and the patterns that select them.
//!
//! This crate is pure: it opens no socket and asks no clock. Every other crate compares names in
//! the one form that it defines.
//!
//! - [`Name`]: a DNS name, as a packet or a person writes it.
//! - [`Pattern`]: the `matchName` or `matchPattern` of a policy.
//! - [`NameIndex`]: many patterns, matched against one name at once.

mod index;
mod name;
mod pattern;

pub use index::NameIndex;
pub use name::{LabelsFromTheRight, MAX_NAME_CHARS, Name, NameError};
pub use pattern::{Pattern, PatternError};
