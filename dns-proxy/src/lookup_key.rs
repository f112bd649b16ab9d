//! The key of a lookup in flight.

slotmap::new_key_type! {
    /// Identifies a lookup in flight on one worker. Once the lookup has ended its key finds
    /// nothing, even when another lookup has taken its slot.
    pub(crate) struct LookupKey;
}

impl LookupKey {
    /// The index of the lookup's slot. Lookups in flight at the same time have different ones.
    pub(crate) fn slot(self) -> u32 {
        // The lower half of the exported form is the index, the upper half the version.
        slotmap::Key::data(&self).as_ffi() as u32
    }

    /// The key of the first lookup in a slot.
    #[cfg(test)]
    pub(crate) fn of_test(slot: u32) -> Self {
        slotmap::KeyData::from_ffi(1 << 32 | u64::from(slot)).into()
    }
}
