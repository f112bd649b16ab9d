//! Desired × what stands → the steps of a change. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use policy::ProgramId;

use crate::desired::{DesiredState, KernelTiers};
use crate::layout::{self, IpFamily, SetId, SetKind};
use crate::netlink::objects::{Datatype, NewElement, SetSpec, TableCommand};
use crate::netlink::snapshot::{self, SetLimits, SetShape, TableSnapshot};
use crate::netlink::transaction::declared;

use super::program::{self, ProgramChain};
use super::{ExistingObjects, have_the_same_frame, refusal, table_sets};

/// A transaction takes in no more once it has so many commands and elements. Nothing refers to what
/// is prepared, so it may come in several; and each holds the kernel's commit lock, which others
/// want too.
const PREPARED_AT_ONCE: usize = 4096;

/// What has to be done, step by step.
#[derive(Debug, Default)]
pub(crate) struct RulesetChange {
    /// The learned sets that there will be.
    pub(crate) sets: BTreeSet<SetId>,
    /// Those among them that do not stand yet.
    pub(crate) new_sets: BTreeSet<SetId>,
    /// What comes before everything else, in a table that is not known.
    foundation: Vec<TableCommand>,
    /// The chains of each program that does not stand yet.
    new_chains: Vec<Vec<TableCommand>>,
    /// The one transaction that makes new programs count.
    pub(crate) switch: Vec<TableCommand>,
    /// What the frame takes the place of, if it must be written.
    pub(crate) frame_replaces: Option<ExistingObjects>,
    /// What is needed no more.
    pub(crate) removal: Vec<TableCommand>,
}

impl RulesetChange {
    /// From one desired state that is in force to another.
    pub(crate) fn between(before: &DesiredState, after: &DesiredState) -> Self {
        let (programs, audits) = (after.programs.keys(), audits_of(after));
        let former_audits = audits_of(before);
        let new_programs = programs.filter(|id| !before.programs.contains_key(id));
        let new_audits = audits.iter().filter(|(id, _)| !former_audits.contains_key(id));
        let new_audits = new_audits.map(|(_, audit)| program::audit_chains(audit));
        let new_programs = new_programs.map(|id| program::chains(*id, &after.programs[id]));
        let chains = new_audits
            .chain(new_programs)
            .map(|chains| written(chains, None))
            .collect();

        let (sets, former_sets) = (learned_sets(after), learned_sets(before));
        let new_sets = sets.difference(&former_sets).copied().collect();
        let gone_programs = before
            .programs
            .iter()
            .filter(|(id, _)| !after.programs.contains_key(id));
        let gone_audits = former_audits.iter().filter(|(id, _)| !audits.contains_key(id));
        let gone_chains = gone_programs.flat_map(|(id, program)| program::chains(*id, program));
        let gone_chains = gone_chains.chain(gone_audits.flat_map(|(_, audit)| program::audit_chains(audit)));
        let gone_chains: Vec<Arc<str>> = gone_chains.map(|chain| chain.name).collect();
        let gone_sets = former_sets.difference(&sets).map(|set| set.to_string().into());
        Self {
            removal: removal(&gone_chains, gone_sets),
            sets,
            new_sets,
            foundation: Vec::new(),
            new_chains: chains,
            switch: table_sets::changes(Some(before), after),
            frame_replaces: (!have_the_same_frame(before, after)).then(|| frame_of(before)),
        }
    }

