//! Computes the steps from what exists to a desired state. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::desired::DesiredState;
use crate::layout::{self, IpFamily, SetId, SetKind};
use crate::netlink::objects::{Datatype, NewElement, SetSpec, TableCommand};
use crate::netlink::table_snapshot::{self, SetLimits, SetShape, TableSnapshot};
use crate::netlink::transaction::declared;

use super::chains_in_use::ChainsInUse;
use super::program_chains::ProgramChain;
use super::{
    ExistingObjects, base, chain_names, closed_chains, cut_chains, handover, have_the_same_frame, interception,
    refusal, table_sets,
};

/// A preparing transaction that has so many commands and elements takes no more. Each transaction
/// holds the kernel's commit lock, which others need too. Prepared objects may come in several
/// transactions, because nothing refers to them yet.
const PREPARED_AT_ONCE: usize = 4096;

/// The steps of a change.
#[derive(Debug, Default)]
pub(crate) struct RulesetChange {
    /// The learned sets of the desired state.
    pub(crate) sets: BTreeSet<SetId>,
    /// Those among `sets` that do not exist yet.
    pub(crate) new_sets: BTreeSet<SetId>,
    /// What comes before everything else where the table was not written by this agent.
    foundation: Vec<TableCommand>,
    /// The chains of each program that does not exist yet.
    new_chains: Vec<Vec<TableCommand>>,
    /// The one transaction that switches sources to their new programs.
    pub(crate) switch: Vec<TableCommand>,
    /// What the new frame replaces, if it must be written.
    pub(crate) frame_replaces: Option<ExistingObjects>,
    /// Deletes what the rules of others looked up, once the frame has replaced these rules.
    pub(crate) foreign_removal: Vec<TableCommand>,
    /// Deletes what no program needs any more.
    pub(crate) removal: Vec<TableCommand>,
}

impl RulesetChange {
    /// The steps from one desired state, which is in force, to another.
    pub(crate) fn between(before: &DesiredState, after: &DesiredState) -> Self {
        let switch = table_sets::changes(Some(before), after);
        let frame_replaces = (!have_the_same_frame(before, after)).then(|| frame_of(before));
        let sets = learned_sets(after);
        let same_programs = before.programs == after.programs;
        let same_dispatch = before.dispatch == after.dispatch && before.handover.is_some() == after.handover.is_some();
        let (former, wanted) = match same_programs && same_dispatch {
            true => (ChainsInUse::default(), ChainsInUse::default()),
            false => (ChainsInUse::of(before), ChainsInUse::of(after)),
        };
        if same_programs && former.are_those_of(&wanted) {
            return Self {
                sets,
                switch,
                frame_replaces,
                ..Self::default()
            };
        }
        let chains = wanted.beside(&former).map(|chains| written(chains, None)).collect();
        let gone_chains = former.beside(&wanted).flatten();
        let gone_chains: Vec<Arc<str>> = gone_chains.map(|chain| chain.name).collect();

        let former_sets = learned_sets(before);
        let new_sets = sets.difference(&former_sets).copied().collect();
        let gone_sets = former_sets.difference(&sets).map(|set| set.to_string().into());
        Self {
            removal: removal(&gone_chains, gone_sets),
            sets,
            new_sets,
            foundation: Vec::new(),
            new_chains: chains,
            switch,
            frame_replaces,
            foreign_removal: Vec::new(),
        }
    }

