//! What a process uses, as the kernel counts it.
#![allow(unsafe_code)]

use std::fs;
use std::mem::MaybeUninit;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a process used until it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// From its start to its end.
    pub(crate) elapsed: Duration,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The most that was resident, in bytes.
    pub(crate) peak: u64,
}

/// Runs a command to its end.
pub(crate) fn measured(command: &mut Command) -> Usage {
    let begun = Instant::now();
    // wait4(2) waits for it.
    #[allow(clippy::zombie_processes)]
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: both pointers are to values of the types that wait4(2) writes, and outlive the call.
    // The child is waited for here and nowhere else.
    let ended = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    let elapsed = begun.elapsed();
    assert_eq!(ended, pid, "{}", std::io::Error::last_os_error());
    // SAFETY: all bytes of it were zero, which is a value of it, before the kernel wrote it.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    Usage {
        elapsed,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        // The kernel counts KiB.
        peak: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}

/// The bytes of a running process that are resident and no file's.
pub(crate) fn resident(pid: u32) -> u64 {
    status_of(pid, "RssAnon:")
}

/// The most of a running process that was resident, files included, in bytes.
pub(crate) fn resident_peak(pid: u32) -> u64 {
    status_of(pid, "VmHWM:")
}

fn status_of(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes: u64 = value.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kibibytes * 1024
}
