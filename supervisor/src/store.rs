//! The descriptors that outlive a worker.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use super::message::Message;

/// Descriptors kept at most. A listener has one for each thread that serves it, and a node some
/// dozen listeners.
const MOST: usize = 4_096;

/// Descriptors by name.
#[derive(Debug, Default)]
pub(super) struct Store {
    by_name: BTreeMap<String, OwnedFd>,
}

impl Store {
    /// Keeps or closes what a message says. `false`: the store is full, and the descriptor is
    /// closed.
    pub(super) fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Keep(name, descriptor) if self.by_name.len() < MOST || self.by_name.contains_key(&name) => {
                self.by_name.insert(name, descriptor);
            }
            Message::Keep(..) => return false,
            Message::Forget(name) => drop(self.by_name.remove(&name)),
            Message::Ready => {}
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The descriptor at this place, in the order of names.
    pub(super) fn nth(&self, place: usize) -> Option<(&str, &OwnedFd)> {
        self.by_name
            .iter()
            .nth(place)
            .map(|(name, descriptor)| (name.as_str(), descriptor))
    }
}
