//! The four lists of rules apart.

use crate::direction::Direction;

/// Which list a rule stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrittenList {
    pub(super) direction: Direction,
    pub(super) side: Side,
}

/// `egress` and `egressDeny` apart, and `ingress` and `ingressDeny`. What cannot be enforced opens
/// nothing in an allowing rule, and is widened in a denying one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Allow,
    Deny,
}

impl WrittenList {
    /// The lists of one direction, allowances first.
    pub(super) fn of(direction: Direction) -> [Self; 2] {
        [Side::Allow, Side::Deny].map(|side| Self { direction, side })
    }

    /// The field that holds the list.
    pub(super) fn field(self) -> &'static str {
        match (self.direction, self.side) {
            (Direction::Egress, Side::Allow) => "egress",
            (Direction::Egress, Side::Deny) => "egressDeny",
            (Direction::Ingress, Side::Allow) => "ingress",
            (Direction::Ingress, Side::Deny) => "ingressDeny",
        }
    }

    /// The fields of one direction.
    pub(super) fn fields(direction: Direction) -> [&'static str; 2] {
        Self::of(direction).map(Self::field)
    }
}
