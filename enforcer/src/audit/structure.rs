//! Compares the table, its chains with their rules, and its sets.
//!
//! Only our own objects are compared. A chain that somebody has added decides nothing of ours: no
//! rule of ours leads there, and a chain that hooks in beside ours could as well be in another
//! table.

use std::collections::{BTreeMap, BTreeSet};

use crate::netlink::nf_tables;
use crate::netlink::table_snapshot::{SetLimits, SetShape, TableSnapshot};

use super::{Damage, DamageKind};

/// What our own transactions have made, as far as the kernel can be asked for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct WrittenObjects {
    /// The chains, with the number of their rules.
    pub(crate) chains: BTreeMap<String, usize>,
    /// The sets, as they were declared.
    pub(crate) sets: BTreeMap<String, (SetShape, SetLimits)>,
}

/// A snapshot without the objects that are not ours.
pub(crate) fn ours(written: &WrittenObjects, mut found: TableSnapshot) -> TableSnapshot {
    found.chains.retain(|name, _| written.chains.contains_key(name));
    found.sets.retain(|name, _| written.sets.contains_key(name));
    found
}

/// The damage in the snapshot `found`. Objects that were in the snapshot `before` must be the same
/// still, except for the `rewritten` chains.
pub(crate) fn damage(
    written: &WrittenObjects,
    before: Option<&TableSnapshot>,
    rewritten: &BTreeSet<String>,
    found: &TableSnapshot,
) -> Vec<Damage> {
    let Some(table) = found.table else {
        return vec![Damage::new(DamageKind::Table, "the table was removed")];
    };
    let former = before.and_then(|before| before.table);
    let mut damage = Vec::new();
    if table.flags & nf_tables::TABLE_DORMANT != 0 {
        damage.push(Damage::new(DamageKind::Table, "the table was put to sleep (dormant)"));
    } else if former.is_some_and(|former| former.handle != table.handle) {
        damage.push(Damage::new(DamageKind::Table, "the table was replaced"));
    }
    for (name, count) in &written.chains {
        let former = before.and_then(|before| before.chains.get(name));
        let former = former.filter(|_| !rewritten.contains(name));
        let (kind, what) = match (found.chains.get(name), former) {
            (None, _) => (DamageKind::Chain, format!("chain {name} was removed")),
            (Some(now), Some(former)) if (now.handle, &now.hook) != (former.handle, &former.hook) => {
                (DamageKind::Chain, format!("chain {name} was replaced"))
            }
            (Some(now), Some(former)) if now.policy != former.policy => {
                (DamageKind::Chain, format!("the policy of chain {name} was changed"))
            }
            (Some(now), former) => {
                let differs = former.is_some_and(|former| former.rules != now.rules);
                if !differs && now.rules.len() == *count {
                    continue;
                }
                let what = format!("rules of chain {name} were changed ({} of {count})", now.rules.len());
                (DamageKind::Rules, what)
            }
        };
        damage.push(Damage::new(kind, what));
    }
    for (name, (shape, limits)) in &written.sets {
        let former = before.and_then(|before| before.sets.get(name));
        let what = match found.sets.get(name) {
            None => "was removed",
            Some(now) if now.shape != *shape || !are_kept(limits, &now.limits) => "is declared otherwise",
            Some(now) if former.is_some_and(|former| former.handle != now.handle) => "was replaced",
            Some(_) => continue,
        };
        damage.push(Damage::new(DamageKind::Set, format!("set {name} {what}")));
    }
    damage
}

