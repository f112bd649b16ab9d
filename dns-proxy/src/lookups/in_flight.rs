//! Where lookups rest between two steps: in places that are used again, each time under another
//! turn.

/// A lookup in flight. Once it has ended its key finds nothing, whoever has the place then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LookupKey {
    place: u32,
    turn: u32,
}

/// The lookups in flight, by [`LookupKey`]. All operations take constant time.
pub(super) struct InFlight<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    turn: u32,
    lookup: Option<Box<T>>,
}

impl LookupKey {
    /// Lookups in flight at the same time have different ones.
    pub(super) fn place(self) -> u32 {
        self.place
    }

    #[cfg(test)]
    pub(crate) fn of_test(place: u32) -> Self {
        Self { place, turn: 0 }
    }
}

impl<T> InFlight<T> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, lookup: Box<T>) -> LookupKey {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { turn: 0, lookup: None });
            // The quota admits far fewer.
            (self.places.len() - 1) as u32
        });
        let entry = &mut self.places[place as usize];
        entry.lookup = Some(lookup);
        LookupKey {
            place,
            turn: entry.turn,
        }
    }

    pub(super) fn get_mut(&mut self, key: LookupKey) -> Option<&mut T> {
        self.held(key)?.lookup.as_deref_mut()
    }

    /// Who has this place now.
    pub(super) fn at(&mut self, place: u32) -> Option<(LookupKey, &mut T)> {
        let entry = self.places.get_mut(place as usize)?;
        let key = LookupKey {
            place,
            turn: entry.turn,
        };
        Some((key, entry.lookup.as_deref_mut()?))
    }

    pub(super) fn take(&mut self, key: LookupKey) -> Option<Box<T>> {
        let entry = self.held(key)?;
        let lookup = entry.lookup.take()?;
        entry.turn = entry.turn.wrapping_add(1);
        self.free.push(key.place);
        Some(lookup)
    }

    /// The place of a key, while it is its turn.
    fn held(&mut self, key: LookupKey) -> Option<&mut Place<T>> {
        let entry = self.places.get_mut(key.place as usize)?;
        (entry.turn == key.turn).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_its_former_key_finds_nothing() {
        let mut in_flight = InFlight::new();
        let first = in_flight.insert(Box::new("first"));
        assert_eq!(in_flight.take(first).as_deref(), Some(&"first"));
        assert!(in_flight.at(first.place()).is_none());
        let second = in_flight.insert(Box::new("second"));
        assert_eq!(second.place(), first.place());
        assert!(in_flight.get_mut(first).is_none() && in_flight.take(first).is_none());
        assert_eq!(in_flight.at(second.place()), Some((second, &mut "second")));
    }
}
