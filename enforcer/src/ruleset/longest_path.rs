//! Counts the lookups that a packet costs, in the chains that are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{Direction, ProgramId};

use crate::desired::{DesiredState, KernelProgram};
use crate::layout::IpFamily;
use crate::netlink::objects::{NftRule, NftVerdict, RuleLookup, RuleMatch};

use super::chain_names;
use super::program_chains::{self, ProgramChain};

/// The most lookups that a packet costs in the chains of a program. They are as many in both
/// directions.
pub fn longest_path(program: &KernelProgram) -> usize {
    let of_direction = |direction| {
        let id = ProgramId(0);
        let audited = program.audited.iter();
        let audited = audited.flat_map(|audited| program_chains::audit_chains(direction, audited));
        let chains = program_chains::chains(direction, id, program)
            .into_iter()
            .chain(audited);
        longest(chains, |family| chain_names::program(direction, id, family))
    };
    Direction::BOTH.into_iter().map(of_direction).max().unwrap_or(0)
}

/// The most lookups that the first packet of a connection costs in the chains that tell whether it
/// is handed over, which come before those of [`longest_path`]. 0 where nothing is.
pub fn longest_handover_path(program: &KernelProgram) -> usize {
    if !program.inspects() {
        return 0;
    }
    let (direction, id) = (Direction::Egress, ProgramId(0));
    let chains = program_chains::handover_chains(direction, id, program).into_iter();
    longest(chains, |family| chain_names::handover(direction, id, family))
}

fn longest(chains: impl Iterator<Item = ProgramChain>, first: impl Fn(IpFamily) -> String) -> usize {
    let chains: BTreeMap<Arc<str>, Vec<NftRule>> = chains.map(|chain| (chain.name, chain.rules)).collect();
    let of_family = |family| path(&chains, &first(family));
    IpFamily::BOTH.into_iter().map(of_family).max().unwrap_or(0)
}

/// The most lookups that the first packet of a flow costs that the programs of both its ends
/// decide: one that finds each program, and those in the programs.
pub fn longest_path_of_both_ends(desired: &DesiredState) -> usize {
    let of_direction = |direction| {
        let programs = desired.programs_of(direction);
        let programs = programs.values();
        programs.map(|program| 1 + longest_path(program)).max().unwrap_or(1)
    };
    Direction::BOTH.into_iter().map(of_direction).sum()
}

fn lookups(test: &RuleMatch) -> Vec<&RuleLookup> {
    match test {
        RuleMatch::In(_, lookup) => vec![lookup],
        RuleMatch::Each(tests) => tests.iter().flat_map(lookups).collect(),
        RuleMatch::Always | RuleMatch::Is(_) | RuleMatch::IsTo(_) | RuleMatch::Established | RuleMatch::Related => {
            Vec::new()
        }
    }
}

fn path(chains: &BTreeMap<Arc<str>, Vec<NftRule>>, name: &str) -> usize {
    let beyond = |verdict: &NftVerdict| match verdict {
        NftVerdict::Accept | NftVerdict::Drop | NftVerdict::Return => 0,
        NftVerdict::Goto(chain) => path(chains, chain),
    };
    let (mut so_far, mut longest) = (0, 0);
    for rule in chains.get(name).into_iter().flatten() {
        let mut verdicts: Vec<&NftVerdict> = rule.verdict.iter().collect();
        for lookup in lookups(&rule.test) {
            so_far += 1;
            if let RuleLookup::Verdicts(pairs) = lookup {
                verdicts.extend(pairs.iter().map(|(_, verdict)| verdict));
            }
        }
        let behind = verdicts.into_iter().map(beyond).max().unwrap_or(0);
        longest = longest.max(so_far + behind);
    }
    longest.max(so_far)
}
