//! Every rule about names of every program, matched against a name at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer::Element;
use enforcer::layout::{self, ElementTemplate};
use names::{Name, NameIndex, Pattern};
use policy::address::ZoneMap;
use policy::classifier::{Classifier, RuleIndex};
use policy::{LeaseTerms, PolicyId, ProgramId};
use smallvec::SmallVec;

use super::evaluated_tiers::EvaluatedTiers;

/// The selectors, by the names that they match.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    index: NameIndex<usize>,
    selectors: Vec<Selector>,
    have_terms: bool,
    /// The tiers that they are of: classifiers by their places.
    classifiers: Vec<(ProgramId, Arc<Classifier>)>,
}

/// A name that an answer teaches, with the selectors that match it.
#[derive(Debug)]
pub struct MatchedName<'a> {
    /// The name.
    pub name: &'a Name,
    selectors: SmallVec<[&'a Selector; 4]>,
}

impl<'a> MatchedName<'a> {
    /// Every rule that selects it.
    pub(super) fn rules(&self) -> impl Iterator<Item = &'a SelectingRule> {
        self.selectors.iter().flat_map(|selector| &selector.rules)
    }
}

/// One pattern, and every rule that has it.
#[derive(Debug)]
pub(super) struct Selector {
    pub(super) pattern: Pattern,
    pub(super) rules: Vec<SelectingRule>,
    pub(super) policies: BTreeSet<PolicyId>,
}

/// A rule about names of one evaluation.
#[derive(Debug, Clone)]
pub(super) struct SelectingRule {
    /// The id of its tiers, and their place among the plan's.
    pub(super) tiers: (ProgramId, usize),
    pub(super) rule: RuleIndex,
    pub(super) lease: LeaseTerms,
    /// Its elements, where they are the same for every address.
    prepared: Option<Box<[ElementTemplate]>>,
}

impl SelectingRule {
    /// What an address opens or closes that such a name resolves to.
    pub(super) fn elements(
        &self,
        evaluations: &[Arc<EvaluatedTiers>],
        address: IpAddr,
        places: &ZoneMap,
        element: impl FnMut(Element),
    ) {
        match &self.prepared {
            Some(prepared) => prepared
                .iter()
                .filter_map(|target| target.element(address))
                .for_each(element),
            None => {
                if let Some(evaluation) = evaluations.get(self.tiers.1) {
                    evaluation.learned(self.rule, address, places, element);
                }
            }
        }
    }
}

impl Selectors {
    pub(super) fn new(evaluations: &[Arc<EvaluatedTiers>]) -> Self {
        let mut by_pattern: BTreeMap<&Pattern, (Vec<SelectingRule>, BTreeSet<PolicyId>)> = BTreeMap::new();
        for (place, evaluation) in evaluations.iter().enumerate() {
            for (rule, pattern) in evaluation.classifier.name_rules() {
                let (rules, policies) = by_pattern.entry(pattern).or_default();
                let written = &evaluation.classifier.rules()[rule];
                policies.extend(written.origins.iter().map(|origin| origin.policy.clone()));
                // The tiers that have these names alone are among the evaluations too.
                if evaluation.classifier.is_covered(rule) {
                    continue;
                }
                rules.push(SelectingRule {
                    tiers: (evaluation.id, place),
                    rule,
                    lease: written.lease,
                    prepared: layout::prepared(evaluation.id, &evaluation.classifier, rule),
                });
            }
        }
        let mut index = NameIndex::default();
        let mut selectors = Vec::with_capacity(by_pattern.len());
        for (pattern, (rules, policies)) in by_pattern {
            index.insert(pattern, selectors.len());
            selectors.push(Selector {
                pattern: pattern.clone(),
                rules,
                policies,
            });
        }
        let terms = selectors
            .iter()
            .flat_map(|selector| &selector.rules)
            .map(|rule| rule.lease);
        let have_terms = terms.into_iter().any(|terms| terms != LeaseTerms::default());
        Self {
            index,
            selectors,
            have_terms,
            classifiers: evaluations
                .iter()
                .map(|it| (it.id, Arc::clone(&it.classifier)))
                .collect(),
        }
    }

    /// Whether they are those of these tiers, in this order.
    pub(super) fn are_of(&self, evaluations: &[Arc<EvaluatedTiers>]) -> bool {
        let is_same = |((id, classifier), now): (&(ProgramId, Arc<Classifier>), &Arc<EvaluatedTiers>)| {
            *id == now.id && Arc::ptr_eq(classifier, &now.classifier)
        };
        self.classifiers.len() == evaluations.len() && self.classifiers.iter().zip(evaluations).all(is_same)
    }

    /// Whether some rule says something of leases.
    pub(super) fn have_terms(&self) -> bool {
        self.have_terms
    }

    /// The selectors that match a name, if any do.
    pub(super) fn matched<'a>(&'a self, name: &'a Name) -> Option<MatchedName<'a>> {
        let mut selectors = SmallVec::new();
        self.each_match(name, |selector| selectors.push(selector));
        (!selectors.is_empty()).then_some(MatchedName { name, selectors })
    }

    pub(super) fn each_match<'a>(&'a self, name: &Name, mut selector: impl FnMut(&'a Selector)) {
        self.index
            .each_match(name, |&position| selector(&self.selectors[position]));
    }
}
