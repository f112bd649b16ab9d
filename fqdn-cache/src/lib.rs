//! The ledger of learned addresses: which name resolved to which addresses, and until when.
//!
//! This crate is pure. Time is an argument ([`clock::Time`]), the next deadline is a return value,
//! and what should change in the world is returned as data.
//!
//! It is a ledger and not a cache: a cache may forget, but forgetting an address here would cut
//! traffic. Reaching a limit is therefore an explicit outcome ([`LearnOutcome`]).
//!
//! ```
//! use std::net::IpAddr;
//! use std::time::Duration;
//!
//! use clock::Time;
//! use fqdn_cache::{LearnedAnswer, LeaseOwner, LeaseTiming, Ledger, LedgerLimits, Teacher};
//! use names::Name;
//!
//! let mut ledger = Ledger::new(LedgerLimits::default(), LeaseTiming::default());
//! let now = Time::from_millis(0);
//! let address = IpAddr::from([192, 0, 2, 1]);
//! let answer = LearnedAnswer {
//!     name: Name::parse("api.example.com").unwrap(),
//!     addresses: [(address, Duration::from_secs(60))].into_iter().collect(),
//!     teacher: Teacher::Trusted(IpAddr::from([192, 0, 2, 53])),
//!     owner: LeaseOwner(1),
//!     terms: None,
//! };
//! // The TTL, and the default grace of 30 s.
//! let end = now + Duration::from_secs(90);
//! assert_eq!(ledger.learn(now, &answer).leases[..], [(address, end)]);
//! assert_eq!(ledger.next_deadline(), Some(end));
//! assert_eq!(ledger.expire(end), [(answer.name, address)]);
//! ```

mod lease;
mod leases;
mod ledger;
mod ledger_snapshot;
mod name_table;
mod reverse_index;
mod teacher;

pub use lease::LeaseTiming;
pub use ledger::{EndedLease, LearnOutcome, LearnedAnswer, Ledger, LedgerEntry, LedgerLimits};
pub use ledger_snapshot::{LedgerSnapshot, LedgerSnapshotError};
pub use name_table::LeaseOwner;
pub use teacher::Teacher;
