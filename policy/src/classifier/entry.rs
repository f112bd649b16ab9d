//! What names and objects add: ports of single addresses, in sets of five classes.

use smallvec::SmallVec;

use crate::ports::PortSet;
use crate::program::Verdict;

/// The class of set that an entry stands in. The kernel looks classes up in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetClass {
    /// Accepted in tier Admin.
    Admin,
    /// Denied in tier Admin or Network.
    Deny,
    /// Allowed in tier Network or later.
    Allow,
    /// Allowed in tier Network where connections announce what a rule asks.
    Inspect,
    /// Refused because no rule allows it.
    Rest,
}

impl SetClass {
    /// All of them, in order.
    pub const ALL: [SetClass; 5] = [
        SetClass::Admin,
        SetClass::Deny,
        SetClass::Allow,
        SetClass::Inspect,
        SetClass::Rest,
    ];

    /// The verdict on a packet that such a set holds.
    pub fn verdict(self) -> Verdict {
        match self {
            SetClass::Admin | SetClass::Allow => Verdict::Allow,
            SetClass::Deny | SetClass::Rest => Verdict::Deny,
            SetClass::Inspect => Verdict::Inspect,
        }
    }
}

/// Ports of an address, in the set of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassifierEntry {
    /// The class of sets that the entry belongs to.
    pub class: SetClass,
    /// Which ports; not empty.
    pub ports: PortSet,
}

/// What one address needs, for one name or for all objects that have it.
pub type ClassifierEntries = SmallVec<[ClassifierEntry; 1]>;
