//! Compares the kernel with what it should hold, and finds what somebody else has changed. Pure.
//!
//! The kernel does not tell who changed a table. Its notifications would show that it was changed,
//! but as soon as anybody listens the kernel makes one for each element of each transaction: 1.6 µs
//! an element, more than a quarter of a lookup's transaction. The number of the last transaction
//! costs nothing. Our own transactions are counted, so a higher number means that somebody else has
//! changed some table of this network namespace. Only then our table is read and compared
//! ([`schedule`] says how often, so that it costs little when somebody changes tables all the
//! time).
//!
//! - [`structure`]: the table, chains, rules and sets, by handles that the kernel never reuses.
//! - [`elements`]: the elements of sets: sets of the whole table against the desired state, learned
//!   sets against the writer's mirror.
//! - [`sysctls`]: switches of the kernel, against what they were.
//! - [`schedule`]: when to compare, and when to repair.

pub(crate) mod elements;
pub(crate) mod schedule;
pub(crate) mod structure;
pub(crate) mod sysctls;

use std::fmt;
use std::time::Duration;

use clock::Time;

/// The kind of object that was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DamageKind {
    /// The table was removed, replaced, or made dormant.
    Table,
    /// A chain was removed or replaced.
    Chain,
    /// Rules of a chain were added, removed or changed.
    Rules,
    /// A set or map was removed, replaced, or declared otherwise.
    Set,
    /// A set or map lacks elements, or holds foreign ones.
    Elements,
    /// An address that the proxy listens on was removed.
    Address,
    /// A routing rule or a route of mode tproxy was removed or replaced.
    Route,
    /// A switch of the kernel that this relies on.
    Sysctl,
}

/// Something in the kernel that is not as it was installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// The kind of object.
    pub kind: DamageKind,
    /// What happened to it, for people.
    pub what: String,
}

/// A repair that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The damage that was repaired.
    pub damage: Vec<Damage>,
    /// When the repair was done.
    pub at: Time,
    /// How long that took from the moment the damage was noticed.
    pub took: Duration,
}

/// The damage that is known, and the repairs that were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Damage that is not repaired.
    pub damaged: Vec<Damage>,
    /// Why the last repair failed; `None` if none was tried.
    pub failure: Option<String>,
    /// Sysctls that somebody has changed since the start and that are the owner's to set back.
    pub settings: Vec<Damage>,
    /// The last repair.
    pub last: Option<Repair>,
    /// The number of repairs of each of [`DamageKind::ALL`] since the start.
    pub repairs: [u64; DamageKind::ALL.len()],
}

impl DamageKind {
    /// All kinds, in a fixed order.
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

    /// The kind as a metric's label.
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
    /// The damage and why it is not repaired, in a sentence; `None` if nothing is damaged.
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

    /// Notes a repair of this damage.
    pub(crate) fn note_repair(&mut self, damage: Vec<Damage>, at: Time, took: Duration) {
        for (kind, count) in DamageKind::ALL.iter().zip(&mut self.repairs) {
            if damage.iter().any(|damage| damage.kind == *kind) {
                *count += 1;
            }
        }
        self.last = Some(Repair { damage, at, took });
    }
}

/// The first few damages and how many more there are, for a log or a status line.
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
