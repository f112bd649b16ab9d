//! Reads signals from a descriptor (signalfd(2)), for which the safe crates have no wrapper.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// The signals that the supervisor reads. SIGCHLD tells that a child has ended; the supervisor
/// forwards all others to the worker.
const TAKEN: [i32; 7] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Blocks the signals and returns the descriptor from which they are read. Child processes inherit
/// the mask, until they [unblock] the signals.
pub(crate) fn block() -> io::Result<OwnedFd> {
    let set = mask(libc::SIG_BLOCK)?;
    // SAFETY: the set is initialized, and -1 asks for a new descriptor.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    match descriptor {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just made it, and nobody else owns it.
        descriptor => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
    }
}

/// Unblocks the signals. Must be called while the process has one thread: each thread has a mask of
/// its own.
pub(crate) fn unblock() -> io::Result<()> {
    mask(libc::SIG_UNBLOCK).map(drop)
}

fn mask(how: i32) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) initializes the set; the signals are valid, so that sigaddset(3)
    // cannot fail; a null pointer asks sigprocmask(2) for no former mask.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in TAKEN {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        match libc::sigprocmask(how, set.as_ptr(), ptr::null_mut()) {
            0 => Ok(set.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The next pending signal; `None` when there is none.
pub(crate) fn next(descriptor: &OwnedFd) -> Option<rustix::process::Signal> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    let length = rustix::io::read(descriptor, &mut info).ok()?;
    // `ssi_signo`, an u32, comes first (signalfd(2)).
    let number = info.get(..length)?.first_chunk().copied().map(u32::from_ne_bytes)?;
    rustix::process::Signal::from_named_raw(i32::try_from(number).ok()?)
}
