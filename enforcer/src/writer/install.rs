//! Replaces the rules.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clock::Time;
use tokio::sync::oneshot;

use crate::desired::{DesiredState, FailMode, Interception};
use crate::layout::{Element, SetId};
use crate::netlink::objects::{NewElement, TableCommand};
use crate::netlink::table_snapshot::TableSnapshot;
use crate::ruleset::ExistingObjects;
use crate::ruleset::change::{self, RulesetChange};
use crate::ruleset::{bridge_answers, closed_chains, cut_chains};
use crate::{routing, ruleset};

use super::element_key::encode_key;
use super::error::InstallError;
use super::generation::Generation;
use super::install_failure::InstallFailure;
use super::kernel::NfTables;
use super::kernel_writer::KernelWriter;
use super::ledger_leases::{AskLedger, ElementLease, LeaseScope, LedgerLeases};
use super::members::MemberDiff;
use super::nft;
use super::pending_admission::PendingAdmission;
use super::set_mirror::{AdmissionPhase, Holder, Lifetime};
use super::table_guard::CheckReason;
use super::transaction_plan::{LINGER, SHORTEST_LIFE, TICKS};

/// The most elements that are put back at once.
const PUT_BACK: usize = 1024;

/// An installation that waits.
pub(super) struct InstallRequest {
    pub(super) desired: Arc<DesiredState>,
    pub(super) learned: Box<AskLedger>,
    pub(super) answer: oneshot::Sender<Result<Generation, InstallError>>,
}

impl fmt::Debug for InstallRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation")
            .field("desired", &self.desired)
            .finish_non_exhaustive()
    }
}

impl KernelWriter<NfTables> {
    /// Carries out an installation, and answers it.
    pub(super) fn install(&mut self, installation: InstallRequest) {
        let InstallRequest {
            desired,
            learned,
            answer,
        } = installation;
        // Damage is repaired first, or nothing is assumed of what exists.
        self.check(CheckReason::BeforeInstall);
        if self.shared.is_table_gone.swap(false, Relaxed) {
            self.installed = None;
        }
        let result = if self.installed.as_ref() == Some(&desired) && !self.is_damaged() {
            Ok(self.shared.mirror().generation)
        } else {
            // From here on no answer is released by the fast path, and admissions wait in the
            // queue. So an answer that `learned` does not see is computed again for the new rules.
            self.shared.mirror().phase = AdmissionPhase::Installing;
            self.shared.begin_epoch();
            let result = self.replace(desired, learned);
            let is_in_doubt = self.installed.is_some() && self.is_damaged();
            self.shared.mirror().phase = if is_in_doubt {
                AdmissionPhase::Installing
            } else {
                AdmissionPhase::Serving
            };
            result
        };
        // The caller may be gone; the rules are installed all the same.
        let _ = answer.send(result);
    }

    fn replace(
        &mut self,
        desired: Arc<DesiredState>,
        learned: impl FnMut(&LeaseScope) -> Vec<ElementLease>,
    ) -> Result<Generation, InstallError> {
        if desired.table != self.kernel.table() {
            let text = format!("the table is {}, and not {}", self.kernel.table(), desired.table);
            return Err(InstallError::Refused(text));
        }
        // Before the rules, which send packets to these addresses and routes.
        set_up_routing(&desired)?;
        self.announce();
        if self.is_damaged() {
            self.installed = None;
        }
        let mut learned = LedgerLeases::new(learned);
        let result = match self.attempt(&desired, &mut learned, InstallPurpose::Install) {
            Err(InstallFailure::Missing(_)) if self.installed.is_some() => {
                self.table_is_lost();
                self.installed = None;
                self.attempt(&desired, &mut learned, InstallPurpose::Install)
            }
            result => result,
        };
        match result {
            Ok(generation) => {
                self.leave_former_interception(&desired);
                self.installed = Some(desired);
                self.watch_routing(clock::now());
                self.note_intact();
                Ok(generation)
            }
            Err(failure) => {
                // A part may have been written. The next installation reads what exists.
                self.installed = None;
                Err(failure.into())
            }
        }
    }

