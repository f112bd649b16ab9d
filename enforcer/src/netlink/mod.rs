//! Netlink, as far as set elements, conntrack entries and logged packets need it.
//!
//! Bytes are made and read by pure code; only [`socket`] talks to the kernel:
//!
//! - [`message`]: messages and attributes, the grammar that every netlink family shares.
//! - [`reply`]: acknowledgements and errors, and which part of which message an error speaks of.
//! - [`batch`]: set elements as one nf_tables transaction: small, and told apart when something is
//!   wrong with one.
//! - [`nf_tables`]: the kernel's numbers. [`set_key`]: the keys of elements. [`verdict`]: verdicts.
//! - [`objects`]: chains, sets and rules as plain data, and [`transaction`]: these as one nf_tables
//!   transaction.
//! - [`dump`]: what stands in nf_tables: chains, sets, elements.
//! - [`snapshot`]: what stands in one table, with the handles that tell whether it is still the
//!   same.
//! - [`conntrack`]: conntrack entries.
//! - [`nflog`]: logged packets.
//! - [`socket`]: the exchange with the kernel.

pub(crate) mod batch;
pub(crate) mod conntrack;
pub(crate) mod dump;
pub(crate) mod message;
pub(crate) mod nf_tables;
pub(crate) mod nflog;
pub(crate) mod objects;
pub(crate) mod reply;
pub(crate) mod set_key;
pub(crate) mod snapshot;
pub(crate) mod socket;
pub(crate) mod transaction;
pub(crate) mod verdict;
