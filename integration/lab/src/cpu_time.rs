//! The processor's time that a process has used.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// User and system time of a process so far, of all its threads, to the nanosecond
/// (`clock_getcpuclockid(3)`): `/proc/PID/stat` counts ticks of 10 ms, which is the cost of a
/// hundred lookups.
///
/// # Panics
/// Where there is no such process.
pub fn of(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id is an i32"));
    let clock = clock_getcpuclockid(pid).unwrap_or_else(|error| panic!("there is a process {pid}: {error}"));
    let time = clock
        .now()
        .unwrap_or_else(|error| panic!("process {pid} lives: {error}"));
    TimeSpec::into(time)
}