    /// Carries out a change step by step. [`ruleset`] explains the order.
    pub(super) fn attempt<L: FnMut(&LeaseScope) -> Vec<ElementLease>>(
        &mut self,
        desired: &DesiredState,
        learned: &mut LedgerLeases<L>,
        purpose: InstallPurpose,
    ) -> Result<Generation, InstallFailure> {
        let before = self.installed.clone();
        let is_made_anew = before.is_none();
        let mut adopted = Vec::new();
        let change = match &before {
            Some(before) => RulesetChange::between(before, desired),
            None => {
                let mut structure = self.kernel.structure()?;
                if cut_chains::chains().any(|chain| structure.chains.contains_key(chain)) {
                    self.cuts.adopt();
                }
                // Reading hundreds of thousands of elements takes seconds.
                let is_first = self.interception.is_none();
                let mut read = || match is_first {
                    true => self.read_again(),
                    false => self.read_back(),
                };
                if purpose != InstallPurpose::RepairRules && !read() {
                    return Err(InstallFailure::Unknown(std::io::ErrorKind::InvalidData.into()));
                }
                // A later plan may need names under which others have put objects meanwhile. These
                // are not removed: no pod relies on the names yet, and the refusal is reported.
                let was_installed = self.interception.is_some();
                let is_ours = purpose != InstallPurpose::Install || !was_installed;
                let is_unsound = is_ours && !RulesetChange::is_sound(&structure, desired);
                let is_lost = structure.table.is_none() && was_installed;
                let is_closed = is_unsound || is_lost || purpose.may_be_open();
                if is_unsound {
                    tracing::warn!("something else has the names of our sets or chains; the table is made anew");
                    adopted = self.shared.mirror().leases(clock::now());
                    self.transact(&[&[TableCommand::DeleteTable], &*closed_chains::commands(desired)].concat())?;
                    self.shared.mirror().forget();
                    structure = TableSnapshot::default();
                } else if is_closed {
                    self.close(desired)?;
                }
                let mut existing = existing(structure);
                if is_closed {
                    existing.table = true;
                    existing.chains.extend(closed_chains::chains(desired));
                }
                RulesetChange::onto(&existing, desired)
            }
        };
        let sets = (&change.sets, &change.new_sets);
        let mut members = MemberDiff::new(before.as_deref(), desired, sets, &self.shared.mirror())?;
        let scope = match &before {
            Some(before) => LeaseScope::between(before, desired, &change.new_sets, members.addresses()),
            None => LeaseScope::Everything,
        };
        let now = clock::now();
        let leases = learned.of(&scope);
        leases.append(&mut adopted);
        cut_to_capacity(leases, &change.sets, desired, now);
        let leases = &*leases;
        if members.deletes_any() {
            members.keep_leased(&leases.iter().map(|(element, end, _)| (*element, *end)).collect(), now);
        }
        let is_filled = |(element, ..): &&ElementLease| change.new_sets.contains(&element.set);
        let mut filled: Vec<InitialElement> = leases
            .iter()
            .filter(is_filled)
            .map(|lease| InitialElement::new(*lease, now))
            .collect();
        filled.retain(|fill| members.fills.binary_search(&fill.element).is_err());

        let fills = fills(&filled, &members.fills);
        fit(&fills, desired.capacity.get())?;
        for transaction in change.preparations(fills, desired.capacity.get()) {
            self.transact(&transaction)?;
        }
        self.write_members(&members)?;
        self.transact(&change.switch)?;
        if let Some(replaced) = &change.frame_replaces
            && let Err(error) = nft::apply(&ruleset::frame(desired, replaced))
        {
            self.switch_back(desired);
            return Err(error.into());
        }
        self.keep_answers_of_bridges(before.as_deref(), desired);
        self.transact(&change.foreign_removal)?;
        let generation = self.note_installation(desired, &change.sets, &filled, &members.fills, purpose);
        self.note_written(desired, &change);
        if is_made_anew {
            self.restore_cuts()?;
        }
        if let Err(failure) = self.transact(&change.removal) {
            // Nothing refers to it. The next installation that reads what exists removes it.
            tracing::warn!(?failure, "what no program needs any more could not be removed");
        }
        // Before any element is written to a set that another agent may know: that agent sees our
        // mark by then, and deletes no elements any more.
        let falls_through = desired.fail_mode == FailMode::Open && desired.interception != Interception::Off;
        if self.heartbeat.begin(falls_through).is_err() {
            self.table_is_lost();
        }
        self.put_back(generation, leases.iter().filter(|lease| !is_filled(lease)));
        Ok(generation)
    }

    /// Writes the table of family `bridge`, if it is to be another. Without it connections between
    /// pods of one bridge that are looked into time out, and nothing is open.
    fn keep_answers_of_bridges(&self, before: Option<&DesiredState>, desired: &DesiredState) {
        let wanted = bridge_answers::wanted(desired);
        if before.and_then(bridge_answers::wanted) == wanted {
            return;
        }
        if let Err(error) = nft::apply(&bridge_answers::table(&desired.table, wanted.as_ref())) {
            tracing::warn!(%error, "connections within a bridge that are looked into fail; does the kernel have NF_TABLES_BRIDGE?");
        }
    }

