//! What the sandboxed process does to itself between fork and exec.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, move_into_link_name_space, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, unshare_unsafe,
};

use crate::netns::Namespace;

/// Where the process is put, and what it sees there.
#[derive(Debug)]
pub(super) struct Confinement {
    /// Its network.
    pub(super) network: Namespace,
    /// Files that are covered by others: what is seen, and where.
    pub(super) covers: Vec<(CString, CString)>,
    /// The process that it must not outlive.
    pub(super) parent: Pid,
}

/// What can fail before the command is even looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    EnterNetwork,
    UnshareMounts,
    CoverFile,
    DropCapabilities,
    ForbidNewPrivileges,
    FollowParent,
}

/// With these, root inside could leave the sandbox or change the host's network: enter other namespaces, trace processes
/// outside, load code into the kernel, reach its memory.
const DROPPED: [CapabilitySet; 12] = [
    CapabilitySet::NET_ADMIN,
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::SYS_TIME,
    CapabilitySet::BPF,
    CapabilitySet::PERFMON,
    CapabilitySet::MAC_ADMIN,
    CapabilitySet::MAC_OVERRIDE,
    CapabilitySet::CHECKPOINT_RESTORE,
];

/// Confines the process of `command`. An error of it comes out of `spawn`; [`Step::of`] tells it from one of exec.
pub(super) fn confine(command: &mut Command, confinement: Confinement) {
    // SAFETY: the closure runs in the forked child, where only async-signal-safe work is allowed: it makes system calls
    // on values made before the fork, and errors are numbers; nothing is allocated or locked.
    unsafe { command.pre_exec(move || confinement.apply()) };
}

impl Confinement {
    fn apply(&self) -> io::Result<()> {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.network.as_fd(), network).map_err(|errno| Step::EnterNetwork.mark(errno))?;
        // SAFETY: only CLONE_FILES is unsafe to unshare; this unshares the mount namespace alone.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|errno| Step::UnshareMounts.mark(errno))?;
        // Mounts of the host go on to appear inside; those made here stay here.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(c"/", downstream).map_err(|errno| Step::UnshareMounts.mark(errno))?;
        for (seen, place) in &self.covers {
            mount_bind(seen.as_c_str(), place.as_c_str()).map_err(|errno| Step::CoverFile.mark(errno))?;
        }
        drop_capabilities().map_err(|errno| Step::DropCapabilities.mark(errno))?;
        // Otherwise a set-user-ID program, or one with file capabilities, could have more than this process.
        set_no_new_privs(true).map_err(|errno| Step::ForbidNewPrivileges.mark(errno))?;
        // Last, because a change of credentials clears it. It is tied to the parent's *thread* that forked.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| Step::FollowParent.mark(errno))?;
        if getppid() != Some(self.parent) {
            return Err(Step::FollowParent.mark(rustix::io::Errno::SRCH));
        }
        Ok(())
    }
}

/// From the bounding set too, because exec gives root whatever is in it.
fn drop_capabilities() -> rustix::io::Result<()> {
    for capability in DROPPED {
        // An older kernel does not know all of them.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    clear_ambient_capability_set()?;
    let mut sets = capabilities(None)?;
    for capability in DROPPED {
        sets.effective.remove(capability);
        sets.permitted.remove(capability);
        sets.inheritable.remove(capability);
    }
    set_capabilities(None, sets)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::EnterNetwork => "enter its network namespace",
            Step::UnshareMounts => "get mounts of its own",
            Step::CoverFile => "cover the files that name the resolver",
            Step::DropCapabilities => "drop capabilities",
            Step::ForbidNewPrivileges => "forbid new privileges",
            Step::FollowParent => "be tied to namegate's life",
        })
    }
}

impl Step {
    const ALL: [Step; 6] = [
        Step::EnterNetwork,
        Step::UnshareMounts,
        Step::CoverFile,
        Step::DropCapabilities,
        Step::ForbidNewPrivileges,
        Step::FollowParent,
    ];

    /// Errnos of the kernel are at most this (MAX_ERRNO in include/linux/err.h).
    const MAX_ERRNO: i32 = 4095;

    /// A number is all that the forked child can hand to its parent, so the step goes into it, above the errno.
    fn mark(self, errno: rustix::io::Errno) -> io::Error {
        let step = 1 + Self::ALL.iter().position(|step| *step == self).unwrap_or(0) as i32;
        io::Error::from_raw_os_error(step * (Self::MAX_ERRNO + 1) + errno.raw_os_error())
    }

    /// The step that an error of `spawn` comes from, with the errno; none when it is exec's own.
    pub(super) fn of(error: &io::Error) -> Option<(Step, io::Error)> {
        let code = error.raw_os_error()?;
        let step = usize::try_from(code / (Self::MAX_ERRNO + 1)).ok()?.checked_sub(1)?;
        let errno = io::Error::from_raw_os_error(code % (Self::MAX_ERRNO + 1));
        Some((*Self::ALL.get(step)?, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_error_tells_its_step_and_its_errno_and_others_tell_none() {
        for step in Step::ALL {
            let (found, errno) = Step::of(&step.mark(rustix::io::Errno::PERM)).unwrap();
            assert_eq!((found, errno.raw_os_error()), (step, Some(libc::EPERM)));
        }
        assert!(Step::of(&io::Error::from_raw_os_error(libc::ENOENT)).is_none());
        assert!(Step::of(&io::Error::other("text")).is_none());
    }
}
