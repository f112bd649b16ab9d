//! Finds what others have changed of what was installed, and repairs it.
//!
//! Ten times a second the number of the kernel's last transaction is compared with how many
//! transactions were our own (`audit`). Changes of addresses and routes are notified ([`routing`]).
//! When somebody else has changed something, the table is compared with what was written: its
//! [structure](audit::structure) at once, then the elements of its sets (`contents`). A repair
//! takes the steps of an installation, with the desired state in force and the elements of the
//! mirror. So the generation stays, and no plan has to be computed.
//!
//! The first transaction of a repair closes governed pods (`ruleset::closed_chains`), and the frame
//! opens them again. While damage is known, no answer is released that relies on the mirror alone.
//!
//! # Two agents
//! In an upgrade the newer agent writes what the older one wrote before, and lookups through the
//! older one add elements. Each agent has a mark in the heartbeat's set, and the newer one puts its
//! mark there before it writes anything. So an agent that finds the mark of one that came after it
//! leaves the table to that one, and elements of another agent are entered into the mirror.

mod contents;
mod routing;
mod sysctls;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clock::Time;

use crate::audit::schedule::LOOK;
use crate::audit::structure as audited;
use crate::audit::{self, Damage, DamageKind};
use crate::desired::DesiredState;
use crate::layout::Element;
use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::objects::TableCommand;
use crate::ruleset;
use crate::ruleset::change::{self, RulesetChange};

use super::element_key::encode_key;
use super::error::InstallError;
use super::install::InstallPurpose;
use super::kernel::{Kernel, NfTables};
use super::kernel_writer::KernelWriter;
use super::ledger_leases::{ElementLease, LedgerLeases};
use super::set_mirror::AdmissionPhase;
use super::table_guard::CheckReason;

/// How long another agent counts as a writer after it was last seen.
const OTHERS_LINGER: Duration = Duration::from_secs(10);

/// Elements deleted in one transaction.
const AT_ONCE: usize = 1024;

/// Which other agents write to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtherWriters {
    Nobody,
    /// An agent that was alive before this one, and still is or was a moment ago.
    Older,
    /// An agent that came after this one.
    Newer,
}

impl KernelWriter<NfTables> {
    /// Makes a check if one is due.
    pub(super) fn check_if_due(&mut self) {
        if self
            .guard
            .as_ref()
            .is_some_and(|guard| guard.next_check <= clock::now())
        {
            self.check(CheckReason::Time);
        }
    }

    /// Compares everything with what was written, and repairs what differs.
    pub(super) fn check(&mut self, reason: CheckReason) {
        let now = clock::now();
        let Some(guard) = &mut self.guard else { return };
        guard.next_check = now + LOOK;
        if self.installed.is_none() {
            return;
        }
        if self.shared.is_table_gone.swap(false, Relaxed) {
            guard.suspect();
        }
        self.hear();
        self.check_sysctls(now);
        self.check_routing(now);
        if self.check_structure(reason, now) {
            self.check_contents();
        }
        self.publish_damage(None);
    }

    /// Whether damage is known or suspected.
    pub(super) fn is_damaged(&self) -> bool {
        self.guard
            .as_ref()
            .is_some_and(|guard| guard.suspected || !guard.damaged.is_empty())
    }

    /// Before the first installation: shows other agents the mark of this one, and notes which
    /// agents were alive before it.
    pub(super) fn announce(&mut self) {
        if self.guard.as_ref().is_none_or(|guard| guard.earlier_agents.is_some()) {
            return;
        }
        let others = self.heartbeat.others();
        self.heartbeat.show_mark();
        if let Some(guard) = &mut self.guard {
            if !others.is_empty() {
                guard.others_until = clock::now() + OTHERS_LINGER;
            }
            guard.earlier_agents = Some(others);
        }
    }

    /// Notes what a change has written. Call this before the change counts as installed.
    pub(super) fn note_written(&mut self, desired: &DesiredState, change: &RulesetChange) {
        let is_whole = self.installed.is_none();
        let Some(guard) = &mut self.guard else { return };
        let written = &mut guard.written;
        let mut chains = change.chains();
        if is_whole {
            written.chains.clear();
            guard.baseline = None;
        }
        if let Some(replaced) = &change.frame_replaces {
            written.chains.retain(|name, _| !replaced.chains.contains(name));
            let frame = ruleset::frame_forms(desired).into_iter();
            chains.extend(frame.map(|(name, form)| (name, form.rules)));
        }
        for command in &change.removal {
            // What comes back under its name is another object, with a handle of its own.
            let baseline = guard.baseline.as_mut();
            match command {
                TableCommand::DeleteChain(name) => {
                    written.chains.remove(&**name);
                    baseline.map(|baseline| baseline.chains.remove(&**name));
                }
                TableCommand::DeleteSet(name) => drop(baseline.map(|baseline| baseline.sets.remove(&**name))),
                _ => {}
            }
        }
        if is_whole || !change.new_sets.is_empty() || !change.removal.is_empty() {
            written.sets = change::set_forms(desired);
        }
        if is_whole || !chains.is_empty() || !change.new_sets.is_empty() {
            guard.settled = false;
        }
        // From here on only later changes are a reason to check.
        guard.suspected = false;
        guard.rewritten.extend(chains.keys().cloned());
        guard.written.chains.append(&mut chains);
        guard.contents.restart(clock::now());
    }

