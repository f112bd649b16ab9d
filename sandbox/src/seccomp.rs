//! Seccomp filters that refuse the system calls which reach past the command's namespaces.
//!
//! The filters list what is refused, and not what is allowed, because any command may run. Calls
//! that need a capability are not listed: the capabilities are dropped.

use std::collections::BTreeMap;
use std::io;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Calls that fail with ENOSYS, as on a kernel without them. Programs are prepared for that.
const ABSENT: [c_long; 10] = [
    // io_uring makes and drives sockets, which no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Takes descriptors from the process of a pidfd, and a Unix socket gives a pidfd of its peer
    // (SO_PEERPIDFD).
    libc::SYS_pidfd_getfd,
    // Keyrings belong to users and sessions, not to namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Commands rarely need these, and attacks on the kernel often use them. Not every kernel guards
    // all of them by a capability.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
];

/// Requests that put input into a terminal, as keystrokes or pasted text, which its other readers
/// then read.
// The type differs between C libraries.
#[allow(clippy::unnecessary_cast)]
const KEYSTROKES: [u64; 2] = [libc::TIOCSTI as u64, libc::TIOCLINUX as u64];

/// The protocol families that a network namespace confines and that commands use. The others reach
/// past it (AF_VSOCK the machine's hypervisor, AF_QIPCRTR its devices), past IP and so past policy
/// (AF_SMC, AF_PACKET), or are kernel code that few have looked at.
const FAMILIES: [c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The filters. All of them apply: of several verdicts the kernel takes the strictest.
///
/// A program of another architecture than ours (of 32 bits) is killed with SIGSYS at its first
/// call, whose number would mean another call to them.
pub(crate) fn filters() -> io::Result<Vec<BpfProgram>> {
    let absent = ABSENT.into_iter().map(|call| (call, Vec::new()));
    let keystrokes = KEYSTROKES
        .into_iter()
        .map(|request| rule(vec![argument(1, SeccompCmpOp::Eq, request)?]))
        .collect::<io::Result<_>>()?;
    let foreign = FAMILIES
        .into_iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, family as u64))
        .collect::<io::Result<_>>()?;
    Ok(vec![
        refuse(absent.collect(), libc::ENOSYS)?,
        refuse(BTreeMap::from([(libc::SYS_ioctl, keystrokes)]), libc::EPERM)?,
        refuse(
            BTreeMap::from([(libc::SYS_socket, vec![rule(foreign)?])]),
            libc::EAFNOSUPPORT,
        )?,
        other_numbers(),
    ])
}

/// Compares the lower half of an argument: of an `int` the kernel ignores the upper half, so that
/// it must decide nothing here.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

fn refuse(calls: BTreeMap<i64, Vec<SeccompRule>>, errno: c_int) -> io::Result<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(calls, SeccompAction::Allow, refusal, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// Refuses the numbers from `__X32_SYSCALL_BIT` on: under x32, an ABI of x86-64, they are other
/// names for the same calls.
fn other_numbers() -> BpfProgram {
    const FIRST: u32 = 0x4000_0000;
    let step = |code: u32, jt, jf, k| sock_filter {
        // The kernel's codes are of 16 bits (linux/bpf_common.h).
        code: code as u16,
        jt,
        jf,
        k,
    };
    let errno = libc::ENOSYS.unsigned_abs();
    vec![
        // The number of the call is the first field of `struct seccomp_data`.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, FIRST),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_filters_for_this_architecture_and_they_are_small() {
        let filters = filters().unwrap();
        let steps: usize = filters.iter().map(Vec::len).sum();
        assert!((40..120).contains(&steps), "{steps}");
    }
}
