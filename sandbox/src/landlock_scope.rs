//! A Landlock domain that keeps signals and traces of the command inside the sandbox.
//!
//! The PID namespace hides processes outside. But a signal to the command's own *process group*
//! reaches all of its members, also those outside: namegate, and the rest of the pipeline or script
//! that started it.

use std::io;
use std::os::fd::OwnedFd;

use landlock::{ABI, Access, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

/// The ruleset of the domain. `None` before Linux 6.12, whose Landlock has no scopes.
pub(crate) fn rules() -> io::Result<Option<OwnedFd>> {
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(ABI::V6))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    Ok(created.into())
}
