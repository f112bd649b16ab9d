//! The boot-time clock, on which leases and everything else that ends are counted.
//!
//! [`Time`] is a moment as data, and all that pure crates use of this one. The feature `system`
//! adds `now`, the only place in the workspace that reads the clock.

#[cfg(feature = "system")]
mod system;
mod time;

#[cfg(feature = "system")]
pub use system::{boot_id, now};
pub use time::Time;