/// Whether a set has the limits that were declared. A kernel before 6.5 leaves a set without the
/// size that is declared after it was made; nobody else can take it off.
fn are_kept(declared: &SetLimits, found: &SetLimits) -> bool {
    let size = match found.size {
        0 => declared.size,
        size => size,
    };
    *declared == SetLimits { size, ..*found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::objects::HookInfo;
    use crate::netlink::table_snapshot::{ChainInfo, SetInfo, TableInfo};

    const SHAPE: SetShape = SetShape {
        flags: 0x10,
        key_type: 7,
        key_length: 4,
        data_type: 0,
        data_length: 0,
    };

    fn written() -> WrittenObjects {
        WrittenObjects {
            chains: [("forward".to_owned(), 2), ("refuse".to_owned(), 1)].into(),
            sets: [("s".to_owned(), (SHAPE, SetLimits::default()))].into(),
        }
    }

    fn stands() -> TableSnapshot {
        let forward = ChainInfo {
            handle: 1,
            hook: Some(HookInfo {
                number: 2,
                priority: 0,
                kind: "filter".into(),
            }),
            policy: Some(1),
            rules: vec![10, 11],
        };
        let refuse = ChainInfo {
            handle: 2,
            rules: vec![12],
            ..ChainInfo::default()
        };
        let set = SetInfo {
            handle: 3,
            shape: SHAPE,
            limits: SetLimits::default(),
        };
        TableSnapshot {
            table: Some(TableInfo { handle: 5, flags: 0 }),
            chains: [("forward".to_owned(), forward), ("refuse".to_owned(), refuse)].into(),
            sets: [("s".to_owned(), set)].into(),
        }
    }

    fn found(change: impl FnOnce(&mut TableSnapshot)) -> Vec<(DamageKind, String)> {
        let mut found = stands();
        change(&mut found);
        let damage = damage(&written(), Some(&stands()), &BTreeSet::new(), &found);
        damage.into_iter().map(|damage| (damage.kind, damage.what)).collect()
    }

    fn one(kind: DamageKind, what: &str) -> Vec<(DamageKind, String)> {
        vec![(kind, what.to_owned())]
    }

    #[test]
    fn what_is_as_it_was_written_is_no_damage_and_neither_is_what_is_not_ours() {
        assert_eq!(found(|_| {}), []);
        let foreign = found(|found| {
            found.chains.insert("guard".into(), ChainInfo::default());
        });
        assert_eq!(foreign, []);
    }

    #[test]
    fn a_table_that_is_gone_replaced_or_asleep_is_noticed() {
        assert_eq!(
            found(|found| *found = TableSnapshot::default()),
            one(DamageKind::Table, "the table was removed")
        );
        assert_eq!(
            found(|found| found.table = Some(TableInfo { handle: 6, flags: 0 })),
            one(DamageKind::Table, "the table was replaced")
        );
        assert_eq!(
            found(|found| found.table = Some(TableInfo { handle: 5, flags: 1 })),
            one(DamageKind::Table, "the table was put to sleep (dormant)")
        );
    }

    #[test]
    fn rules_that_were_removed_added_replaced_or_moved_are_noticed() {
        for rules in [vec![], vec![10], vec![10, 11, 13], vec![10, 13], vec![11, 10]] {
            let what = format!("rules of chain forward were changed ({} of 2)", rules.len());
            let damage = found(|found| found.chains.get_mut("forward").unwrap().rules = rules);
            assert_eq!(damage, one(DamageKind::Rules, &what));
        }
    }

    #[test]
    fn chains_that_are_gone_or_others_are_noticed() {
        assert_eq!(
            found(|found| drop(found.chains.remove("refuse"))),
            one(DamageKind::Chain, "chain refuse was removed")
        );
        let unhooked = found(|found| found.chains.get_mut("forward").unwrap().hook = None);
        assert_eq!(unhooked, one(DamageKind::Chain, "chain forward was replaced"));
        let drops = found(|found| found.chains.get_mut("forward").unwrap().policy = Some(0));
        assert_eq!(drops, one(DamageKind::Chain, "the policy of chain forward was changed"));
    }

    #[test]
    fn sets_that_are_gone_replaced_or_declared_otherwise_are_noticed() {
        assert_eq!(
            found(|found| found.sets.clear()),
            one(DamageKind::Set, "set s was removed")
        );
        let replaced = found(|found| found.sets.get_mut("s").unwrap().handle = 9);
        assert_eq!(replaced, one(DamageKind::Set, "set s was replaced"));
        let small = found(|found| found.sets.get_mut("s").unwrap().limits.size = 1);
        assert_eq!(small, one(DamageKind::Set, "set s is declared otherwise"));
    }

    #[test]
    fn what_we_have_just_rewritten_may_differ_from_before_but_must_be_whole() {
        let mut now = stands();
        now.chains.get_mut("forward").unwrap().rules = vec![20, 21];
        let rewritten = BTreeSet::from(["forward".to_owned()]);
        assert_eq!(damage(&written(), Some(&stands()), &rewritten, &now), []);
        now.chains.get_mut("forward").unwrap().rules = vec![20, 21, 22];
        assert_eq!(damage(&written(), Some(&stands()), &rewritten, &now).len(), 1);
        assert_eq!(damage(&written(), None, &rewritten, &now).len(), 1);
    }
}
