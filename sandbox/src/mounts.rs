//! Finds the mounts of the host that are interfaces of the kernel, which the command must not write
//! or not see.
//!
//! Root can write many of their files without a capability. Some of them name programs that the
//! kernel runs outside every namespace (`core_pattern`, `uevent_helper`, the `release_agent` of
//! cgroups).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;

/// File systems that configure the kernel and keep no files.
const KERNELS_OWN: [&str; 12] = [
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "configfs",
    "securityfs",
    "efivarfs",
    "bpf",
    "pstore",
    "binfmt_misc",
    "resctrl",
];

/// The mounts that are changed inside the sandbox. Read before the fork, since nothing can be
/// allocated after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounts {
    /// Every `/proc` of the host. One of the sandbox's own is mounted over each.
    pub(crate) processes: Vec<CString>,
    /// The entries of `/proc` that concern the whole kernel. They are made read-only.
    pub(crate) kernel: Vec<CString>,
    /// Mounts of the host that are made read-only.
    pub(crate) read_only: Vec<CString>,
}

impl Mounts {
    /// Reads the mounts of this process's mount namespace.
    pub(crate) fn read() -> io::Result<Self> {
        let mut mounts = Self::of(&fs::read("/proc/self/mountinfo")?);
        for entry in fs::read_dir("/proc")? {
            let (path, file) = (
                entry.as_ref().map(fs::DirEntry::path),
                entry.as_ref().map(fs::DirEntry::metadata),
            );
            // The entry is of a process that has ended meanwhile.
            let (Ok(path), Ok(Ok(file))) = (path, file) else {
                continue;
            };
            let name = path.file_name().unwrap_or_default().as_bytes();
            let of_a_process = name.iter().all(u8::is_ascii_digit) || file.is_symlink();
            if !of_a_process && (file.is_dir() || file.permissions().mode() & 0o222 != 0) {
                mounts.kernel.push(CString::new(path.into_os_string().into_vec())?);
            }
        }
        Ok(mounts)
    }

    /// Parses proc_pid_mountinfo(5).
    fn of(mountinfo: &[u8]) -> Self {
        let mut mounts = Self::default();
        for line in mountinfo.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b' ');
            let (root, place) = (fields.nth(3), fields.next());
            // Any number of optional fields follow, up to a dash.
            let kind = fields.skip_while(|field| *field != b"-").nth(1);
            let (Some(root), Some(place), Some(kind)) = (root, place, kind) else {
                continue;
            };
            let Ok(place) = CString::new(unescaped(place)) else {
                continue;
            };
            if kind == b"proc" && root == b"/" {
                mounts.processes.push(place);
            } else if kind == b"proc" || KERNELS_OWN.iter().any(|own| own.as_bytes() == kind) {
                mounts.read_only.push(place);
            }
        }
        // A mount below a covered one cannot be reached, so it need not and cannot be remounted.
        let covered = |place: &CString| mounts.processes.iter().any(|processes| lies_below(place, processes));
        mounts.read_only.retain(|place| !covered(place));
        mounts
    }
}

fn lies_below(place: &CString, above: &CString) -> bool {
    let rest = place.as_bytes().strip_prefix(above.as_bytes());
    rest.is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Decodes a space, tab, newline or backslash, which is written as a backslash and three octal
/// digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, after) {
            text.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            text.push(*first);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_file_systems_are_found_wherever_they_are() {
        let mountinfo = br"22 1 0:21 / /proc rw,relatime shared:5 - proc proc rw
23 1 0:22 / /sys rw shared:6 master:2 - sysfs sysfs rw
24 23 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
25 1 8:1 / / rw - ext4 /dev/sda1 rw
26 22 0:24 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw
27 1 0:21 / /srv/a\040chroot/proc rw - proc proc rw
28 1 0:21 /sys /srv/other rw - proc proc rw
29 1 0:25 / /process rw - bpf bpf rw

nonsense";
        let names =
            |paths: &[CString]| -> Vec<String> { paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect() };
        let mounts = Mounts::of(mountinfo);
        assert_eq!(names(&mounts.processes), ["/proc", "/srv/a chroot/proc"]);
        assert_eq!(
            names(&mounts.read_only),
            ["/sys", "/sys/fs/cgroup", "/srv/other", "/process"]
        );
    }

    #[test]
    fn the_kernels_part_of_proc_is_told_from_processes() {
        let kernel = Mounts::read().unwrap().kernel;
        for part in [c"/proc/sys", c"/proc/irq"] {
            assert!(kernel.iter().any(|path| **path == *part), "{part:?}");
        }
        for process in [c"/proc/1", c"/proc/self", c"/proc/net", c"/proc/version"] {
            assert!(!kernel.iter().any(|path| **path == *process), "{process:?}");
        }
    }
}
