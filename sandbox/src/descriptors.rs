//! Which open files of namegate the command inherits: standard input, output and error, and those
//! of `--keep-fd`.
//!
//! A descriptor may be a way out that no namespace closes: a socket of the host's network, a
//! directory, a pidfd.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Marks every open descriptor but the standard ones to be closed by exec. Descriptors that
/// namegate opens later have the mark from the start.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > libc::STDERR_FILENO);
    for descriptor in open.collect::<Vec<RawFd>>() {
        match set_flags(descriptor, FdFlags::CLOEXEC) {
            // BADF: the descriptor with which the directory was read.
            Err(Errno::BADF) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes the mark from a descriptor. Async-signal-safe.
pub(crate) fn keep_on_exec(descriptor: RawFd) -> rustix::io::Result<()> {
    set_flags(descriptor, FdFlags::empty())
}

/// Whether `descriptor` is open in this process.
pub(crate) fn is_open(descriptor: RawFd) -> bool {
    // SAFETY: asking for the flags of a descriptor does nothing to what it refers to, and a closed
    // one is an error.
    descriptor >= 0 && fcntl_getfd(unsafe { BorrowedFd::borrow_raw(descriptor) }).is_ok()
}

fn set_flags(descriptor: RawFd, flags: FdFlags) -> rustix::io::Result<()> {
    // SAFETY: callers pass descriptors that they saw open, so it is not −1. The flags concern exec
    // alone, and a closed one is an error.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(descriptor) }, flags)
}
