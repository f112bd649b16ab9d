//! Descriptors that the runtime waits for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime, inside which this must be called.
///
/// # Errors
/// When the kernel refuses it (`epoll_ctl(2)`).
pub fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stands for the same open descriptor as long as it lives, and only the
    // AsyncFd can drop it.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
