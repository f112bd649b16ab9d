//! The chains of programs that a desired state needs: of each direction those that its dispatch
//! points to, and the audited tiers that these go on to.

use std::collections::BTreeMap;

use policy::{Direction, ProgramId};

use crate::desired::{DesiredState, KernelProgram, KernelTiers};

use super::program_chains::{self, ProgramChain};

/// What has chains, by direction and id.
#[derive(Debug, Default)]
pub(super) struct ChainsInUse<'a> {
    programs: BTreeMap<(Direction, ProgramId), &'a KernelProgram>,
    /// Tiers in mode audit, which programs may share.
    audits: BTreeMap<(Direction, ProgramId), &'a KernelTiers>,
    /// Those programs that hand connections over, where somebody takes them.
    inspecting: BTreeMap<(Direction, ProgramId), &'a KernelProgram>,
}

impl<'a> ChainsInUse<'a> {
    pub(super) fn of(desired: &'a DesiredState) -> Self {
        let mut used = Self::default();
        for direction in Direction::BOTH {
            for (id, program) in desired.programs_of(direction) {
                used.programs.insert((direction, id), program);
                if desired.handover.is_some() && program.inspects() {
                    used.inspecting.insert((direction, id), program);
                }
                let audited = program.audited.iter();
                used.audits
                    .extend(audited.map(|audited| ((direction, audited.id), audited)));
            }
        }
        used
    }

    /// Whether these are the chains of the same programs.
    pub(super) fn are_those_of(&self, other: &Self) -> bool {
        self.programs.keys().eq(other.programs.keys()) && self.inspecting.keys().eq(other.inspecting.keys())
    }

    /// The chains that are not among those of `other`. The chains of each item call none but each
    /// other, and those of items before it.
    pub(super) fn beside(&self, other: &Self) -> impl Iterator<Item = Vec<ProgramChain>> {
        let audits = self.audits.iter().filter(|(key, _)| !other.audits.contains_key(key));
        let audits = audits.map(|((direction, _), tiers)| program_chains::audit_chains(*direction, tiers));
        let programs = self.programs.iter();
        let programs = programs.filter(|(key, _)| !other.programs.contains_key(key));
        let inspecting = self.inspecting.iter();
        let inspecting = inspecting.filter(|(key, _)| !other.inspecting.contains_key(key));
        let inspecting = inspecting.flat_map(|((direction, id), program)| {
            [
                program_chains::handover_chains(*direction, *id, program),
                program_chains::resumed_chains(*direction, *id, program),
            ]
        });
        audits
            .chain(programs.map(|((direction, id), program)| program_chains::chains(*direction, *id, program)))
            .chain(inspecting)
    }
}
