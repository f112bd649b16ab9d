//! The chain of a program, one for each family.

use std::time::Duration;

use policy::ProgramId;

use super::document::Document;
use crate::desired::Desired;
use crate::layout::{Element, Family};

/// The name of a program's chain.
pub(super) fn chain_name(id: ProgramId, family: Family) -> String {
    format!("ep{family}-{id}")
}

/// The chains of all programs, with their sets.
pub(super) fn chains(document: &mut Document<'_>, desired: &Desired, _learned: &[(Element, Duration)]) {
    for id in desired.programs.keys() {
        for family in Family::BOTH {
            document.chain(&chain_name(*id, family));
        }
    }
}
