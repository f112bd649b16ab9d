//! The processor's time that a process has used.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::time::Duration;

/// User and system time of a process, of all its threads, to the nanosecond
/// (`clock_getcpuclockid(3)`): `/proc/PID/stat` counts ticks of 10 ms, which is the cost of a
/// hundred lookups.
///
/// # Panics
/// Where there is no such process.
pub(crate) fn of(pid: u32) -> Duration {
    let (mut clock, mut time) = (0, MaybeUninit::uninit());
    // SAFETY: the call writes to `clock` alone, which outlives it.
    let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    assert_eq!(found, 0, "there is a process {pid}");
    // SAFETY: the call writes a timespec to `time`, which has room for one and outlives it.
    let read = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    assert_eq!(read, 0, "process {pid} lives");
    // SAFETY: the call has succeeded, and so written it.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
