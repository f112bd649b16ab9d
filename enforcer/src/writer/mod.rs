//! The one writer to the kernel.
//!
//! The writer's state ([`KernelWriter`](kernel_writer::KernelWriter)) is owned by one thread with a
//! queue. The thread drains the queue, commits all waiting admissions in one netlink transaction,
//! and answers each. Installations are carried out in the order in which they are asked for. A
//! caller with few elements does not wake the thread: while nobody else writes, it takes the writer
//! for one transaction ([`WriterSlot`](writer_slot::WriterSlot)).
//!
//! # Why no answer is lost when rules change
//! An answer is put into the ledger before its elements are submitted, and an installation stops
//! admissions *before* it reads the ledger for the elements of new sets. So there are two cases.
//! Either the admission commits under the old generation, and the installation finds its addresses
//! in the ledger. Or the admission finds a new generation ([`AdmitError::Stale`]), and its elements
//! are computed again under the new rules.
//!
//! An installation that fails changes nothing, the generation included: the admissions that waited
//! for it are committed to the sets that still stand.
//!
//! # The parts
//! - `enforcer`: the handle. `kernel_writer`: the writer's state. `shared`: what both use.
//!
//! - `writer_slot`: hands the writer to the thread or to a caller. `reader_pause`: pauses commits
//!   while somebody dumps large sets.
//! - `set_mirror`: the elements that the kernel holds, in memory. Its mutex is never held across a
//!   system call.
//! - `transaction_plan`: computes one transaction from waiting admissions and the mirror.
//! - `commit`: sends the transaction, reads the replies, answers the admissions.
//! - `sweep`: deletes elements whose lease is over.
//! - `install`: replaces the rules. `members`: elements of objects' addresses, which have no
//!   timeout.
//! - `cuts`: refuses the packets of flows that policies do not allow any more.
//! - `guard`: finds what others have changed in the table, and repairs it.
//! - `thread`: serves the queue. `heartbeat`: a second thread, which waits for nothing of this.
//! - `kernel`, `nft`, `probe`: the exchange with the kernel.

mod admission_callback;
mod admission_request;
mod commit;
mod commit_token;
mod cut_flows;
mod cuts;
mod element_key;
mod enforcer;
mod error;
mod generation;
mod guard;
mod heartbeat;
mod install;
mod install_failure;
mod kernel;
mod kernel_writer;
mod ledger_leases;
mod members;
mod nft;
mod pending_admission;
mod probe;
mod proof;
mod reader_pause;
mod renewal;
mod set_mirror;
mod shared;
mod stats;
mod sweep;
mod table_guard;
mod thread;
mod transaction_plan;
mod writer_slot;

use crate::routing;

pub use self::admission_callback::AdmissionCallback;
pub use self::admission_request::AdmissionRequest;
pub use self::commit_token::CommitToken;
pub use self::enforcer::Enforcer;
pub use self::error::{AdmitError, InstallError};
pub use self::generation::Generation;
pub use self::heartbeat::agent_is_alive;
pub use self::ledger_leases::LeaseScope;
pub use self::proof::Committed;
pub use self::renewal::Renewal;
pub use self::set_mirror::Holder;
pub use self::stats::WriterStats;

/// Removes a table, and the addresses, rules and routes that [`routing`] made for it.
pub fn clean_up(table: &str) -> Result<(), InstallError> {
    nft::delete_tables(&[table, &probe::table_name(table)])?;
    // A kernel that has no such tables has none of ours.
    let _ = nft::apply(&crate::ruleset::bridge_answers::table(table, None));
    routing::take_down_all();
    Ok(())
}