    /// From whatever stands under our table's name. All rules are written anew, since what has our
    /// names need not be ours; sets that are [sound](Self::is_sound) stay, with what they hold.
    pub(crate) fn onto(existing: &ExistingObjects, after: &DesiredState) -> Self {
        let sets = learned_sets(after);
        let stands = |set: &&SetId| existing.sets.contains(&set.to_string());
        let new_sets = sets.iter().filter(|set| !stands(set)).copied().collect();
        let audits = audits_of(after);
        let chains = audits.values().map(|audit| program::audit_chains(audit));
        let programs = after.programs.iter().map(|(id, program)| program::chains(*id, program));
        let chains: Vec<Vec<ProgramChain>> = chains.chain(programs).collect();

        let mut foreign = existing.clone();
        for chain in chains.iter().flatten() {
            foreign.chains.remove(&*chain.name);
        }
        let mut foundation = vec![TableCommand::AddTable];
        foundation.extend(refusal::CHAINS.map(|chain| TableCommand::AddChain(chain.into())));
        // Declared even if they stand: that gives them their limits back.
        for (name, form) in table_sets::forms() {
            foreign.sets.remove(&*name);
            foundation.push(TableCommand::AddSet(name, form));
        }
        for set in sets.iter().filter(stands) {
            let name = set.to_string();
            foreign.sets.remove(&name);
            foundation.push(TableCommand::AddSet(name.into(), form(set, after.capacity.get())));
        }
        Self {
            new_chains: chains
                .into_iter()
                .map(|chains| written(chains, Some(existing)))
                .collect(),
            sets,
            new_sets,
            foundation,
            switch: table_sets::changes(None, after),
            frame_replaces: Some(foreign),
            removal: Vec::new(),
        }
    }

    /// Whether what stands can be made what is desired: each of our names is that of a set of our
    /// form, or of a chain that is called as ours is, or of nothing.
    pub(crate) fn is_sound(existing: &TableSnapshot, after: &DesiredState) -> bool {
        let is_set = |(name, (shape, _)): (String, (SetShape, SetLimits))| {
            existing.sets.get(&name).is_none_or(|stands| stands.shape == shape)
        };
        let frame = super::frame_forms(after);
        let hook = |name: &String| frame.get(name).and_then(|form| form.hook.as_ref());
        let has_place = |(name, chain): (&String, &snapshot::ChainInfo)| chain.hook.as_ref() == hook(name);
        let is_ours = |name: &str| frame.contains_key(name) || program::is_chain_name(name);
        set_forms(after).into_iter().all(is_set)
            && existing.chains.iter().filter(|(name, _)| is_ours(name)).all(has_place)
    }

    /// The chains of programs that it writes, with the number of their rules.
    pub(crate) fn chains(&self) -> BTreeMap<String, usize> {
        let mut chains = BTreeMap::new();
        for command in self.new_chains.iter().flatten() {
            match command {
                TableCommand::AddChain(name) => drop(chains.entry(name.to_string()).or_insert(0)),
                TableCommand::AddRule(name, _) => *chains.entry(name.to_string()).or_insert(0) += 1,
                _ => {}
            }
        }
        chains
    }

    /// The transactions that come first: nothing refers yet to what they make.
    pub(crate) fn preparations(
        &self,
        mut fills: BTreeMap<SetId, Vec<NewElement>>,
        capacity: u32,
    ) -> Vec<Vec<TableCommand>> {
        let sets = self.new_sets.iter().map(|set| {
            let name: Arc<str> = set.to_string().into();
            let declared = TableCommand::AddSet(Arc::clone(&name), form(set, capacity));
            let fill = fills
                .remove(set)
                .map(|elements| TableCommand::AddElements(name, elements));
            std::iter::once(declared).chain(fill).collect()
        });
        let mut transactions = Vec::new();
        let mut size = 0;
        let mut transaction: Vec<TableCommand> = self.foundation.clone();
        for group in sets
            .collect::<Vec<Vec<TableCommand>>>()
            .into_iter()
            .chain(self.new_chains.iter().cloned())
        {
            let more: usize = group.iter().map(weight).sum();
            if size + more > PREPARED_AT_ONCE && !transaction.is_empty() {
                transactions.push(std::mem::take(&mut transaction));
                size = 0;
            }
            size += more;
            transaction.extend(group);
        }
        transactions.push(transaction);
        transactions.retain(|transaction| !transaction.is_empty());
        transactions
    }
}

