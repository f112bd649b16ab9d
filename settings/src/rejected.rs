//! Why options do not make settings.

use std::fmt;

use thiserror::Error;

/// An option that cannot be used, or one that is missing.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RejectedOption {
    /// A value cannot be used.
    #[error("--{option} (or `{option}` in the config file) cannot be {value}: {reason}")]
    Value {
        /// The option, without its dashes.
        option: &'static str,
        /// The value, as it was written.
        value: String,
        /// Why not, and what to write instead.
        reason: String,
    },
    /// No resolver is known.
    #[error("no upstream resolver is known ({0}); name one with --upstream IP, or `upstream` in the config file")]
    NoUpstream(String),
    /// The host has no name.
    #[error("this host has no name; name the node with --node NAME, or `node` in the config file")]
    NoNode,
}

/// A value of `option` that cannot be used.
pub(super) fn rejected(option: &'static str, value: impl fmt::Display, reason: impl fmt::Display) -> RejectedOption {
    RejectedOption::Value {
        option,
        value: value.to_string(),
        reason: reason.to_string(),
    }
}
