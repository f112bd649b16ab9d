//! What a sandbox changed on the host, and how to change it back: one type for the normal end, for
//! the guard that outlives a crash, and for the leftovers of runs whose guard was killed too.

use std::collections::BTreeSet;
use std::io;

use netns::Namespace;
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::firewall;
use super::network::{LINK_PREFIX, Plan, forwarding_sysctl, ignore_missing};

/// Everything to be undone. Known before anything is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Undo {
    /// The sandbox's number.
    id: u32,
    /// Links whose IPv4 forwarding is switched on for it.
    forwarding: BTreeSet<String>,
}

impl Undo {
    /// What building `plan` and running an agent for it will leave.
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            id: plan.id,
            forwarding: plan.forwarding.clone(),
        }
    }

    /// Undoes it all in the namespace of the calling thread, whatever of it was done. Goes on after
    /// an error; what could not be undone is returned, as text.
    pub(super) fn perform(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |result: io::Result<()>| problems.extend(result.err().map(|error| error.to_string()));
        match Namespace::current() {
            Ok(host) => {
                // The link first: processes that are left over must never reach more than before.
                note(ignore_missing(host.delete_link(&format!("{LINK_PREFIX}{}", self.id))));
                note(firewall::remove(&[
                    firewall::agent_table(self.id),
                    firewall::nat_table(self.id),
                ]));
                note(self.switch_forwarding_off(&host));
            }
            Err(error) => note(Err(error)),
        }
        problems
    }

    /// Links that another sandbox has switched on too stay on: it does the rest when it ends.
    fn switch_forwarding_off(&self, host: &Namespace) -> io::Result<()> {
        if self.forwarding.is_empty() {
            return Ok(());
        }
        let still_needed = firewall::switched_by_others(Some(self.id))?;
        for link in self.forwarding.difference(&still_needed) {
            ignore_missing(host.set_sysctl(&forwarding_sysctl(link), "0"))?;
        }
        Ok(())
    }
}

/// Undoes what sandboxes left whose process and guard are both gone. Returns what could not be
/// undone.
pub(super) fn sweep() -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    for id in firewall::sandboxes()? {
        // While this is held, nobody else takes the number.
        let Some(_claim) = Claim::take(id)? else {
            continue;
        };
        let undo = Undo {
            id,
            forwarding: firewall::switched_by(id)?,
        };
        problems.extend(undo.perform());
    }
    Ok(problems)
}