    /// The steps from whatever exists under our table's name. All rules are written anew, since
    /// objects with our names need not be ours. Sets that are [sound](Self::is_sound) stay, with
    /// their elements.
    pub(crate) fn onto(existing: &ExistingObjects, after: &DesiredState) -> Self {
        let sets = learned_sets(after);
        let stands = |set: &&SetId| existing.sets.contains(&set.to_string());
        let new_sets = sets.iter().filter(|set| !stands(set)).copied().collect();
        let chains: Vec<Vec<ProgramChain>> = ChainsInUse::of(after).beside(&ChainsInUse::default()).collect();

        let mut foreign = existing.clone();
        for chain in chains.iter().flatten() {
            foreign.chains.remove(&*chain.name);
        }
        // What is cut stays so.
        for chain in cut_chains::chains() {
            foreign.chains.remove(chain);
        }
        for set in cut_chains::set_names() {
            foreign.sets.remove(&*set);
        }
        let mut foundation = vec![TableCommand::AddTable];
        let called = refusal::CHAINS.into_iter().chain(handover::CALLED);
        foundation.extend(called.map(|chain| TableCommand::AddChain(chain.into())));
        // Declared even if they exist: that restores their limits.
        for (name, form) in table_sets::forms() {
            foreign.sets.remove(&*name);
            foundation.push(TableCommand::AddSet(name, form));
        }
        for set in sets.iter().filter(stands) {
            let name = set.to_string();
            foreign.sets.remove(&name);
            foundation.push(TableCommand::AddSet(name.into(), form(set, after.capacity.get())));
        }
        // Foreign objects are deleted in a transaction of their own, after the frame: the kernel
        // hides the elements of a set that it deletes from packets that are still in the former
        // rules, and such a packet would pass. Our own hooks, which no set refers to, are deleted
        // with the frame, so that nothing is intercepted twice.
        let mut frame = super::frame_chains(after);
        let hooks = base::hooks()
            .chain(closed_chains::hooks())
            .chain(interception::hooks())
            .chain(handover::hooks());
        frame.extend(hooks);
        let foreign_chains: Vec<Arc<str>> = foreign
            .chains
            .difference(&frame)
            .map(|name| name.as_str().into())
            .collect();
        let foreign_sets = std::mem::take(&mut foreign.sets);
        foreign.chains.retain(|name| frame.contains(name));
        Self {
            foreign_removal: removal(&foreign_chains, foreign_sets.iter().map(|name| name.as_str().into())),
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

    /// Whether the existing objects can be changed into the desired ones: each of our names is that
    /// of a set with our declaration, of a chain with our hook, or of nothing.
    pub(crate) fn is_sound(existing: &TableSnapshot, after: &DesiredState) -> bool {
        let is_set = |(name, (shape, _)): (String, (SetShape, SetLimits))| {
            existing.sets.get(&name).is_none_or(|stands| stands.shape == shape)
        };
        let frame = super::frame_forms(after);
        let hook = |name: &String| frame.get(name).and_then(|form| form.hook.as_ref());
        let has_place = |(name, chain): (&String, &table_snapshot::ChainInfo)| chain.hook.as_ref() == hook(name);
        let is_ours = |name: &str| frame.contains_key(name) || chain_names::is_of_program(name);
        set_forms(after).into_iter().all(is_set)
            && existing.chains.iter().filter(|(name, _)| is_ours(name)).all(has_place)
    }

    /// The chains of programs that the change writes, with the number of their rules.
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

    /// The transactions that come first. Nothing refers yet to what they make.
    pub(crate) fn preparations(
        &self,
        mut fills: BTreeMap<SetId, Vec<NewElement>>,
        capacity: u32,
    ) -> Vec<Vec<TableCommand>> {
        let sets = self.new_sets.iter().map(|set| {
            let name: Arc<str> = set.to_string().into();
            let limited = form(set, capacity);
            // Without a size at first: the kernel makes a table of buckets for as many elements as
            // the declaration of a new set names, 32 MiB for a million.
            let made = SetSpec {
                size: None,
                ..limited.clone()
            };
            let fill = fills
                .remove(set)
                .map(|elements| TableCommand::AddElements(Arc::clone(&name), elements));
            std::iter::once(TableCommand::AddSet(Arc::clone(&name), made))
                .chain(fill)
                .chain([TableCommand::LimitSet(name, limited)])
                .collect()
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

/// The learned sets of a desired state: those of its tiers, and those of tiers that stand for what
/// several share.
pub(crate) fn learned_sets(desired: &DesiredState) -> BTreeSet<SetId> {
    let evaluations = desired.programs.values().flat_map(|program| program.evaluations());
    let sets = evaluations.flat_map(|evaluation| {
        let classifier = &evaluation.classifier;
        let shared = classifier.shared().iter().map(|shared| (shared.id, &shared.layout));
        let names = classifier.shared_names().iter().map(|names| (names.id, &names.layout));
        let layouts = std::iter::once((evaluation.id, classifier.layout()));
        let layouts = layouts.chain(shared).chain(names);
        layouts.flat_map(|(id, layout)| {
            IpFamily::BOTH
                .into_iter()
                .flat_map(move |family| layout::sets(id, layout, family))
        })
    });
    sets.collect()
}

/// All sets of a desired state, as the kernel lists them.
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

/// The commands that write chains. The chains call none but each other, and chains that exist
/// already.
fn written(chains: Vec<ProgramChain>, existing: Option<&ExistingObjects>) -> Vec<TableCommand> {
    let names = chains
        .iter()
        .map(|chain| TableCommand::AddChain(Arc::clone(&chain.name)));
    let mut commands: Vec<TableCommand> = names.collect();
    // A part of a program is left where somebody else has deleted the rest.
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

/// The chains of a frame, as if they had been listed.
fn frame_of(desired: &DesiredState) -> ExistingObjects {
    ExistingObjects {
        table: true,
        chains: super::frame_chains(desired),
        sets: BTreeSet::new(),
    }
}

/// How often the kernel frees the elements of a learned set that have timed out; until then they
/// take memory but never match. The kernel goes through all elements for that: 30 ms of a processor
/// for 200,000. Its default of once a second is too often.
const SWEEP: Duration = Duration::from_secs(10);

/// The size with which a learned set is declared: twice the capacity, because elements that have
/// timed out count until the kernel collects them.
pub(crate) fn declared_size(capacity: u32) -> u32 {
    capacity.saturating_mul(2)
}

/// How a learned set is declared.
fn form(set: &SetId, capacity: u32) -> SetSpec {
    let address = Datatype::Address(set.family);
    SetSpec {
        key: match set.kind {
            SetKind::Exact => vec![address, Datatype::Protocol, Datatype::Port],
            SetKind::Range(_) | SetKind::All => vec![address],
        },
        maps_to: None,
        ranges: false,
        timeouts: true,
        swept: Some(SWEEP),
        size: Some(declared_size(capacity)),
        meter: None,
    }
}

#[cfg(test)]
mod tests;
