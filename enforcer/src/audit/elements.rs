//! What sets hold.

use std::collections::BTreeMap;
use std::time::Duration;

use fqdn_cache::Time;

use super::{Damage, DamageKind};
use crate::layout::ElementKey;
use crate::netlink::objects::Value;
use crate::netlink::structure::Entry;

/// By so much the end of an element may be another than the book says: clocks tick, and a dump takes its time.
const IMPRECISION: Duration = Duration::from_millis(500);

/// How a set of the whole table differs from what it should hold.
pub(crate) fn of_table_set(
    set: &str,
    should: &BTreeMap<Entry, Option<Value>>,
    holds: &BTreeMap<Entry, Option<Value>>,
) -> Option<Damage> {
    let missing = should.iter().filter(|(entry, value)| holds.get(entry) != Some(value));
    let foreign = holds.keys().filter(|entry| !should.contains_key(entry));
    told(set, missing.count(), foreign.count())
}

/// What the book says of an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Believed {
    /// It has no end.
    Kept,
    /// It is there until `end` for certain, and until `gone` at most.
    Leased { end: Time, gone: Time },
}

/// What has to be done to an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mend {
    /// Written anew: it is missing, or has another end.
    Write,
    /// Deleted: nobody has put it there.
    Delete,
    /// Taken into the book, with the time that it has left: another agent has put it there.
    Adopt(Option<Duration>),
}

/// How a learned set differs from the book at `now`; ordered. `in_company`: another agent writes to it too.
pub(crate) fn of_learned_set(
    believed: &BTreeMap<ElementKey, Believed>,
    holds: &BTreeMap<ElementKey, Option<Duration>>,
    now: Time,
    in_company: bool,
) -> Vec<(ElementKey, Mend)> {
    let mut mends = Vec::new();
    for (key, believed) in believed {
        let is_right = match (believed, holds.get(key)) {
            (Believed::Kept, Some(left)) => left.is_none(),
            (Believed::Kept, None) => false,
            // Another agent may have lengthened it.
            (Believed::Leased { .. }, Some(None)) => in_company,
            (Believed::Leased { end, gone }, Some(Some(left))) => {
                let until = now + *left;
                until + IMPRECISION >= *end && (in_company || until <= *gone + IMPRECISION)
            }
            // It may have ended.
            (Believed::Leased { end, .. }, None) => *end <= now + IMPRECISION,
        };
        if !is_right {
            mends.push((*key, Mend::Write));
        }
    }
    let foreign = holds.iter().filter(|(key, _)| !believed.contains_key(key));
    mends.extend(foreign.map(|(key, left)| match in_company {
        true => (*key, Mend::Adopt(*left)),
        false => (*key, Mend::Delete),
    }));
    mends.sort_unstable();
    mends
}

/// What these say for people.
pub(crate) fn damage(set: &str, mends: &[(ElementKey, Mend)]) -> Option<Damage> {
    let count = |wanted: Mend| mends.iter().filter(|(_, mend)| *mend == wanted).count();
    told(set, count(Mend::Write), count(Mend::Delete))
}

fn told(set: &str, missing: usize, foreign: usize) -> Option<Damage> {
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
    use super::*;
    use crate::netlink::batch::Key;

    const NOW: Time = Time::from_millis(1_000_000);

    fn key(last: u8) -> ElementKey {
        ElementKey {
            address: [192, 0, 2, last].into(),
            port: None,
        }
    }

    fn leased(seconds: u64) -> Believed {
        let end = NOW + Duration::from_secs(seconds);
        Believed::Leased {
            end,
            gone: end + Duration::from_millis(60),
        }
    }

    fn left(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn a_learned_set_as_the_book_says_needs_nothing() {
        let believed = [(key(1), leased(10)), (key(2), Believed::Kept), (key(3), leased(0))].into();
        let holds = [(key(1), left(10)), (key(2), None)].into();
        assert_eq!(of_learned_set(&believed, &holds, NOW, false), []);
    }

    #[test]
    fn what_is_missing_or_has_another_end_is_written_and_what_is_foreign_deleted() {
        let believed = [
            (key(1), leased(10)),
            (key(2), Believed::Kept),
            (key(3), leased(10)),
            (key(4), leased(10)),
            (key(5), leased(10)),
            (key(6), Believed::Kept),
        ]
        .into();
        let holds = [
            (key(3), left(5)),
            (key(4), left(20)),
            (key(5), None),
            (key(6), left(10)),
            (key(7), left(10)),
        ]
        .into();
        let mends = of_learned_set(&believed, &holds, NOW, false);
        let write = (1..=6).map(|last| (key(last), Mend::Write));
        let expected: Vec<_> = write.chain([(key(7), Mend::Delete)]).collect();
        assert_eq!(mends, expected);
        let told = damage("s", &mends).unwrap();
        assert_eq!(
            told.what,
            "set s lacked 6 elements or held them otherwise, and held 1 of somebody else"
        );
    }

    #[test]
    fn what_another_agent_adds_or_lengthens_is_no_damage() {
        let believed = [(key(1), leased(10)), (key(2), leased(10))].into();
        let holds = [(key(1), left(20)), (key(3), left(30))].into();
        let mends = of_learned_set(&believed, &holds, NOW, true);
        assert_eq!(
            mends,
            [(key(2), Mend::Write), (key(3), Mend::Adopt(left(30)))],
            "what it has deleted is missing all the same"
        );
        assert_eq!(damage("s", &mends[1..]), None);
    }

    #[test]
    fn sets_of_the_table_are_compared_with_what_elements_are_mapped_to() {
        let entry = |last| Entry {
            key: Key::from_slice(&[last]),
            ends_range: false,
        };
        let value = |last| Some(Value::Data(Key::from_slice(&[last])));
        let should: BTreeMap<_, _> = [(entry(1), value(1)), (entry(2), value(2))].into();
        assert_eq!(of_table_set("m", &should, &should), None);
        let holds = [(entry(1), value(9)), (entry(3), value(3))].into();
        let damage = of_table_set("m", &should, &holds).unwrap();
        assert_eq!(
            damage.what,
            "set m lacked 2 elements or held them otherwise, and held 1 of somebody else"
        );
    }
}
