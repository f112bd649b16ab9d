//! The boot-time clock, on which leases and everything else that ends are counted.
//!
//! [`Time`] is a moment as data, and all that pure crates use of this one. [`WallTime`] is one of
//! the wall clock, for people. The feature `system` adds `now`, and is the only place in the
//! workspace that reads clocks.

#[cfg(feature = "system")]
mod system;
mod time;

#[cfg(feature = "system")]
pub use system::{boot_id, now, thread_cpu_time, wall_now};
pub use time::{Time, WallTime};
