//! A PID namespace for the command, and its init.
//!
//! The command stays a child of namegate, which waits for it and signals it as before; init is a
//! brother that was there first. It adopts what the command's processes leave behind, and when it
//! is killed the kernel kills whatever is left in the namespace.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_name, unshare_unsafe};

use crate::confinement::{Confinement, ConfinementStep};

/// Runs `work` on this thread so that the processes it starts are in a new PID namespace; the first
/// is its init. `work` must not start threads: the kernel refuses that meanwhile.
pub(crate) fn in_new<T, E: From<io::Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let own = File::open("/proc/thread-self/ns/pid")?;
    // SAFETY: only CLONE_FILES is unsafe to unshare; this unshares the PID namespace of later
    // children alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(io::Error::from)?;
    let result = work();
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID)).map_err(io::Error::from)?;
    result
}

/// The first process of a namespace, which lives until this value is dropped. With it ends
/// everything in the namespace.
#[derive(Debug)]
pub(crate) struct Init {
    process: Child,
}

impl Init {
    /// Starts it, as confined as the command, so that nothing is gained by taking it over.
    pub(crate) fn start(confinement: Arc<Confinement>) -> io::Result<Self> {
        // Nothing is ever executed: the forked child is the init.
        let mut command = Command::new("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the closure runs in the forked child, where only async-signal-safe work is
        // allowed: `apply` keeps to that (see there), and so does `serve`, which makes system calls
        // alone and does not return.
        unsafe {
            command.pre_exec(move || {
                confinement.apply()?;
                serve()
            });
        }
        // It returns when the child has closed its end of the pipe over which it would report a
        // failure: in `serve`.
        Ok(Self {
            process: command.spawn()?,
        })
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // It may be dead already, and all with it. Waiting lasts until the kernel has ended the
        // rest.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The life of init. Orphans need no waiting for: a parent that ignores SIGCHLD has no zombies.
fn serve() -> io::Result<()> {
    set_name(c"namegate-init").map_err(|errno| ConfinementStep::StartInit.mark(errno))?;
    // Its memory is a copy of namegate's.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| ConfinementStep::StartInit.mark(errno))?;
    let mut every = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initializes the set that `sigprocmask` reads; no handler is involved.
    // Nobody else in this process uses its descriptors: it has one thread, and nothing of it runs
    // after this function.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::sigfillset(every.as_mut_ptr());
        // A handler that namegate has set would run otherwise. SIGKILL from outside the namespace
        // cannot be blocked.
        libc::sigprocmask(libc::SIG_BLOCK, every.as_ptr(), std::ptr::null_mut());
        close_from(libc::STDERR_FILENO.unsigned_abs() + 1);
        loop {
            libc::pause();
        }
    }
}

/// Closes every descriptor from `first` on.
///
/// # Safety
///
/// Nobody in this process may use them afterwards.
unsafe fn close_from(first: u32) {
    // SAFETY: numbers alone, and the caller's promise.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(1 << 20);
    for descriptor in first..u32::try_from(limit).unwrap_or(1 << 20) {
        // SAFETY: as above. The cast is of a number below 2²⁰ or the limit, which is an `int`.
        unsafe { libc::close(descriptor as i32) };
    }
}
