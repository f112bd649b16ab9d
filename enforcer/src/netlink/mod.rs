//! Netlink, as far as set elements, conntrack entries and logged packets need it.
//!
//! Bytes are made and read by pure code; only [`socket`] talks to the kernel:
//!
//! - [`message`]: messages and attributes, the grammar that every netlink family shares.
//! - [`reply`]: acknowledgements and errors, and which part of which message an error speaks of.
//! - [`batch`]: set elements as one nf_tables transaction: small, and told apart when something is
//!   wrong with one.
//! - [`objects`]: chains, sets and rules as plain data, and [`transaction`]: these as one nf_tables
//!   transaction.
//! - [`tables`]: what stands in nf_tables: chains, sets, elements.
//! - [`structure`]: what stands in one table, with the handles that tell whether it is still the
//!   same.
//! - [`flows`]: conntrack entries.
//! - [`log`]: logged packets.
//! - [`socket`]: the exchange with the kernel.

pub(crate) mod batch;
pub(crate) mod flows;
pub(crate) mod log;
pub(crate) mod message;
pub(crate) mod objects;
pub(crate) mod reply;
pub(crate) mod socket;
pub(crate) mod structure;
pub(crate) mod tables;
pub(crate) mod transaction;
