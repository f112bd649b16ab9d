//! Rules without effect, because others decide all traffic that they match.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::PerDirection;
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, DirectionSpec, PolicyRule, PolicySpec, Tier};

use super::containment::{cost, rule_in};
use super::context::{LintContext, LintedSpec};
use super::path_of;
use super::selector_index::SelectorIndex;

/// How many comparisons are left. Every rule is compared with every other, and hostile policies
/// have many.
pub(super) struct ComparisonBudget(usize);

impl ComparisonBudget {
    /// For one policy. The agent spends it at each change of a policy, so it is small.
    pub(super) fn of_one() -> Self {
        Self(200_000)
    }

    /// For all policies of a cluster, which only `namegate check` compares.
    fn of_many() -> Self {
        Self(5_000_000)
    }

    /// Whether `whole` certainly matches everything that `part` matches; false, too, once the
    /// budget does not suffice.
    pub(super) fn rule_in(&mut self, part: &PolicyRule, whole: &PolicyRule) -> bool {
        let cost = cost(part, whole);
        if cost > self.0 {
            return false;
        }
        self.0 -= cost;
        rule_in(part, whole)
    }
}

/// Warns of rules that another rule of the same spec makes superfluous.
pub(super) fn of_one(spec: &PolicySpec, budget: &mut ComparisonBudget, report: &mut DiagnosticReport<'_>) {
    for (_, spec) in spec.directions.iter().filter(|_| spec.tier != Tier::Network) {
        let rules = WrittenRule::of(spec);
        for (index, rule) in rules.iter().enumerate() {
            if let Some(earlier) = rule.decided_by(&rules[..index], budget) {
                report_shadowed(rule, earlier.path, "", earlier.action(), report);
            }
        }
    }
    for (_, spec) in spec.directions.iter().filter(|_| spec.tier == Tier::Network) {
        in_tier_network(spec, budget, report);
    }
}

/// In tier Network rules add up, and denials win.
fn in_tier_network(spec: &DirectionSpec, budget: &mut ComparisonBudget, report: &mut DiagnosticReport<'_>) {
    let denials: Vec<_> = spec.rules_that(Action::Deny).collect();
    let allowances: Vec<_> = spec.rules_that(Action::Allow).collect();
    for rules in [&allowances, &denials] {
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| has_effect(rule)) {
            let mut others = rules.iter().enumerate();
            // Of two equal rules, the second is the superfluous one.
            let by = others.find(|(other, whole)| {
                *other != index && budget.rule_in(rule, whole) && (*other < index || !budget.rule_in(whole, rule))
            });
            if let Some((_, by)) = by {
                report_superfluous(rule, by, report);
            }
        }
    }
    for rule in allowances.into_iter().filter(|rule| has_effect(rule)) {
        // `lint::names` reports denied names one by one.
        if matches!(rule.peers, PeerSelector::Names(_)) {
            continue;
        }
        if let Some(by) = denials.iter().find(|denial| budget.rule_in(rule, denial)) {
            report
                .warning(
                    "denied-rule",
                    path_of(&rule.origin),
                    format!(
                        "{} denies everything that this rule allows, and a denial wins",
                        path_of(&by.origin)
                    ),
                )
                .suggest("take the rule out, or make the denial narrower");
        }
    }
}

/// Warns of rules of ClusterNetworkPolicies all of whose traffic an earlier policy decides.
pub(super) fn of_many(context: &LintContext<'_>, reports: &mut [DiagnosticReport<'_>]) {
    let mut budget = ComparisonBudget::of_many();
    let mut linted: Vec<&LintedSpec<'_>> = context.specs.iter().collect();
    linted.retain(|linted| linted.spec.tier != Tier::Network && !linted.is_audited);
    linted.sort_by_key(|linted| (linted.spec.tier, linted.id));
    let rules: Vec<PerDirection<Vec<WrittenRule<'_>>>> = linted
        .iter()
        .map(|linted| PerDirection::from_fn(|direction| WrittenRule::of(&linted.spec.directions[direction])))
        .collect();
    let subjects = SelectorIndex::new(linted.iter().map(|linted| &linted.spec.subject));
    for (index, later) in linted.iter().enumerate() {
        let mut before = subjects.containing(&later.spec.subject);
        before.retain(|earlier| *earlier < index && is_admin(linted[*earlier]) == is_admin(later));
        let of_both = rules[index].iter();
        for (direction, rule) in of_both.flat_map(|(direction, rules)| rules.iter().map(move |rule| (direction, rule)))
        {
            let mut before = before.iter().copied();
            let found = before.find_map(|earlier| {
                let by = rule.decided_by(&rules[earlier][direction], &mut budget)?;
                Some((linted[earlier], by))
            });
            if let Some((earlier, by)) = found {
                let whose = format!(" of {}", earlier.label());
                report_shadowed(rule, by.path, &whose, by.action(), &mut reports[later.policy]);
            }
        }
    }
}

