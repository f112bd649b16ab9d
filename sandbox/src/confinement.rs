//! Confines the sandboxed process, between fork and exec.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use netns::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, move_into_link_name_space, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, unshare_unsafe,
};
use seccompiler::BpfProgram;

use crate::descriptors;
use crate::mounts::Mounts;

/// What confines a process. All values are made before the fork. The PID namespace is not among
/// them: a process is started in it ([`pid_namespace`](crate::pid_namespace)).
#[derive(Debug)]
pub(crate) struct Confinement {
    /// The sandbox's network namespace.
    pub(crate) network: Namespace,
    /// The mounts of the kernel's own files, which the process must not write.
    pub(crate) mounts: Mounts,
    /// Bind mounts: the file that is seen, and the path at which it is seen.
    pub(crate) covers: Vec<(CString, CString)>,
    /// The Landlock ruleset; `None` where the kernel has no scopes.
    pub(crate) scope: Option<OwnedFd>,
    /// The seccomp filters.
    pub(crate) filters: Vec<BpfProgram>,
    /// A pidfd of the process that the sandboxed process must not outlive.
    pub(crate) parent: OwnedFd,
}

/// A step of the confinement. Each can fail before exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfinementStep {
    EnterNetwork,
    Unshare,
    MountProcesses,
    ProtectKernel,
    CoverFile,
    DropCapabilities,
    ForbidNewPrivileges,
    EnterDomain,
    FilterCalls,
    FollowParent,
    KeepDescriptor,
    StartInit,
}

/// The capabilities that the command keeps: root's power over files, users and ports. All others
/// are dropped, also those that later kernels add. With them root inside could leave the sandbox,
/// or change the network, the devices, the clock or the kernel of the host.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    // `runuser` fails without it where the kernel audits.
    .union(CapabilitySet::AUDIT_WRITE);

/// Confines the process of `command`, which inherits the descriptors `kept`. `spawn` returns the
/// errors; [`ConfinementStep::of`] tells them from errors of exec.
pub(crate) fn confine(command: &mut Command, confinement: Arc<Confinement>, kept: Vec<RawFd>) {
    // SAFETY: the closure runs in the forked child, where only async-signal-safe work is allowed:
    // it makes system calls on values made before the fork, and errors are numbers; nothing is
    // allocated or locked.
    unsafe {
        command.pre_exec(move || {
            for descriptor in &kept {
                descriptors::keep_on_exec(*descriptor).map_err(|errno| ConfinementStep::KeepDescriptor.mark(errno))?;
            }
            confinement.apply()
        });
    }
}

impl Confinement {
    /// Confines the calling process. Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.network.as_fd(), network)
            .map_err(|errno| ConfinementStep::EnterNetwork.mark(errno))?;
        // Otherwise the process would share memory, semaphores and message queues with the host.
        let unshared = UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
        // SAFETY: only CLONE_FILES is unsafe to unshare.
        unsafe { unshare_unsafe(unshared) }.map_err(|errno| ConfinementStep::Unshare.mark(errno))?;
        // New mounts of the host still appear inside. Mounts that are made here do not leave it.
        let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change(c"/", downstream).map_err(|errno| ConfinementStep::Unshare.mark(errno))?;
        self.cover()?;
        drop_capabilities().map_err(|errno| ConfinementStep::DropCapabilities.mark(errno))?;
        // Otherwise a set-user-ID program, or one with file capabilities, would get capabilities
        // that this process does not have.
        set_no_new_privs(true).map_err(|errno| ConfinementStep::ForbidNewPrivileges.mark(errno))?;
        if let Some(rules) = &self.scope {
            enter_domain(rules).map_err(|errno| ConfinementStep::EnterDomain.mark(errno))?;
        }
        // After the capabilities, because a change of credentials clears it. It is tied to the
        // *thread* of the parent that forked.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|errno| ConfinementStep::FollowParent.mark(errno))?;
        // Whether the parent is dead already is asked of its pidfd: it is in another PID namespace,
        // so its number cannot be compared.
        let mut ended = [PollFd::new(&self.parent, PollFlags::IN)];
        match poll(&mut ended, Some(&Timespec::default())) {
            Ok(0) => {}
            Ok(_) => return Err(ConfinementStep::FollowParent.mark(Errno::SRCH)),
            Err(errno) => return Err(ConfinementStep::FollowParent.mark(errno)),
        }
        self.filters.iter().try_for_each(|filter| {
            seccompiler::apply_filter(filter).map_err(|error| ConfinementStep::FilterCalls.mark(errno_of(&error)))
        })
    }

    fn cover(&self) -> io::Result<()> {
        let data = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let read_only = MountFlags::BIND | MountFlags::RDONLY | data;
        for place in &self.mounts.processes {
            mount(c"proc", place.as_c_str(), c"proc", data, None)
                .map_err(|errno| ConfinementStep::MountProcesses.mark(errno))?;
        }
        for path in &self.mounts.kernel {
            mount_bind(path.as_c_str(), path.as_c_str())
                .and_then(|()| mount_remount(path.as_c_str(), read_only, c""))
                .or_else(unless_gone)
                .map_err(|errno| ConfinementStep::ProtectKernel.mark(errno))?;
        }
        for path in &self.mounts.read_only {
            mount_remount(path.as_c_str(), read_only, c"")
                .or_else(unless_gone)
                .map_err(|errno| ConfinementStep::ProtectKernel.mark(errno))?;
        }
        for (seen, place) in &self.covers {
            mount_bind(seen.as_c_str(), place.as_c_str()).map_err(|errno| ConfinementStep::CoverFile.mark(errno))?;
        }
        Ok(())
    }
}

