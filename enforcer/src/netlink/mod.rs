//! Netlink for nf_tables, conntrack entries and logged packets.
//!
//! Messages are encoded and decoded by pure code; only [`socket`] talks to the kernel:
//!
//! - [`message`]: messages and attributes, the format that every netlink family shares.
//! - [`reply`]: acknowledgements and errors, and which part of which message an error refers to.
//! - [`batch`]: set elements as one nf_tables transaction. Such transactions are small and
//!   frequent, and an error is traced to its element.
//! - [`nf_tables`]: the kernel's numbers. [`set_key`]: the keys of elements. [`verdict`]: verdicts.
//! - [`objects`]: chains, sets and rules as plain data, and [`transaction`]: these as one nf_tables
//!   transaction.
//! - [`dump`]: requests for dumps of nf_tables, and their replies.
//! - [`table_snapshot`]: the objects of one table, with the handles that tell whether an object is
//!   still the same.
//! - [`conntrack`]: conntrack entries.
//! - [`nflog`]: logged packets.
//! - [`socket`]: the exchange with the kernel. [`listener`]: a thread that reads what the kernel
//!   sends unasked.

pub(crate) mod batch;
pub(crate) mod conntrack;
pub(crate) mod dump;
pub(crate) mod listener;
pub(crate) mod message;
pub(crate) mod nf_tables;
pub(crate) mod nflog;
pub(crate) mod objects;
pub(crate) mod reply;
pub(crate) mod set_key;
pub(crate) mod socket;
pub(crate) mod table_snapshot;
pub(crate) mod transaction;
pub(crate) mod verdict;