fn is_admin(linted: &LintedSpec<'_>) -> bool {
    matches!(linted.spec.tier, Tier::Admin { .. })
}

/// A rule of a ClusterNetworkPolicy as it was written. One with names and other peers was read as
/// two rules, which are its parts here.
struct WrittenRule<'a> {
    path: &'a str,
    parts: Vec<&'a PolicyRule>,
}

impl<'a> WrittenRule<'a> {
    fn of(spec: &'a DirectionSpec) -> Vec<Self> {
        let mut rules: Vec<Self> = Vec::new();
        for rule in &spec.rules {
            let path = path_of(&rule.origin);
            match rules.last_mut().filter(|last| last.path == path) {
                Some(last) => last.parts.push(rule),
                None => rules.push(Self {
                    path,
                    parts: vec![rule],
                }),
            }
        }
        rules
    }

    fn action(&self) -> Option<Action> {
        self.parts.first().map(|part| part.action)
    }

    /// The first earlier rule that decides all traffic which this one matches.
    fn decided_by<'r>(
        &self,
        earlier: &'r [WrittenRule<'a>],
        budget: &mut ComparisonBudget,
    ) -> Option<&'r WrittenRule<'a>> {
        if !self.parts.iter().all(|part| has_effect(part)) {
            return None;
        }
        earlier.iter().find(|earlier| {
            let mut parts = self.parts.iter();
            parts.all(|part| earlier.parts.iter().any(|whole| budget.rule_in(part, whole)))
        })
    }
}

fn report_shadowed(
    rule: &WrittenRule<'_>,
    by: &str,
    whose: &str,
    action: Option<Action>,
    report: &mut DiagnosticReport<'_>,
) {
    let what = match action {
        Some(Action::Allow) | None => "accepts",
        Some(Action::Deny) => "denies",
        Some(Action::Pass) => "passes on",
    };
    let reason =
        format!("{by}{whose} comes first and {what} everything that this rule speaks of, so it is never reached");
    report
        .warning("shadowed-rule", rule.path, reason)
        .suggest("put it before that rule, make that rule narrower, or take this one out");
}

fn report_superfluous(rule: &PolicyRule, by: &PolicyRule, report: &mut DiagnosticReport<'_>) {
    let verb = match rule.action {
        Action::Deny => "denies",
        Action::Allow | Action::Pass => "allows",
    };
    let path = path_of(&rule.origin);
    let reason = format!("{} {verb} everything that this rule {verb}", path_of(&by.origin));
    report
        .warning("shadowed-rule", path, reason)
        .suggest("take it out, or make the other one narrower if less is meant");
}

/// Whether a rule does nothing but match some traffic. One with DNS rules also lets names be asked,
/// so that it is needed even where its traffic is decided before; and one that looks into
/// connections is compared by `lint::l7`.
fn has_effect(rule: &PolicyRule) -> bool {
    let has_peers = match &rule.peers {
        PeerSelector::Names(names) => !names.is_empty(),
        PeerSelector::Prefixes(prefixes) => !prefixes.is_empty(),
        PeerSelector::Objects(objects) => !objects.is_empty(),
        PeerSelector::Unresolved => false,
    };
    has_peers && rule.dns.is_empty() && rule.inspected.is_empty() && !(rule.ports.is_empty() && rule.named.is_empty())
}