fn weight(command: &TableCommand) -> usize {
    match command {
        TableCommand::AddElements(_, elements) => 1 + elements.len(),
        _ => 1,
    }
}

/// The learned sets of a desired state.
pub(crate) fn learned_sets(desired: &DesiredState) -> BTreeSet<SetId> {
    let evaluations = desired.programs.values().flat_map(|program| program.evaluations());
    let sets = evaluations.flat_map(|evaluation| {
        let possible = evaluation.fold.layout();
        IpFamily::BOTH
            .into_iter()
            .flat_map(move |family| layout::sets(evaluation.id, possible, family))
    });
    sets.collect()
}

/// All sets of a desired state, with what the kernel tells of them.
pub(crate) fn set_forms(desired: &DesiredState) -> BTreeMap<String, (SetShape, SetLimits)> {
    let forms = table_sets::forms();
    let of_table = forms.iter().map(|(name, form)| (name.to_string(), declared(form)));
    let learned = learned_sets(desired);
    let capacity = desired.capacity.get();
    let learned = learned
        .iter()
        .map(|set| (set.to_string(), declared(&form(set, capacity))));
    of_table.chain(learned).collect()
}

fn audits_of(desired: &DesiredState) -> BTreeMap<ProgramId, &KernelTiers> {
    let audited = desired.programs.values().filter_map(|program| program.audited.as_ref());
    audited.map(|audited| (audited.id, audited)).collect()
}

/// The commands that write chains which call none but each other, and those that are known to
/// stand.
fn written(chains: Vec<ProgramChain>, existing: Option<&ExistingObjects>) -> Vec<TableCommand> {
    let names = chains
        .iter()
        .map(|chain| TableCommand::AddChain(Arc::clone(&chain.name)));
    let mut commands: Vec<TableCommand> = names.collect();
    // Part of a program is left where somebody else has deleted the rest.
    let stands = |chain: &&ProgramChain| existing.is_some_and(|existing| existing.chains.contains(&*chain.name));
    let left = chains.iter().filter(stands);
    commands.extend(left.map(|chain| TableCommand::EmptyChain(Arc::clone(&chain.name))));
    for chain in chains {
        let name = chain.name;
        commands.extend(
            chain
                .rules
                .into_iter()
                .map(|rule| TableCommand::AddRule(Arc::clone(&name), rule)),
        );
    }
    commands
}

fn removal(chains: &[Arc<str>], sets: impl Iterator<Item = Arc<str>>) -> Vec<TableCommand> {
    let empty = chains.iter().cloned().map(TableCommand::EmptyChain);
    let delete = chains.iter().cloned().map(TableCommand::DeleteChain);
    empty.chain(sets.map(TableCommand::DeleteSet)).chain(delete).collect()
}

/// The chains of a frame, as if they had been read.
fn frame_of(desired: &DesiredState) -> ExistingObjects {
    ExistingObjects {
        table: true,
        chains: super::frame_chains(desired),
        sets: BTreeSet::new(),
    }
}

/// How often the kernel frees the elements of a learned set that have timed out; until then they
/// take memory, and are never found. To look for them it goes through all elements, 30 ms of a
/// processor for 200,000: once a second, as the kernel does by itself, is too often.
const SWEEP: Duration = Duration::from_secs(10);

/// What a learned set is declared as. Expired elements count until the kernel collects them, so
/// there is twice the room.
fn form(set: &SetId, capacity: u32) -> SetSpec {
    let address = Datatype::Address(set.family);
    SetSpec {
        key: match set.kind {
            SetKind::Exact => vec![address, Datatype::Protocol, Datatype::Port],
            SetKind::Cell(_) | SetKind::All => vec![address],
        },
        maps_to: None,
        ranges: false,
        timeouts: true,
        swept: Some(SWEEP),
        size: Some(capacity.saturating_mul(2)),
    }
}

#[cfg(test)]
mod tests;
