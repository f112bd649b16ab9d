//! Edits of a request's header, which the rules ask for (`headerMatches`).

/// One edit. Names compare without case; values are octets that a header field may hold, otherwise
/// the edit turns the verdict into a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Adds a line (`ADD`).
    Append {
        /// The field's name.
        name: Box<str>,
        /// Its value.
        value: Box<[u8]>,
    },
    /// Removes every line of this name (`DELETE`).
    Remove {
        /// The field's name.
        name: Box<str>,
    },
    /// Removes every line of this name and adds one (`REPLACE`).
    Set {
        /// The field's name.
        name: Box<str>,
        /// Its value.
        value: Box<[u8]>,
    },
}
