//! The one writer to the kernel.
//!
//! It lives in a thread with a queue. The thread drains the queue, puts all waiting admissions into
//! one netlink batch, sends it, and answers each. Installations come about in the order in which
//! they are asked. A few elements, while nobody writes, are committed by their caller, who borrows
//! the writer for that (`writer_slot`).
//!
//! # Why no answer is lost when rules change
//! An answer is put into the ledger before its elements are submitted, and an installation stops
//! admissions *before* it reads the ledger for the elements of new sets. So an admission either
//! commits under the old generation and its addresses are in the ledger when the installation reads
//! it, or finds the generation changed ([`AdmitError::Stale`]) and is asked again under the new
//! one. An installation that fails changes nothing, the generation included: the admissions that
//! waited for it are carried out as if it had not been, against the sets that still stand.
//!
//! # The parts
//! - `writer_slot`: who writes at this moment. `reader_pause`: when nobody does.
//! - `set_mirror`: what the kernel holds, in memory. Its mutex is never held across a system call.
//! - `transaction_plan`: waiting admissions × the book → one transaction.
//! - `commit`: sends it, reads what the kernel says, answers.
//! - `sweep`: deletes what is over.
//! - `install`: replaces the rules. `members`: the elements of objects, which have no end.
//! - `guard`: notices what others do to the table, and repairs it.
//! - `thread`: the queue. `heartbeat`: a thread of its own, which waits for nothing of this.
//! - `kernel`, `nft`, `probe`: the rim.

mod admission_callback;
mod admission_request;
mod commit;
mod commit_token;
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
pub use self::proof::Committed;
pub use self::renewal::Renewal;
pub use self::set_mirror::Holder;
pub use self::stats::WriterStats;

/// Removes a table and everything that [`routing`] made for it.
pub fn clean_up(table: &str) -> Result<(), InstallError> {
    nft::delete_tables(&[table, &probe::table_name(table)])?;
    routing::take_down_all();
    Ok(())
}