    /// Notes that everything was written, which repairs any damage.
    pub(super) fn note_intact(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        let damage = std::mem::take(&mut guard.damaged);
        let noticed = guard.noticed.take();
        if !damage.is_empty() {
            self.report_repair(damage, noticed);
        }
        self.publish_damage(None);
    }

    /// Returns false when the sets need not be checked, because the table is damaged or cannot be
    /// read.
    fn check_structure(&mut self, reason: CheckReason, now: Time) -> bool {
        let (generation, own) = match self.generation() {
            Ok(numbers) => numbers,
            Err(error) => {
                tracing::debug!(%error, "the kernel does not tell the number of its last transaction");
                return false;
            }
        };
        let Some(guard) = &mut self.guard else { return false };
        let is_changed = guard.changes.is_due(generation, own, now);
        let is_urgent = guard.suspected || !guard.damaged.is_empty();
        let settles = !guard.settled && reason == CheckReason::Time;
        if !(is_changed || is_urgent || settles || guard.stands_back) {
            return true;
        }
        if !is_urgent && !guard.structure_share.allows(now) {
            return true;
        }
        let before = clock::thread_cpu_time();
        let structure = match self.kernel.structure() {
            Ok(structure) => structure,
            Err(error) => {
                tracing::debug!(%error, "the table cannot be read");
                return false;
            }
        };
        let found = audited::ours(&guard.written, structure);
        let damage = audited::damage(&guard.written, guard.baseline.as_ref(), &guard.rewritten, &found);
        guard
            .structure_share
            .took(clock::now(), clock::thread_cpu_time().saturating_sub(before));
        guard.changes.looked(generation, own, now);
        if is_changed {
            guard.contents.ask();
        }
        if damage.is_empty() {
            guard.accept(found);
            self.note_undamaged();
            return true;
        }
        if self.other_writers() == OtherWriters::Newer {
            self.stand_back();
            return false;
        }
        self.repair(damage, now);
        false
    }

    /// The number of the kernel's last transaction, and how many were our own. Both grow alike
    /// while nobody else makes any.
    fn generation(&mut self) -> std::io::Result<(u32, u32)> {
        let kernel = &mut self.kernel;
        self.heartbeat.between_beats(|heartbeat| {
            let own = kernel.transactions().wrapping_add(heartbeat.transactions());
            Ok((kernel.generation()?, own))
        })
    }

    /// Notes that nothing is damaged.
    fn note_undamaged(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        let was_suspected = std::mem::take(&mut guard.suspected);
        let was_damaged = !std::mem::take(&mut guard.damaged).is_empty();
        guard.noticed = None;
        guard.stands_back = false;
        if was_suspected || was_damaged {
            self.shared.mirror().phase = AdmissionPhase::Serving;
        }
    }

    /// Leaves the table to an agent that came later.
    fn stand_back(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        if !std::mem::replace(&mut guard.stands_back, true) {
            tracing::info!("an agent that came later keeps the table from now on");
        }
        guard.damaged.clear();
        guard.noticed = None;
        if std::mem::take(&mut guard.suspected) {
            // What the other agent has written serves the lookups that are still answered here.
            self.read_back();
            self.shared.mirror().phase = AdmissionPhase::Serving;
        }
    }

    /// Writes the table anew.
    fn repair(&mut self, damage: Vec<Damage>, now: Time) {
        let (Some(guard), Some(desired)) = (&mut self.guard, self.installed.clone()) else {
            return;
        };
        let noticed = *guard.noticed.get_or_insert(now);
        guard.damaged.clone_from(&damage);
        self.shared.mirror().phase = AdmissionPhase::Installing;
        self.shared.begin_epoch();
        if !guard.backoff.allows(now) {
            let pause = guard.backoff.pause();
            if let Err(failure) = self.close(&desired) {
                tracing::warn!(?failure, "governed pods are open");
            }
            return self.publish_damage(Some(format!(
                "something else changes it again and again; the next attempt comes {pause:?} after the last"
            )));
        }
        guard.backoff.repaired(now);
        let expected = self.shared.mirror().leases(now);
        // So that the installation reads what exists.
        self.installed = None;
        let elements = expected.clone();
        let is_of_rules = |damage: &Damage| matches!(damage.kind, DamageKind::Rules | DamageKind::Chain);
        let purpose = match damage.iter().all(is_of_rules) {
            true => InstallPurpose::RepairRules,
            false => InstallPurpose::Repair,
        };
        let outcome = self.attempt(&desired, &mut LedgerLeases::new(|_| elements.clone()), purpose);
        self.installed = Some(desired);
        let outcome = match outcome {
            Ok(_) => {
                self.delete_foreign(&expected);
                self.take_baseline()
            }
            Err(failure) => Err(InstallError::from(failure).to_string()),
        };
        match outcome {
            Ok(()) => {
                self.note_undamaged();
                self.report_repair(damage, Some(noticed));
            }
            Err(failure) => {
                tracing::warn!(
                    damage = audit::brief(&damage),
                    failure,
                    "the table is damaged, and could not be repaired"
                );
                self.publish_damage(Some(failure));
            }
        }
    }

