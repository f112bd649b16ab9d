//! Egress and ingress, and what differs between them.

use std::fmt;
use std::ops::{Index, IndexMut};

/// Which way traffic goes, seen from the endpoint that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The endpoint opens connections to its peers.
    Egress,
    /// Its peers open connections to the endpoint.
    Ingress,
}

impl Direction {
    /// Both directions, egress first.
    pub const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

    /// The word that policies use.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        }
    }

    /// The other one.
    pub fn other(self) -> Direction {
        match self {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        }
    }

    /// What the other end of the traffic is.
    pub fn peer(self) -> &'static str {
        match self {
            Direction::Egress => "destination",
            Direction::Ingress => "source",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value for each direction.
///
/// What is the same in both directions is written once, over this type.
///
/// ```
/// use policy::{Direction, PerDirection};
///
/// let rules = PerDirection::of_egress(3);
/// assert_eq!(rules[Direction::Egress], 3);
/// assert_eq!(rules[Direction::Ingress], 0, "the default");
/// assert_eq!(rules.map(|_, count| count > 0).egress, true);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PerDirection<T> {
    /// The value for [`Direction::Egress`].
    pub egress: T,
    /// The value for [`Direction::Ingress`].
    pub ingress: T,
}

impl<T> PerDirection<T> {
    /// Asks for the value of each direction.
    pub fn from_fn(mut value: impl FnMut(Direction) -> T) -> Self {
        Self {
            egress: value(Direction::Egress),
            ingress: value(Direction::Ingress),
        }
    }

    /// This value at egress, and the default at ingress.
    pub fn of_egress(egress: T) -> Self
    where
        T: Default,
    {
        Self {
            egress,
            ingress: T::default(),
        }
    }

    /// The value of one direction, by itself.
    pub fn take(self, direction: Direction) -> T {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }

    /// Another value for each direction.
    pub fn map<U>(self, mut to: impl FnMut(Direction, T) -> U) -> PerDirection<U> {
        PerDirection {
            egress: to(Direction::Egress, self.egress),
            ingress: to(Direction::Ingress, self.ingress),
        }
    }

    /// Both values, egress first.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, &T)> {
        Direction::BOTH
            .into_iter()
            .map(|direction| (direction, &self[direction]))
    }
}

impl<T> Index<Direction> for PerDirection<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

impl<T> IndexMut<Direction> for PerDirection<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        }
    }
}
