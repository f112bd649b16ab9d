//! How a program becomes chains and sets.
//!
//! Each program has a chain per family and, where it has name rules, *learned sets*: hash sets with
//! timeouts. A name rule's ports decide which learned sets its addresses go to:
//!
//! | ports of the rule | set | key |
//! |---|---|---|
//! | single ports | exact | address . protocol . port |
//! | a range among them, or every port | one *group* per distinct port set | address |
//!
//! so that a packet costs one lookup for all exact entries, and one more for each group, however many
//! names and addresses there are. Learned addresses never go into interval sets.

use std::fmt;
use std::net::IpAddr;

use policy::{Pattern, Program, ProgramId, Protocol};
use smallvec::SmallVec;

/// The address family of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which half of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Looked up first.
    Deny,
    /// Looked up second.
    Allow,
}

/// Which learned set of a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// Keys are address . protocol . port.
    Exact,
    /// Keys are addresses; the number tells the port group, counted in the program's order.
    Group(u16),
}

/// A learned set. Its name in the kernel is its `Display`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId {
    /// Whose.
    pub program: ProgramId,
    /// Which half.
    pub side: Side,
    /// Which set.
    pub kind: SetKind,
    /// Which family.
    pub family: Family,
}

/// The key of an element of a learned set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementKey {
    /// The learned address.
    pub address: IpAddr,
    /// Protocol and port, in exact sets.
    pub port: Option<(Protocol, u16)>,
}

/// One element of one learned set: one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// The set.
    pub set: SetId,
    /// The key.
    pub key: ElementKey,
}

/// What an address learned for a pattern opens (or closes) in one program, before its family is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The program.
    pub program: ProgramId,
    /// Which half.
    pub side: Side,
    /// Which set.
    pub kind: SetKind,
    /// The ports, in an exact set; empty in a group.
    pub ports: SmallVec<[(Protocol, u16); 2]>,
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = f;
        todo!()
    }
}

impl Target {
    /// The elements that `address` needs.
    pub fn elements(&self, address: IpAddr) -> impl Iterator<Item = Element> + '_ {
        let _ = address;
        std::iter::empty()
    }
}

/// For each name rule of a program, what its addresses open or close.
pub fn targets(id: ProgramId, program: &Program) -> Vec<(&Pattern, Target)> {
    let _ = (id, program);
    todo!()
}
