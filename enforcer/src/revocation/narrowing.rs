//! Whether a change may deny what was allowed, so that flows must be judged again. Pure.

use imbl::ordset::DiffItem;
use policy::Direction;
use policy::Verdict;

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
        || after.members.iter().any(|(tiers, members)| {
            let former = before.members.get(tiers);
            former.is_some_and(|former| closes_any(former, members))
        })
}

/// Whether an element was removed that lets packets through, or one added that refuses them.
fn closes_any(before: &ElementSet, after: &ElementSet) -> bool {
    let allows = |element: &Element| element.set.class.verdict() == Verdict::Allow;
    before.diff(after).any(|item| match item {
        DiffItem::Add(element) => !allows(element),
        DiffItem::Remove(element) => allows(element),
    })
}
