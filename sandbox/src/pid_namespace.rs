//! The PID namespace of the command, and its init process.
//!
//! The command is a child of namegate, which waits for it and signals it. Init is another child,
//! started before it. It adopts orphans of the command's processes. When init is killed, the kernel
//! kills every process of the namespace.
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

/// Runs `work` on this thread. The processes that it starts are in a new PID namespace, and the
/// first is its init. `work` must not start threads: the kernel refuses that while it runs.
pub(crate) fn in_new<T, E: From<io::Error>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let own = File::open("/proc/thread-self/ns/pid")?;
    // SAFETY: only CLONE_FILES is unsafe to unshare; this unshares the PID namespace of later
    // children alone.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(io::Error::from)?;
    let result = work();
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID)).map_err(io::Error::from)?;
    result
}

/// The init process of a PID namespace. Dropping it ends every process of the namespace.
#[derive(Debug)]
pub(crate) struct Init {
    process: Child,
}

impl Init {
    /// Starts init, confined as the command is, so that the command gains nothing by taking it
    /// over.
    pub(crate) fn start(confinement: Arc<Confinement>) -> io::Result<Self> {
        // This program is never executed: the forked child itself is init.
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
        // `spawn` returns when the child closes its end of the pipe for errors, which `serve` does.
        Ok(Self {
            process: command.spawn()?,
        })
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // Init may be dead already. Waiting lasts until the kernel has ended all other processes.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs init for ever. It need not wait for orphans: a process that ignores SIGCHLD has no zombies.
fn serve() -> io::Result<()> {
    set_name(c"namegate-init").map_err(|errno| ConfinementStep::StartInit.mark(errno))?;
    // Its memory is a copy of namegate's, which the command must not read.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| ConfinementStep::StartInit.mark(errno))?;
    let mut every = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initializes the set that `sigprocmask` reads; no handler is involved.
    // Nobody else in this process uses its descriptors: it has one thread, and nothing of it runs
    // after this function.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::sigfillset(every.as_mut_ptr());
        // Otherwise handlers of namegate would run. SIGKILL from outside the namespace cannot be
        // blocked.
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
/// No code of this process may use these descriptors afterwards.
unsafe fn close_from(first: u32) {
    // SAFETY: the call takes numbers only, and the caller promises the rest.
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