    /// Lets no new packets of governed pods pass until the frame is written again.
    pub(super) fn close(&mut self, desired: &DesiredState) -> Result<(), InstallFailure> {
        // In a transaction of its own: the kernel does not wake a dormant table that is given a
        // hook in the same transaction.
        self.transact(&[TableCommand::AddTable])?;
        self.transact(&closed_chains::commands(desired))
    }

    pub(super) fn transact(&mut self, commands: &[TableCommand]) -> Result<(), InstallFailure> {
        self.kernel
            .transact(commands)?
            .map_err(|errors| InstallFailure::of_command_errors(commands, &errors))
    }

    /// Gives endpoints their former programs back, because the frame was refused.
    fn switch_back(&mut self, desired: &DesiredState) {
        let Some(before) = &self.installed else { return };
        let commands = ruleset::table_sets::changes(Some(desired), before);
        if let Err(failure) = self.transact(&commands) {
            tracing::error!(
                ?failure,
                "endpoints have their new programs, although the ruleset was refused"
            );
        }
    }

    /// Enters what the transactions have written into the mirror.
    fn note_installation(
        &self,
        desired: &DesiredState,
        sets: &BTreeSet<SetId>,
        filled: &[InitialElement],
        permanent: &[Element],
        purpose: InstallPurpose,
    ) -> Generation {
        let counters = &self.shared.counters;
        counters
            .elements_written
            .fetch_add(u64::try_from(filled.len()).unwrap_or(u64::MAX), Relaxed);
        let now = clock::now();
        let mut mirror = self.shared.mirror();
        mirror.replace_sets(sets.iter().map(|set| (*set, desired.capacity.get())));
        for fill in filled {
            let gone = now + fill.timeout + 2 * TICKS;
            mirror.record(fill.element, Lifetime { end: fill.end, gone }, fill.holder, now);
        }
        for element in permanent {
            mirror.insert_permanent(*element);
        }
        if purpose == InstallPurpose::Install {
            counters.installs.fetch_add(1, Relaxed);
            mirror.generation = Generation(mirror.generation.0 + 1);
        }
        mirror.generation
    }

    /// Removes what only the former interception mode needed.
    fn leave_former_interception(&mut self, desired: &DesiredState) {
        let former = self.interception.replace(desired.interception);
        let Some(former) = former.filter(|former| *former != desired.interception) else {
            return;
        };
        routing::take_down(&former);
        // Both modes may have objects in common.
        if let Err(error) = set_up_routing(desired) {
            tracing::error!(%error, "what interception needs is not complete");
        }
    }

    /// Puts elements back into sets that stay: those whose admission failed, and those that timed
    /// out in the kernel while the ledger was restored with more.
    fn put_back<'a>(&mut self, generation: Generation, leases: impl Iterator<Item = &'a ElementLease>) {
        let now = clock::now();
        let mut missing = {
            let mirror = self.shared.mirror();
            let is_missing =
                |(element, end, _): &&ElementLease| *end > now && !mirror.holds(element, now, *end, Duration::ZERO);
            let mut room: BTreeMap<SetId, u32> = BTreeMap::new();
            let mut missing: Vec<ElementLease> = leases.filter(is_missing).copied().collect();
            // As far as there is room: nothing is evicted for elements that nobody waits for.
            missing.sort_unstable_by_key(|(_, end, _)| Reverse(*end));
            missing.retain(|(element, ..)| {
                let free = || {
                    mirror
                        .set(&element.set)
                        .map_or(0, |set| set.capacity.saturating_sub(set.held))
                };
                let room = room.entry(element.set).or_insert_with(free);
                let fits = mirror.knows(element) || *room > 0;
                *room = room.saturating_sub(u32::from(!mirror.knows(element)));
                fits
            });
            missing
        };
        missing.sort_unstable_by_key(|(element, _, holder)| (*holder, *element));
        let of_holders = missing.chunk_by(|(.., a), (.., b)| a == b);
        for some in of_holders.flat_map(|of_holder| of_holder.chunks(PUT_BACK)) {
            let (answer, mut outcome) = oneshot::channel();
            self.commit_group(vec![PendingAdmission {
                generation,
                elements: some.iter().map(|(element, end, _)| (*element, *end)).collect(),
                holder: some.first().map(|(.., holder)| *holder).unwrap_or_default(),
                deadline: Duration::ZERO,
                answer: Box::new(answer),
            }]);
            if let Ok(Err(error)) = outcome.try_recv() {
                tracing::warn!(%error, elements = some.len(), "learned addresses could not be put back");
            }
        }
    }
}

