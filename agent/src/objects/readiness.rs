//! Registers a descriptor with the runtime.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Must be called inside a tokio runtime.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stands for the same open descriptor as long as it lives, and only the
    // AsyncFd can drop it.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
