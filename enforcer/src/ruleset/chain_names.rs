//! The names of the chains of programs. They tell direction, family and program, which is how a new
//! process finds the chains of the one before it.

use policy::{Direction, ProgramId};

use crate::layout::IpFamily;

/// The name of a program's first chain.
pub(crate) fn program(direction: Direction, id: ProgramId, family: IpFamily) -> String {
    format!("{}{family}-{id}", beginnings(direction)[0])
}

/// The name of the first chain that evaluates these audited tiers.
pub(crate) fn audit(direction: Direction, tiers: ProgramId, family: IpFamily) -> String {
    format!("{}{family}-{tiers}", beginnings(direction)[1])
}

/// The name of the first chain that finds the connections which a program hands over.
pub(crate) fn handover(direction: Direction, id: ProgramId, family: IpFamily) -> String {
    format!("{}{family}-{id}", beginnings(direction)[2])
}

/// The name of the first chain that judges the connections which are made in a client's place.
pub(crate) fn resumed(direction: Direction, id: ProgramId, family: IpFamily) -> String {
    format!("{}{family}-{id}", beginnings(direction)[3])
}

/// Whether a chain's name is that of a program's chain, of this version or another.
pub(crate) fn is_of_program(name: &str) -> bool {
    let beginnings = Direction::BOTH.into_iter().flat_map(beginnings);
    beginnings.into_iter().any(|beginning| {
        let rest = name.strip_prefix(beginning);
        rest.is_some_and(|rest| rest.starts_with("4-") || rest.starts_with("6-"))
    })
}

/// The beginnings of names: of programs, of audited tiers, of what is handed over, and of what is
/// resumed.
fn beginnings(direction: Direction) -> [&'static str; 4] {
    match direction {
        Direction::Egress => ["ep", "au", "ho", "re"],
        Direction::Ingress => ["in", "ai", "hi", "ri"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_direction_family_and_program() {
        let id = ProgramId(0xab);
        let names =
            |family| Direction::BOTH.map(|direction| [program(direction, id, family), audit(direction, id, family)]);
        assert_eq!(
            names(IpFamily::V4),
            [
                ["ep4-00000000000000ab", "au4-00000000000000ab"],
                ["in4-00000000000000ab", "ai4-00000000000000ab"]
            ]
        );
        let all = IpFamily::BOTH.into_iter().flat_map(names).flatten();
        assert!(all.into_iter().all(|name| is_of_program(&name)));
        for other in [
            "input",
            "intercept-dnat",
            "audited",
            "audited-in",
            "ep5-1",
            "dispatch-in",
        ] {
            assert!(!is_of_program(other), "{other}");
        }
    }
}
