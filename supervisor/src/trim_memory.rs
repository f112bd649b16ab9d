//! Releases memory that only the start needed.
//!
//! An agent that starts reads flags, YAML, certificates and the first objects, and writes a whole
//! ruleset. It never does most of that again. The code for it stays mapped, and so do the pages
//! around it, which the kernel maps along with it. That is nearly the whole program, and most of
//! the resident memory of an idle agent.
#![allow(unsafe_code)]

use std::ops::Range;
use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// Unmaps all code and all constants. A page is mapped again when it is next used, usually from the
/// page cache. Until then the kernel can use its memory otherwise.
///
/// # Errors
/// When the mappings cannot be read. Everything stays mapped then.
pub fn trim() -> io::Result<()> {
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    for Range { start, end } in unchanged_mappings(&smaps) {
        // SAFETY: a private mapping of a file in which no page was changed reads as the file does,
        // before and after. No page was changed, and none can be: the mapping is read-only, and the
        // loader is done with relocations. A thread that runs or reads there waits for its page.
        unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// The private, read-only mappings of files in which no page was changed, from proc_pid_smaps(5).
/// Changed pages are shown there as anonymous or swapped.
fn unchanged_mappings(smaps: &str) -> impl Iterator<Item = Range<usize>> {
    let mut mapping = None;
    smaps.lines().filter_map(move |line| {
        let (word, value) = line.split_once(':')?;
        match word {
            // `Swap` follows `Anonymous`.
            "Anonymous" | "Swap" if value.trim() != "0 kB" => mapping = None,
            "Swap" => return mapping.take(),
            // The first line of a mapping contains a device, as in `fe:00`, so that several words
            // stand before its colon. All other lines have one word there.
            beginning if beginning.contains(' ') => mapping = read_only(line),
            _ => {}
        }
        None
    })
}

/// The range of a private, read-only mapping of a file, from its first line.
fn read_only(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, _offset, _device, inode) = (
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
    );
    if !matches!(rights, "r-xp" | "r--p") || inode == "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_as_its_file_does_is_unmapped() {
        let smaps = [
            (
                "55d0a1200000-55d0a1800000 r--p 00000000 fe:00 1311 /usr/bin/namegate",
                "0 kB",
            ),
            (
                "55d0a1800000-55d0a2600000 r-xp 00600000 fe:00 1311 /usr/bin/namegate (deleted)",
                "0 kB",
            ),
            // What the loader has relocated, and then protected.
            (
                "55d0a2600000-55d0a26b0000 r--p 01400000 fe:00 1311 /usr/bin/namegate",
                "744 kB",
            ),
            (
                "55d0a26b0000-55d0a2700000 rw-p 014b0000 fe:00 1311 /usr/bin/namegate",
                "0 kB",
            ),
            ("55d0a3000000-55d0a3100000 rw-p 00000000 00:00 0 [heap]", "340 kB"),
            ("7eff00000000-7eff00100000 ---p 00000000 00:00 0", "0 kB"),
            (
                "7effff000000-7effff100000 r-xp 00026000 fe:00 1310 /usr/lib/a: strange place/libc.so.6",
                "0 kB",
            ),
            (
                "7f0000000000-7f0000100000 rwxp 00000000 fe:00 1312 /usr/lib/strange.so",
                "0 kB",
            ),
            (
                "7f0000100000-7f0000200000 r-xs 00000000 fe:00 1313 /usr/lib/shared",
                "0 kB",
            ),
            ("7f0000200000-7f0000300000 r-xp 00000000 00:00 0", "0 kB"),
            ("7ffc5f5f0000-7ffc5f5f2000 r-xp 00000000 00:00 0 [vdso]", "0 kB"),
            ("what this is nobody knows: 1", "0 kB"),
        ];
        let smaps = smaps.map(|(mapping, anonymous)| {
            format!("{mapping}\nSize:   1024 kB\nRss:     80 kB\nAnonymous:   {anonymous}\nSwap:   0 kB\nVmFlags: rd ex mr mw me\n")
        });
        let found: Vec<Range<usize>> = unchanged_mappings(&smaps.concat()).collect();
        assert_eq!(
            found,
            [
                0x55d0_a120_0000..0x55d0_a180_0000,
                0x55d0_a180_0000..0x55d0_a260_0000,
                0x7eff_ff00_0000..0x7eff_ff10_0000
            ]
        );
    }

    #[test]
    fn what_was_changed_and_swapped_out_stays() {
        let mapping = "55d0a2600000-55d0a26b0000 r--p 01400000 fe:00 1311 /usr/bin/namegate";
        let found = |swap: &str| unchanged_mappings(&format!("{mapping}\nAnonymous: 0 kB\nSwap: {swap}\n")).count();
        assert_eq!((found("0 kB"), found("744 kB")), (1, 0));
    }

    #[test]
    fn a_process_goes_on_after_it() {
        trim().unwrap();
        trim().unwrap();
    }
}
