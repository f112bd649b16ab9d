//! Making and entering namespaces: thin wrappers around system calls that Rust calls unsafe.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Moves the calling thread into a new network namespace.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: only CLONE_FILES is unsafe to unshare; this unshares the network namespace alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Moves the calling thread into the network namespace that `fd` refers to.
pub(super) fn join_network(fd: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(fd, Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Makes the process of `command` enter the network namespace between fork and exec.
pub(super) fn join_network_before_exec(command: &mut Command, fd: Arc<OwnedFd>) {
    // SAFETY: the closure runs in the forked child, where only async-signal-safe work is allowed:
    // it makes one system call, and turns an errno into an `io::Error`, which allocates nothing.
    unsafe { command.pre_exec(move || join_network(fd.as_fd())) };
}
