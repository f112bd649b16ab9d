//! A Landlock domain around the command: from inside no signal and no trace reaches a process
//! outside.
//!
//! The PID namespace hides those processes, yet a signal to the command's own *process group* goes
//! to all of its members, also to those outside: namegate, and the rest of the pipeline or script
//! that it was started in.

use std::io;
use std::os::fd::OwnedFd;

use landlock::{ABI, Access, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

/// The rules of a domain, which a process enters by itself; none on kernels before Linux 6.12,
/// whose Landlock knows no scopes.
pub(crate) fn rules() -> io::Result<Option<OwnedFd>> {
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(ABI::V6))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    Ok(created.into())
}
