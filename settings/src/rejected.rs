//! Why options do not make settings.

use std::error::Error as _;
use std::fmt;

use clap::error::{ContextKind, ContextValue};
use thiserror::Error;

/// An option that cannot be used, or one that is missing.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RejectedOption {
    /// A value cannot be used.
    #[error("--{option} (or `{option}` in the config file) cannot be {value}: {reason}")]
    Value {
        /// The option, without its dashes.
        option: String,
        /// The value, as it was written.
        value: String,
        /// Why not, and what to write instead.
        reason: String,
    },
    /// The options cannot be read, for a reason that is no single value's.
    #[error("{0}")]
    Unreadable(String),
    /// No resolver is known.
    #[error("no upstream resolver is known ({0}); name one with --upstream IP, or `upstream` in the config file")]
    NoUpstream(String),
    /// The host has no name.
    #[error("this host has no name; name the node with --node NAME, or `node` in the config file")]
    NoNode,
}

impl RejectedOption {
    /// The value that a parser of this crate refused, if `error` is about one. It is told alike
    /// wherever it was written; other mistakes are told as clap tells them.
    pub fn of(error: &clap::Error) -> Option<Self> {
        let UnusableValue { value, reason } = error.source()?.downcast_ref()?;
        // As in `--grace <DURATION>` and `--supervise[=<BOOL>]`.
        let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let option = argument.trim_start_matches('-').split([' ', '[', '=']).next()?;
        Some(rejected(option, value, reason))
    }
}

/// A value of `option` that cannot be used.
pub(super) fn rejected(option: &str, value: impl fmt::Display, reason: impl fmt::Display) -> RejectedOption {
    RejectedOption::Value {
        option: option.to_owned(),
        value: value.to_string(),
        reason: reason.to_string(),
    }
}

/// A value that can be read, and cannot be used.
#[derive(Debug, Error)]
#[error("{value} cannot be used: {reason}")]
pub(super) struct UnusableValue {
    value: String,
    reason: String,
}

impl UnusableValue {
    pub(super) fn new(value: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self {
            value: value.to_string(),
            reason: reason.to_string(),
        }
    }
}
