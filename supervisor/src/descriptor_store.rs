//! The descriptors that the supervisor keeps for the next worker.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::message::SupervisorMessage;

/// The largest number of descriptors that are kept. A listener has one for each thread that serves
/// it, and a node has some dozen listeners.
const CAPACITY: usize = 4_096;

/// The kept descriptors, each under the name that the worker gave it.
#[derive(Debug, Default)]
pub(crate) struct DescriptorStore {
    by_name: BTreeMap<String, OwnedFd>,
}

impl DescriptorStore {
    /// Keeps or closes a descriptor as `message` asks. `false` means that the store is full and the
    /// descriptor is closed.
    pub(crate) fn apply(&mut self, message: SupervisorMessage) -> bool {
        match message {
            SupervisorMessage::Keep(name, descriptor)
                if self.by_name.len() < CAPACITY || self.by_name.contains_key(&name) =>
            {
                self.by_name.insert(name, descriptor);
            }
            SupervisorMessage::Keep(..) => return false,
            SupervisorMessage::Forget(name) => drop(self.by_name.remove(&name)),
            SupervisorMessage::Ready | SupervisorMessage::Reloading => {}
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The descriptor at `index` in the order of names.
    pub(crate) fn nth(&self, index: usize) -> Option<(&str, &OwnedFd)> {
        self.by_name
            .iter()
            .nth(index)
            .map(|(name, descriptor)| (name.as_str(), descriptor))
    }
}
