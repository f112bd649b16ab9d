//! Compares the elements of sets.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Time;

use crate::netlink::objects::MapValue;
use crate::netlink::table_snapshot::RawElement;

use super::{Damage, DamageKind};

/// The end of an element may differ from the mirror's by so much: clocks tick, and a dump takes
/// time.
const IMPRECISION: Duration = Duration::from_millis(500);

/// The damage of a set of the whole table.
pub(crate) fn table_set_damage(
    set: &str,
    should: &BTreeMap<RawElement, Option<MapValue>>,
    holds: &BTreeMap<RawElement, Option<MapValue>>,
) -> Option<Damage> {
    let missing = should.iter().filter(|(entry, value)| holds.get(entry) != Some(value));
    let foreign = holds.keys().filter(|entry| !should.contains_key(entry));
    damage_of(set, missing.count(), foreign.count())
}

/// What the mirror says of an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedElement {
    /// It has no timeout.
    Permanent,
    /// The kernel holds it until `end` at least, and until `gone` at most.
    Leased { end: Time, gone: Time },
}

impl ExpectedElement {
    /// Whether nothing relies on the element any more.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        matches!(self, Self::Leased { end, .. } if *end <= now)
    }
}

/// How an element of a learned set is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementRepair {
    /// It is written anew, because it is missing or has another end.
    Write,
    /// It is deleted, because no agent has added it.
    Delete,
    /// It is entered into the mirror with its remaining time, because another agent has added it.
    Adopt(Option<Duration>),
}

/// How an element of a learned set is repaired, if it must be. `holds` is what the kernel says of
/// it: nothing, or its remaining time at some moment of `seen` (`None`: no timeout). `has_others`:
/// another agent writes to the set too.
pub(crate) fn repair(
    expected: Option<ExpectedElement>,
    holds: Option<Option<Duration>>,
    seen: (Time, Time),
    has_others: bool,
) -> Option<ElementRepair> {
    let Some(expected) = expected else {
        return holds.map(|left| match has_others {
            true => ElementRepair::Adopt(left),
            false => ElementRepair::Delete,
        });
    };
    let is_right = match (expected, holds) {
        (ExpectedElement::Permanent, holds) => holds == Some(None),
        // Another agent may have removed its timeout.
        (ExpectedElement::Leased { .. }, Some(None)) => has_others,
        (ExpectedElement::Leased { end, gone }, Some(Some(left))) => {
            let (earliest, latest) = (seen.0 + left, seen.1 + left);
            latest + IMPRECISION >= end && (has_others || earliest <= gone + IMPRECISION)
        }
        // It may have timed out.
        (ExpectedElement::Leased { end, .. }, None) => end <= seen.1 + IMPRECISION,
    };
    (!is_right).then_some(ElementRepair::Write)
}

/// The damage of a learned set, by how many elements had to be written and deleted.
pub(crate) fn learned_set_damage(set: &str, written: usize, deleted: usize) -> Option<Damage> {
    damage_of(set, written, deleted)
}

fn damage_of(set: &str, missing: usize, foreign: usize) -> Option<Damage> {
    let what = match (missing, foreign) {
        (0, 0) => return None,
        (missing, 0) => format!("set {set} lacked {missing} elements or held them otherwise"),
        (0, foreign) => format!("set {set} held {foreign} elements of somebody else"),
        (missing, foreign) => {
            format!("set {set} lacked {missing} elements or held them otherwise, and held {foreign} of somebody else")
        }
    };
    Some(Damage::new(DamageKind::Elements, what))
}

#[cfg(test)]
mod tests {
    use crate::netlink::set_key::SetKey;

    use super::*;

    const NOW: Time = Time::from_millis(1_000_000);

    fn leased(seconds: u64) -> Option<ExpectedElement> {
        let end = NOW + Duration::from_secs(seconds);
        let gone = end + Duration::from_millis(60);
        Some(ExpectedElement::Leased { end, gone })
    }

