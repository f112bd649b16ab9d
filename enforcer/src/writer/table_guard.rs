//! What the [`guard`](super::guard) knows of the table and of what interception needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ahash::HashMap;
use clock::Time;

use crate::audit::Damage;
use crate::audit::schedule::{ForeignChanges, RepairBackoff, TimeShare};
use crate::audit::structure::WrittenObjects;
use crate::audit::sysctls::Sysctls;
use crate::desired::Interception;
use crate::layout::{ElementKey, SetId};
use crate::netlink::objects::MapValue;
use crate::netlink::table_snapshot::{RawElement, TableSnapshot};
use crate::routing::RoutingWatch;

/// Comparing the structure takes at most one part in so many of a processor's time, however often
/// somebody changes tables.
const STRUCTURE_SHARE: u32 = 20;

/// Reading sets takes at most one part in so many of a processor's time.
const CONTENTS_SHARE: u32 = 50;

/// What is known of the table, and of what interception needs outside nftables.
#[derive(Debug)]
pub(super) struct TableGuard {
    /// When the next check is due.
    pub(super) next_check: Time,
    /// What our transactions have made.
    pub(super) written: WrittenObjects,
    /// The table as it was when it was last compared and intact.
    pub(super) baseline: Option<TableSnapshot>,
    /// The chains that were written since `baseline`.
    pub(super) rewritten: BTreeSet<String>,
    /// Whether `baseline` was read after the last installation.
    pub(super) settled: bool,
    /// Whether the kernel has refused something as if an object were missing.
    pub(super) suspected: bool,
    pub(super) changes: ForeignChanges,
    pub(super) structure_share: TimeShare,
    pub(super) contents: ContentsCheck,
    /// The damage that is known and not repaired; `noticed` says since when.
    pub(super) damaged: Vec<Damage>,
    pub(super) noticed: Option<Time>,
    pub(super) backoff: RepairBackoff,
    /// The marks of agents that were alive before this one; `None` before the first installation.
    pub(super) earlier_agents: Option<BTreeSet<u8>>,
    /// Whether an agent that came later keeps the table.
    pub(super) stands_back: bool,
    pub(super) others_until: Time,
    pub(super) routing: RoutingCheck,
    pub(super) sysctls: SysctlCheck,
}

impl Default for TableGuard {
    fn default() -> Self {
        Self {
            next_check: Time::default(),
            written: WrittenObjects::default(),
            baseline: None,
            rewritten: BTreeSet::new(),
            settled: false,
            suspected: false,
            changes: ForeignChanges::default(),
            structure_share: TimeShare::one_in(STRUCTURE_SHARE),
            contents: ContentsCheck::default(),
            damaged: Vec::new(),
            noticed: None,
            backoff: RepairBackoff::default(),
            earlier_agents: None,
            stands_back: false,
            others_until: Time::default(),
            routing: RoutingCheck::default(),
            sysctls: SysctlCheck::default(),
        }
    }
}

impl TableGuard {
    /// Elements are missing: compares the sets at once.
    pub(super) fn suspect_elements(&mut self) {
        self.contents.ask();
        self.next_check = Time::default();
    }

    /// An object is missing: compares the structure at once.
    pub(super) fn suspect(&mut self) {
        self.suspected = true;
        self.next_check = Time::default();
    }

    /// Takes a snapshot as what should exist from now on.
    pub(super) fn accept(&mut self, found: TableSnapshot) {
        self.baseline = Some(found);
        self.rewritten.clear();
        self.settled = true;
    }
}

/// The state of the check of elements.
#[derive(Debug)]
pub(super) struct ContentsCheck {
    pub(super) is_asked: bool,
    pub(super) share: TimeShare,
    pub(super) reading: Option<BackgroundRead>,
    pub(super) suspects: VecDeque<(SetId, ElementKey)>,
    /// For each set how many elements were written and deleted.
    pub(super) repaired: BTreeMap<SetId, (usize, usize)>,
    pub(super) noticed: Option<Time>,
}

/// A thread that reads sets.
#[derive(Debug)]
pub(super) struct BackgroundRead {
    pub(super) began: Time,
    pub(super) found: Receiver<ReadSet>,
}

/// What a set contained, or that there are no more.
pub(super) enum ReadSet {
    /// A set of the whole table.
    Table(String, BTreeMap<RawElement, Option<MapValue>>),
    /// A learned set, with the moments between which it was read.
    Learned(SetId, HashMap<ElementKey, Option<Duration>>, (Time, Time)),
    /// The reading has ended, and took so much processor time.
    Ended(Duration),
}

impl Default for ContentsCheck {
    fn default() -> Self {
        Self {
            is_asked: false,
            share: TimeShare::one_in(CONTENTS_SHARE),
            reading: None,
            suspects: VecDeque::new(),
            repaired: BTreeMap::new(),
            noticed: None,
        }
    }
}

impl ContentsCheck {
    /// Asks for a check of all sets.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Has a check that is under way begun anew, because the sets have changed. What it has read
    /// counts: sets may change a hundred times a second, and each change would begin it at once.
    pub(super) fn restart(&mut self, now: Time) {
        self.is_asked |= !self.suspects.is_empty();
        self.suspects.clear();
        if let Some(reading) = self.reading.take() {
            self.is_asked = true;
            // It took no more of a processor than that.
            self.share.took(now, now.since(reading.began));
        }
    }
}

/// What is known of addresses, rules and routes.
#[derive(Debug, Default)]
pub(super) struct RoutingCheck {
    pub(super) watch: Option<(Interception, RoutingWatch)>,
    pub(super) looked: Time,
    /// The damage that could not be repaired.
    pub(super) damaged: Vec<Damage>,
    /// Why the damage could not be repaired.
    pub(super) failure: Option<String>,
    pub(super) noticed: Option<Time>,
    pub(super) backoff: RepairBackoff,
}

impl RoutingCheck {
    /// Whether the IPv6 half of the mode exists.
    pub(super) fn has_ipv6(&self) -> bool {
        self.watch.as_ref().is_some_and(|(_, watch)| watch.has_ipv6())
    }
}

/// What is known of sysctls.
#[derive(Debug, Default)]
pub(super) struct SysctlCheck {
    pub(super) sysctls: Sysctls,
    /// The values as they were last read, by path.
    pub(super) values: BTreeMap<String, String>,
    /// The links that lead to governed pods, as they were when all files were last read, and their
    /// names.
    pub(super) links: BTreeSet<u32>,
    pub(super) names: Vec<String>,
    /// Files that are kept open, since they are read often.
    pub(super) open: BTreeMap<&'static str, File>,
    /// When those of which the kernel does not notify are read again, and when all are.
    pub(super) next: Time,
    pub(super) next_of_all: Time,
    /// Why IPv6 could not be switched on again on `lo`.
    pub(super) refused: Option<String>,
}

/// Why a check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckReason {
    /// It is due.
    Time,
    /// Rules are about to be installed, based on what exists.
    BeforeInstall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_is_begun_anew_waits_for_its_share_of_the_time() {
        let at = Time::from_millis;
        let mut contents = ContentsCheck {
            reading: Some(BackgroundRead {
                began: at(1_000),
                found: std::sync::mpsc::channel().1,
            }),
            ..ContentsCheck::default()
        };
        contents.restart(at(1_010));
        assert!(contents.is_asked && contents.reading.is_none());
        assert!(!contents.share.allows(at(1_509)));
        assert!(contents.share.allows(at(1_510)));
        // Nothing was under way.
        contents.restart(at(2_000));
        assert!(contents.share.allows(at(2_000)));
    }
}
