//! Memory that only the start needed.
//!
//! To start, an agent reads flags, YAML, certificates and the first objects, and writes a whole ruleset; it never does most of that again. The code for it stays mapped all
//! the same, together with its neighbours, which the kernel maps with it: nearly the whole program, and most of what an idle agent seems to take.
#![allow(unsafe_code)]

use std::ops::Range;
use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// Unmaps all code. What is needed again is mapped again when it is next run, out of the page cache as a rule; until then the kernel is free to use its memory otherwise.
///
/// # Errors
/// When the mappings cannot be read: then everything stays.
pub fn trim() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    for Range { start, end } in code(&maps) {
        // SAFETY: a private mapping of a file reads as the file does, before and after, where no page of it was changed: it may not be written to, and
        // the loader has no need to, since position-independent code is not relocated. Whoever runs there now waits for its page.
        unsafe { madvise(start as *mut _, end - start, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// The private mappings of files that may be run and not written to, from proc_pid_maps(5).
fn code(maps: &str) -> impl Iterator<Item = Range<usize>> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (range, rights, _offset, _device, inode) = (
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
            words.next()?,
        );
        if rights != "r-xp" || inode == "0" {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_comes_from_a_file_is_unmapped() {
        let maps = "\
55d0a1200000-55d0a1800000 r--p 00000000 fe:00 1311 /usr/bin/namegate
55d0a1800000-55d0a2600000 r-xp 00600000 fe:00 1311 /usr/bin/namegate (deleted)
55d0a2600000-55d0a2700000 rw-p 01400000 fe:00 1311 /usr/bin/namegate
55d0a3000000-55d0a3100000 rw-p 00000000 00:00 0 [heap]
7effff000000-7effff100000 r-xp 00026000 fe:00 1310 /usr/lib/x86_64-linux-gnu/libc.so.6
7f0000000000-7f0000100000 rwxp 00000000 fe:00 1312 /usr/lib/strange.so
7f0000100000-7f0000200000 r-xs 00000000 fe:00 1313 /usr/lib/shared
7f0000200000-7f0000300000 r-xp 00000000 00:00 0
7ffc5f5f0000-7ffc5f5f2000 r-xp 00000000 00:00 0 [vdso]
what this is nobody knows
";
        let found: Vec<Range<usize>> = code(maps).collect();
        assert_eq!(
            found,
            [0x55d0_a180_0000..0x55d0_a260_0000, 0x7eff_ff00_0000..0x7eff_ff10_0000]
        );
    }

    #[test]
    fn a_process_goes_on_after_it() {
        trim().unwrap();
        trim().unwrap();
    }
}
