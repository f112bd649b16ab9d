//! Whether a change may deny what was allowed, so that flows must be judged again. Pure.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};

use imbl::ordset::DiffItem;
use policy::{Direction, ProgramId, Verdict};

use crate::desired::{DesiredState, ElementSet};
use crate::layout::Element;

/// Whether flows that `before` allowed may be denied by `after`. An endpoint that ceases to be
/// governed, or an address that only opens more, is no reason to look at a flow.
pub fn may_deny_more(before: &DesiredState, after: &DesiredState) -> bool {
    let same_surroundings =
        (&before.cluster, &before.host, before.local_host) == (&after.cluster, &after.host, after.local_host);
    !same_surroundings
        || Direction::BOTH.into_iter().any(|direction| {
            let former = &before.dispatch[direction];
            let mut now = after.dispatch[direction].iter();
            now.any(|(address, program)| former.get(address) != Some(program))
        })
        || members_deny_more(before, after)
}

/// Whether the addresses of objects may deny more, in programs that stay: by the class of an
/// element, or, in tiers that are shared, by what the programs say that share them.
fn members_deny_more(before: &DesiredState, after: &DesiredState) -> bool {
    // Shared verdicts take a look at each program, and most changes of objects concern no members.
    let shared = LazyCell::new(|| shared_verdicts(after));
    let says = |element: &Element, verdict: Verdict| match shared.get(&element.set.program) {
        Some(verdicts) => verdicts.contains(&verdict),
        None => element.set.class.verdict() == verdict,
    };
    after.members.iter().any(|(tiers, members)| {
        let former = before.members.get(tiers);
        former.is_some_and(|former| !former.ptr_eq(members) && closes_any(former, members, says))
    })
}

/// What programs say of the members of the rules that they share, by the tiers that hold these.
fn shared_verdicts(desired: &DesiredState) -> BTreeMap<ProgramId, BTreeSet<Verdict>> {
    let mut verdicts: BTreeMap<ProgramId, BTreeSet<Verdict>> = BTreeMap::new();
    let tiers = desired.programs.values().flat_map(|program| program.evaluations());
    for shared in tiers.flat_map(|tiers| tiers.classifier.shared()) {
        verdicts.entry(shared.id).or_default().insert(shared.class.verdict());
    }
    verdicts
}

/// Whether an element was removed that lets packets through, or one added that refuses them.
fn closes_any(before: &ElementSet, after: &ElementSet, says: impl Fn(&Element, Verdict) -> bool) -> bool {
    before.diff(after).any(|item| match item {
        DiffItem::Add(element) => says(element, Verdict::Deny),
        DiffItem::Remove(element) => says(element, Verdict::Allow),
    })
}
