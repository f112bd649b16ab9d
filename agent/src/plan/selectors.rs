//! Every selector of every program, matched against a name at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use enforcer::Target;
use enforcer::layout::targets;
use policy::{Name, NameIndex, Pattern, PolicyId, Program, ProgramId};

/// The selectors, by the names that they match.
#[derive(Debug)]
pub(super) struct Selectors {
    index: NameIndex<usize>,
    doors: Vec<Door>,
}

/// One selector and everything that it opens or closes.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) pattern: Pattern,
    pub(super) targets: Vec<Target>,
    pub(super) policies: BTreeSet<PolicyId>,
}

impl Selectors {
    pub(super) fn new(programs: &BTreeMap<ProgramId, Arc<Program>>) -> Self {
        let (index, doors) = index(programs);
        Self { index, doors }
    }

    pub(super) fn any_match(&self, name: &Name) -> bool {
        self.index.any_match(name)
    }

    pub(super) fn each_match<'a>(&'a self, name: &Name, mut door: impl FnMut(&'a Door)) {
        self.index.each_match(name, |&position| door(&self.doors[position]));
    }
}

fn index(programs: &BTreeMap<ProgramId, Arc<Program>>) -> (NameIndex<usize>, Vec<Door>) {
    let mut doors: BTreeMap<&Pattern, (Vec<Target>, BTreeSet<PolicyId>)> = BTreeMap::new();
    for (id, program) in programs {
        for (pattern, target) in targets(*id, program) {
            doors.entry(pattern).or_default().0.push(target);
        }
        for rule in program.deny.names.iter().chain(&program.allow.names) {
            let (_, policies) = doors.entry(&rule.pattern).or_default();
            policies.extend(rule.origins.iter().map(|origin| origin.policy.clone()));
        }
    }
    let mut index = NameIndex::default();
    let doors = doors
        .into_iter()
        .enumerate()
        .map(|(position, (pattern, (targets, policies)))| {
            index.insert(pattern, position);
            Door {
                pattern: pattern.clone(),
                targets,
                policies,
            }
        })
        .collect();
    (index, doors)
}
