//! What stands in the kernel × what should: what somebody else has changed. Pure.
//!
//! Nothing tells who changed a table. The kernel's notifications would, but it makes one for each
//! element of each transaction as soon as anybody listens, which costs a lookup that learns
//! something 1.6 µs an element, more than a quarter of its transaction. What costs nothing is the
//! number of the last transaction: our own are counted, so a number that is further on means that
//! somebody else has changed some table of this network namespace. Only then it is looked whether
//! ours is what it was ([`schedule`] says how often, so that whoever changes tables all the time
//! does not cost much).
//!
//! - [`structure`]: the table, chains, rules and sets, by handles that the kernel never gives
//!   again.
//! - [`elements`]: what sets hold: those of the whole table against what is desired, learned ones
//!   against the writer's book.
//! - [`sysctls`]: switches of the kernel, against what they were.
//! - [`schedule`]: when to look, when to repair.

pub(crate) mod elements;
pub(crate) mod schedule;
pub(crate) mod structure;
pub(crate) mod sysctls;

use std::fmt;
use std::time::Duration;

use clock::Time;

/// What kind of thing was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DamageKind {
    /// The table is gone, or asleep.
    Table,
    /// A chain is gone, or another one has its name.
    Chain,
    /// The rules of a chain are not those that were written.
    Rules,
    /// A set or map is gone, or declared otherwise.
    Set,
    /// A set or map lacks elements, or holds others.
    Elements,
    /// An address that the proxy listens on.
    Address,
    /// A routing rule or a route of mode tproxy.
    Route,
    /// A switch of the kernel that this relies on.
    Sysctl,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// Of what.
    pub kind: DamageKind,
    /// A few words for people.
    pub what: String,
}

/// What was repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What had been damaged.
    pub damage: Vec<Damage>,
    /// When it was in order again.
    pub at: Time,
    /// From the moment it was noticed.
    pub took: Duration,
}

/// Whether the kernel holds what it should, and what had to be done for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Integrity {
    /// What is known to be damaged and is not repaired.
    pub damaged: Vec<Damage>,
    /// Why not, if it was tried.
    pub failure: Option<String>,
    /// Sysctls that somebody has changed since the start and that are the owner's to set back.
    pub settings: Vec<Damage>,
    /// The last repair.
    pub last: Option<Repair>,
    /// Repairs of each of [`DamageKind::ALL`], since the start.
    pub repairs: [u64; DamageKind::ALL.len()],
}

impl DamageKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        DamageKind::Table,
        DamageKind::Chain,
        DamageKind::Rules,
        DamageKind::Set,
        DamageKind::Elements,
        DamageKind::Address,
        DamageKind::Route,
        DamageKind::Sysctl,
    ];

    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            DamageKind::Table => "table",
            DamageKind::Chain => "chain",
            DamageKind::Rules => "rules",
            DamageKind::Set => "set",
            DamageKind::Elements => "elements",
            DamageKind::Address => "address",
            DamageKind::Route => "route",
            DamageKind::Sysctl => "sysctl",
        }
    }
}

impl Damage {
    pub(crate) fn new(kind: DamageKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Integrity {
    /// What is damaged, and why it is not repaired, in a sentence; `None` where all is in order.
    pub fn trouble(&self) -> Option<String> {
        let damage = brief(&self.damaged);
        match (self.damaged.is_empty(), &self.failure) {
            (true, _) => None,
            (false, None) => Some(format!("somebody else has changed what is in the kernel: {damage}")),
            (false, Some(failure)) => Some(format!(
                "somebody else has changed what is in the kernel: {damage}; it is not repaired: {failure}"
            )),
        }
    }

    /// Notes that this was damaged, and is in order again.
    pub(crate) fn note_repair(&mut self, damage: Vec<Damage>, at: Time, took: Duration) {
        for (kind, count) in DamageKind::ALL.iter().zip(&mut self.repairs) {
            if damage.iter().any(|damage| damage.kind == *kind) {
                *count += 1;
            }
        }
        self.last = Some(Repair { damage, at, took });
    }
}

/// For a log or a status line: the first few, and how many more.
pub fn brief(damage: &[Damage]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<&str> = damage.iter().take(SHOWN).map(|damage| damage.what.as_str()).collect();
    match damage.len().saturating_sub(SHOWN) {
        0 => shown.join("; "),
        more => format!("{}; and {more} more", shown.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_counts_once_for_each_kind() {
        let mut integrity = Integrity::default();
        let damage = |kind| Damage::new(kind, "x");
        let all = vec![
            damage(DamageKind::Chain),
            damage(DamageKind::Chain),
            damage(DamageKind::Address),
        ];
        integrity.note_repair(all.clone(), Time::default(), Duration::from_millis(3));
        assert_eq!(integrity.repairs, [0, 1, 0, 0, 0, 1, 0, 0]);
        assert_eq!(integrity.last.map(|repair| repair.damage), Some(all));
    }

    #[test]
    fn the_first_few_are_said_and_how_many_more() {
        let damage: Vec<Damage> = (0..6)
            .map(|number| Damage::new(DamageKind::Set, number.to_string()))
            .collect();
        assert_eq!(brief(&damage[..2]), "0; 1");
        assert_eq!(brief(&damage), "0; 1; 2; 3; and 2 more");
    }
}