/// Takes a missing path for success: what has gone, or is hidden by another mount, cannot be
/// written.
fn unless_gone(errno: Errno) -> rustix::io::Result<()> {
    match errno {
        // EINVAL: the path exists in the mount that hides it, and is no mount there.
        Errno::NOENT | Errno::NOTDIR | Errno::INVAL => Ok(()),
        other => Err(other),
    }
}

fn enter_domain(rules: &OwnedFd) -> rustix::io::Result<()> {
    // SAFETY: the call takes a descriptor and flags, no memory.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn errno_of(error: &seccompiler::Error) -> Errno {
    match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
            Errno::from_io_error(error).unwrap_or(Errno::IO)
        }
        _ => Errno::INVAL,
    }
}

/// Drops all capabilities but [`KEPT`], also from the bounding set: exec gives root whatever is in
/// that.
fn drop_capabilities() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // The kernel does not know the highest numbers.
        if !KEPT.contains(capability) && capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    clear_ambient_capability_set()?;
    let mut sets = capabilities(None)?;
    sets.effective &= KEPT;
    sets.permitted &= KEPT;
    sets.inheritable &= KEPT;
    set_capabilities(None, sets)
}

impl fmt::Display for ConfinementStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConfinementStep::EnterNetwork => "enter its network namespace",
            ConfinementStep::Unshare => "get mounts and shared memory of its own",
            ConfinementStep::MountProcesses => "get a /proc of its own",
            ConfinementStep::ProtectKernel => "make the kernel's own files read-only",
            ConfinementStep::CoverFile => "cover the files that name the resolver",
            ConfinementStep::DropCapabilities => "drop capabilities",
            ConfinementStep::ForbidNewPrivileges => "forbid new privileges",
            ConfinementStep::EnterDomain => "enter its Landlock domain",
            ConfinementStep::FilterCalls => "have its system calls filtered",
            ConfinementStep::FollowParent => "be tied to namegate's life",
            ConfinementStep::KeepDescriptor => "keep an open file",
            ConfinementStep::StartInit => "get an init for its processes",
        })
    }
}

impl ConfinementStep {
    const ALL: [ConfinementStep; 12] = [
        ConfinementStep::EnterNetwork,
        ConfinementStep::Unshare,
        ConfinementStep::MountProcesses,
        ConfinementStep::ProtectKernel,
        ConfinementStep::CoverFile,
        ConfinementStep::DropCapabilities,
        ConfinementStep::ForbidNewPrivileges,
        ConfinementStep::EnterDomain,
        ConfinementStep::FilterCalls,
        ConfinementStep::FollowParent,
        ConfinementStep::KeepDescriptor,
        ConfinementStep::StartInit,
    ];

    /// The largest errno of the kernel (include/linux/err.h).
    const MAX_ERRNO: i32 = 4095;

    /// Encodes the step above the errno: the forked child can hand only one number to its parent.
    pub(crate) fn mark(self, errno: Errno) -> io::Error {
        let step = 1 + Self::ALL.iter().position(|step| *step == self).unwrap_or(0) as i32;
        io::Error::from_raw_os_error(step * (Self::MAX_ERRNO + 1) + errno.raw_os_error())
    }

    /// Decodes the step and the errno from an error of `spawn`; `None` for an error of exec.
    pub(crate) fn of(error: &io::Error) -> Option<(ConfinementStep, io::Error)> {
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
        for step in ConfinementStep::ALL {
            let (found, errno) = ConfinementStep::of(&step.mark(Errno::PERM)).unwrap();
            assert_eq!((found, errno.raw_os_error()), (step, Some(libc::EPERM)));
        }
        assert!(ConfinementStep::of(&io::Error::from_raw_os_error(libc::ENOENT)).is_none());
        assert!(ConfinementStep::of(&io::Error::other("text")).is_none());
    }
}