    /// Reads what was just written, as the new baseline.
    fn take_baseline(&mut self) -> Result<(), String> {
        let now = clock::now();
        let (generation, own) = self.generation().map_err(|error| error.to_string())?;
        let structure = self.kernel.structure().map_err(|error| error.to_string())?;
        let Some(guard) = &mut self.guard else { return Ok(()) };
        let found = audited::ours(&guard.written, structure);
        let damage = audited::damage(&guard.written, guard.baseline.as_ref(), &guard.rewritten, &found);
        if !damage.is_empty() {
            return Err(format!("it was changed again: {}", audit::brief(&damage)));
        }
        guard.changes.looked(generation, own, now);
        guard.accept(found);
        guard.contents.ask();
        Ok(())
    }

    /// Deletes elements that no agent has admitted, after everything else was written anew.
    fn delete_foreign(&mut self, expected: &[ElementLease]) {
        if self.other_writers() != OtherWriters::Nobody {
            return;
        }
        let now = clock::now();
        let mut foreign: Vec<Element> = self
            .shared
            .mirror()
            .live(now)
            .into_iter()
            .map(|(element, _)| element)
            .collect();
        // Both are ordered.
        foreign.retain(|element| expected.binary_search_by(|(known, ..)| known.cmp(element)).is_err());
        for some in foreign.chunks(AT_ONCE) {
            // Added first, since it may have timed out meanwhile.
            let operations = [ElementAction::Add(Duration::from_secs(1)), ElementAction::Delete]
                .into_iter()
                .flat_map(|action| {
                    some.iter().map(move |element| ElementOp {
                        set: element.set.to_string().into(),
                        key: encode_key(&element.key),
                        action,
                    })
                });
            let operations: Vec<ElementOp> = operations.collect();
            match self.kernel.commit(&operations) {
                Ok(()) => {
                    let mut mirror = self.shared.mirror();
                    some.iter().for_each(|element| mirror.remove(element));
                }
                Err(error) => tracing::warn!(?error, "addresses of somebody else stay open until their end"),
            }
        }
    }

    /// Which other agents write to the table now or did a moment ago.
    fn other_writers(&mut self) -> OtherWriters {
        let others = self.heartbeat.others();
        let now = clock::now();
        let Some(guard) = &mut self.guard else {
            return OtherWriters::Nobody;
        };
        if !others.is_empty() {
            guard.others_until = now + OTHERS_LINGER;
        }
        let is_newer = |mark: &u8| {
            guard
                .earlier_agents
                .as_ref()
                .is_some_and(|earlier_agents| !earlier_agents.contains(mark))
        };
        if others.iter().any(is_newer) {
            return OtherWriters::Newer;
        }
        match now < guard.others_until {
            true => OtherWriters::Older,
            false => OtherWriters::Nobody,
        }
    }

    fn report_repair(&self, damage: Vec<Damage>, noticed: Option<Time>) {
        let now = clock::now();
        let took = noticed.map_or(Duration::ZERO, |noticed| now.since(noticed));
        tracing::warn!(
            damage = audit::brief(&damage),
            ?took,
            "somebody else had changed what this agent keeps in the kernel; it is repaired"
        );
        self.shared
            .integrity
            .send_modify(|integrity| integrity.note_repair(damage, now, took));
    }

    /// Publishes the damage that is known now, and why it is not repaired.
    fn publish_damage(&self, failure: Option<String>) {
        let Some(guard) = &self.guard else { return };
        let damaged: Vec<Damage> = guard.damaged.iter().chain(&guard.routing.damaged).cloned().collect();
        let failure = failure.or_else(|| guard.routing.failure.clone());
        self.shared.integrity.send_if_modified(|integrity| {
            let failure = match (&failure, damaged.is_empty()) {
                (_, true) => None,
                (None, false) => integrity.failure.clone(),
                (failure, false) => failure.clone(),
            };
            if integrity.damaged == damaged && integrity.failure == failure {
                return false;
            }
            integrity.damaged = damaged;
            integrity.failure = failure;
            true
        });
    }
}