    fn left(seconds: u64) -> Option<Option<Duration>> {
        Some(Some(Duration::from_secs(seconds)))
    }

    const KEPT: Option<ExpectedElement> = Some(ExpectedElement::Permanent);
    const WITHOUT_END: Option<Option<Duration>> = Some(None);

    fn alone(expected: Option<ExpectedElement>, holds: Option<Option<Duration>>) -> Option<ElementRepair> {
        repair(expected, holds, (NOW, NOW), false)
    }

    #[test]
    fn elements_as_the_mirror_says_need_nothing() {
        for (expected, holds) in [
            (leased(10), left(10)),
            (KEPT, WITHOUT_END),
            (leased(0), None),
            (None, None),
        ] {
            assert_eq!(alone(expected, holds), None, "{expected:?} {holds:?}");
        }
        // A dump of a large set takes seconds, in which the time that is left grows shorter.
        let seen = (NOW, NOW + Duration::from_secs(3));
        for seconds in 7..=10 {
            assert_eq!(repair(leased(10), left(seconds), seen, false), None);
        }
        assert_eq!(repair(leased(10), left(6), seen, false), Some(ElementRepair::Write));
    }

    #[test]
    fn what_is_missing_or_has_another_end_is_written_and_what_is_foreign_deleted() {
        for (expected, holds) in [
            (leased(10), None),
            (KEPT, None),
            (leased(10), left(5)),
            (leased(10), left(20)),
            (leased(10), WITHOUT_END),
            (KEPT, left(10)),
        ] {
            assert_eq!(
                alone(expected, holds),
                Some(ElementRepair::Write),
                "{expected:?} {holds:?}"
            );
        }
        assert_eq!(alone(None, left(10)), Some(ElementRepair::Delete));
        assert_eq!(alone(None, WITHOUT_END), Some(ElementRepair::Delete));
    }

    #[test]
    fn what_the_kernel_holds_longer_than_its_lease_is_no_damage_and_neither_is_its_deletion() {
        let lingers = |seconds| {
            let end = NOW + Duration::from_secs(seconds);
            let gone = end + Duration::from_millis(5_060);
            Some(ExpectedElement::Leased { end, gone })
        };
        assert_eq!(alone(lingers(10), left(15)), None);
        assert_eq!(alone(lingers(0), left(5)), None);
        assert_eq!(alone(lingers(0), None), None, "it is over");
        assert_eq!(
            alone(lingers(10), left(9)),
            Some(ElementRepair::Write),
            "shorter than its lease"
        );
        assert_eq!(alone(lingers(10), left(17)), Some(ElementRepair::Write));
    }

    #[test]
    fn what_another_agent_adds_or_lengthens_is_no_damage() {
        let has_others = |expected, holds| repair(expected, holds, (NOW, NOW), true);
        assert_eq!(has_others(leased(10), left(20)), None);
        assert_eq!(has_others(leased(10), WITHOUT_END), None);
        assert_eq!(
            has_others(None, left(30)),
            Some(ElementRepair::Adopt(Some(Duration::from_secs(30))))
        );
        assert_eq!(
            has_others(leased(10), None),
            Some(ElementRepair::Write),
            "what it has deleted is missing all the same"
        );
    }

    #[test]
    fn sets_of_the_table_are_compared_with_what_elements_are_mapped_to() {
        let entry = |last| RawElement {
            key: SetKey::from_slice(&[last]),
            ends_range: false,
        };
        let value = |last| Some(MapValue::Data(SetKey::from_slice(&[last])));
        let should: BTreeMap<_, _> = [(entry(1), value(1)), (entry(2), value(2))].into();
        assert_eq!(table_set_damage("m", &should, &should), None);
        let holds = [(entry(1), value(9)), (entry(3), value(3))].into();
        let damage = table_set_damage("m", &should, &holds).unwrap();
        assert_eq!(
            damage.what,
            "set m lacked 2 elements or held them otherwise, and held 1 of somebody else"
        );
    }
}
