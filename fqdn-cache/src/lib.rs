//! The ledger of learned addresses: which name resolved to which addresses, and until when.
//!
//! This crate is pure. Time is an argument ([`Time`]), the next deadline is a return value, and
//! what should change in the world is returned as data.
//!
//! It is a ledger and not a cache: a cache may forget, but forgetting an address here would cut
//! traffic. Reaching a limit is therefore an explicit outcome ([`Outcome`]).

mod holders;
pub mod lease;
mod leases;
pub mod ledger;
mod roster;
pub mod snapshot;
pub mod teacher;

pub use lease::LeaseTerms;
pub use ledger::{Answer, Ended, Entry, Ledger, Limits, Outcome};
pub use roster::Owner;
pub use teacher::Teacher;