/// Why rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstallPurpose {
    /// To install a new desired state; what was computed for the rules before is stale.
    Install,
    /// To repair damage of sets or of the table.
    Repair,
    /// To repair damage of rules only: the sets are intact, and are compared with the mirror later.
    RepairRules,
}

impl InstallPurpose {
    /// Whether the damage may have opened governed pods, so that they must be closed first.
    fn may_be_open(self) -> bool {
        match self {
            InstallPurpose::Install => false,
            InstallPurpose::Repair | InstallPurpose::RepairRules => true,
        }
    }
}

/// The objects under our names, as far as a change must know them.
fn existing(structure: TableSnapshot) -> ExistingObjects {
    ExistingObjects {
        table: structure.table.is_some(),
        chains: structure.chains.into_keys().collect(),
        sets: structure.sets.into_keys().collect(),
    }
}

/// The elements with which new sets are made.
fn fills(leased: &[InitialElement], permanent: &[Element]) -> BTreeMap<SetId, Vec<NewElement>> {
    let mut fills: BTreeMap<SetId, Vec<NewElement>> = BTreeMap::new();
    for fill in leased {
        let element = NewElement {
            timeout: Some(fill.timeout),
            ..NewElement::plain(encode_key(&fill.element.key))
        };
        fills.entry(fill.element.set).or_default().push(element);
    }
    for of_set in permanent.chunk_by(|a, b| a.set == b.set) {
        let Some(Element { set, .. }) = of_set.first() else {
            continue;
        };
        let new = of_set.iter().map(|element| NewElement::plain(encode_key(&element.key)));
        fills.entry(*set).or_default().extend(new);
    }
    fills
}

/// Refuses what is more than new sets may hold: the kernel limits a set only after it was filled.
fn fit(fills: &BTreeMap<SetId, Vec<NewElement>>, capacity: u32) -> Result<(), InstallFailure> {
    let most = change::declared_size(capacity);
    let overfull =
        |(_, elements): &(&SetId, &Vec<NewElement>)| u32::try_from(elements.len()).is_ok_and(|count| count > most);
    match fills.iter().find(overfull) {
        None => Ok(()),
        Some((set, elements)) => Err(InstallFailure::full(&format!(
            "set {set} would hold {} elements",
            elements.len()
        ))),
    }
}

/// A leased element with which a new set is made.
#[derive(Debug)]
struct InitialElement {
    element: Element,
    end: Time,
    timeout: Duration,
    holder: Holder,
}

impl InitialElement {
    fn new((element, end, holder): ElementLease, now: Time) -> Self {
        Self {
            element,
            end,
            holder,
            timeout: end.since(now).max(SHORTEST_LIFE) + LINGER,
        }
    }
}

/// Leaves each live element of these sets once, with its latest end, sorted. Where there are more
/// than the capacity of a set, those that end last stay: one element too many would make the kernel
/// refuse the whole ruleset.
fn cut_to_capacity(learned: &mut Vec<ElementLease>, sets: &BTreeSet<SetId>, desired: &DesiredState, now: Time) {
    learned.retain(|(element, end, _)| *end > now && sets.contains(&element.set));
    learned.sort_unstable_by_key(|(element, end, holder)| (*element, Reverse(*end), *holder));
    learned.dedup_by_key(|(element, ..)| *element);
    let capacity = usize::try_from(desired.capacity.get()).unwrap_or(usize::MAX);
    for of_set in learned.chunk_by_mut(|(a, ..), (b, ..)| a.set == b.set) {
        if of_set.len() <= capacity {
            continue;
        }
        if let Some((Element { set, .. }, ..)) = of_set.first() {
            tracing::warn!(%set, capacity, learned = of_set.len(), "a set is full; raise --set-capacity");
        }
        of_set.sort_unstable_by_key(|(element, end, _)| (Reverse(*end), *element));
        for (_, end, _) in &mut of_set[capacity..] {
            *end = now;
        }
    }
    learned.retain(|(_, end, _)| *end > now);
    learned.sort_unstable();
}

pub(super) fn set_up_routing(desired: &DesiredState) -> Result<(), InstallError> {
    let handover = || desired.handover.as_ref().map_or(Ok(()), routing::set_up_handover);
    let made = routing::set_up(&desired.interception).and_then(|()| handover());
    made.map_err(|error| InstallError::Routing(error.to_string()))
}
