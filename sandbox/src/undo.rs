//! Removes what a sandbox has changed on the host.
//!
//! One type serves the usual end of a run, the crash guard, and runs whose guard was killed too.

use std::collections::BTreeSet;
use std::io;

use enforcer::routing;
use netns::Namespace;
use serde::{Deserialize, Serialize};
use settings::AgentOptions;

use crate::firewall;
use crate::network_plan::{LINK_PREFIX, NetworkPlan};
use crate::network_setup::{forwarding_sysctl, ignore_missing};
use crate::sandbox_id::SandboxIdClaim;

/// What a run changes on the host. It is known before the first change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    id: u32,
    /// Links for which the sandbox has IPv4 forwarding switched on.
    forwarding: BTreeSet<String>,
    /// Whether its connections may be handed over to who looks into them.
    inspects: bool,
}

impl Undo {
    /// What building the network of `plan` changes, and what an agent leaves that runs for it.
    pub(crate) fn of(plan: &NetworkPlan) -> Self {
        Self {
            id: plan.id,
            forwarding: plan.forwarding.clone(),
            inspects: true,
        }
    }

    /// Undoes all of it in the namespace of the calling thread. What was never done is no error.
    /// Goes on after an error, and returns the errors as text.
    pub(crate) fn perform(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |result: io::Result<()>| problems.extend(result.err().map(|error| error.to_string()));
        match Namespace::current() {
            Ok(host) => {
                // The link goes first, so that processes that still run never reach more than
                // before.
                note(ignore_missing(host.delete_link(&format!("{LINK_PREFIX}{}", self.id))));
                note(firewall::remove(&[
                    firewall::agent_table(self.id),
                    firewall::nat_table(self.id),
                ]));
                note(self.switch_forwarding_off(&host));
                note(self.end_handover());
            }
            Err(error) => note(Err(error)),
        }
        problems
    }

    /// The addresses and routes of a handover are the same for everybody on this host, and stay as
    /// long as a table of anybody hands connections over.
    fn end_handover(&self) -> io::Result<()> {
        if self.inspects && firewall::tables_that_hand_over()?.is_empty() {
            let ours = AgentOptions::default().inspection;
            routing::take_down_handover(ours.inspect_reply_mark, ours.inspect_table);
        }
        Ok(())
    }

    /// Links that another sandbox needs stay on. That sandbox switches them off when it ends.
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
pub(crate) fn sweep() -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    for id in firewall::sandboxes()? {
        // While the claim is held, no new sandbox takes the number.
        let Some(_claim) = SandboxIdClaim::take(id)? else {
            continue;
        };
        let undo = Undo {
            id,
            forwarding: firewall::switched_by(id)?,
            inspects: firewall::tables_that_hand_over()?.contains(&firewall::agent_table(id)),
        };
        problems.extend(undo.perform());
    }
    Ok(problems)
}
