//! Address prefixes as policies write them, and with holes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::shape::DocumentNode;
use crate::zone::Zone;

/// How many `except` one entry may have: each may split its prefix 128 times.
const MAX_EXCEPT: usize = 1000;

/// Every address of a zone, in both families.
pub(crate) fn everything(zone: Zone) -> Vec<(Zone, IpNet)> {
    vec![(zone, all_v4()), (zone, all_v6())]
}

/// Every address of the family.
pub(crate) fn all_v4() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}

/// Every address of the family.
pub(crate) fn all_v6() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::default())
}

/// A prefix or, as Cilium allows in `toCIDR`, an address.
pub(crate) fn read_or_address(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<IpNet> {
    let text = node.value.as_str()?;
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => read(node, report),
    }
}

/// A prefix. Bits beyond its length are reported and left out.
pub(crate) fn read(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<IpNet> {
    let text = node.value.as_str()?;
    let Ok(prefix) = text.parse::<IpNet>() else {
        report
            .error("bad-cidr", &node.path, format!("{} is not a CIDR", quoted(text)))
            .suggest("write an address and a prefix length, like 192.0.2.0/24 or 2001:db8::/32");
        return None;
    };
    if prefix != prefix.trunc() {
        report
            .warning(
                "host-bits",
                &node.path,
                format!(
                    "{prefix} has bits set beyond its prefix length and means {}",
                    prefix.trunc()
                ),
            )
            .suggest(format!(
                "write {}, or {}/{}",
                prefix.trunc(),
                prefix.addr(),
                prefix.max_prefix_len()
            ));
    }
    Some(prefix.trunc())
}

/// The prefixes under `except`. Where they are to lie inside `whole`, one that does not is refused.
pub(crate) fn exceptions(
    entry: &DocumentNode<'_>,
    whole: Option<IpNet>,
    report: &mut DiagnosticReport<'_>,
) -> Vec<IpNet> {
    let except = entry.list("except");
    if except.len() > MAX_EXCEPT {
        let reason = format!("it has {} entries, and at most {MAX_EXCEPT} are read", except.len());
        report
            .error("too-many", &format!("{}.except", entry.path), reason)
            .suggest("write several entries");
        return Vec::new();
    }
    let mut holes = Vec::new();
    for node in &except {
        let Some(hole) = read(node, report) else { continue };
        if let Some(whole) = whole
            && !whole.contains(&hole)
        {
            report.error("bad-except", &node.path, format!("{hole} does not lie inside {whole}"));
        }
        holes.push(hole);
    }
    holes
}

/// The prefixes that make up `whole` without `holes`, from low to high.
pub fn without(whole: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    halve(whole, holes, &mut left);
    left
}

/// Halves while a hole lies inside, so at most as
/// deep as an address has bits.
fn halve(whole: IpNet, holes: &[IpNet], left: &mut Vec<IpNet>) {
    if holes.iter().any(|hole| hole.contains(&whole)) {
        return;
    }
    let inside: Vec<IpNet> = holes.iter().copied().filter(|hole| whole.contains(hole)).collect();
    match whole.subnets(whole.prefix_len() + 1) {
        Ok(halves) if !inside.is_empty() => halves.for_each(|half| halve(half, &inside, left)),
        _ => left.push(whole),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small_prefix() -> impl Strategy<Value = IpNet> {
        (0u8..=255, 24u8..=32)
            .prop_map(|(last, length)| IpNet::new(IpAddr::from([10, 0, 0, last]), length).unwrap().trunc())
    }

    proptest! {
        #[test]
        fn a_prefix_without_holes_holds_what_is_in_it_and_in_no_hole(
            whole in small_prefix(),
            holes in prop::collection::vec(small_prefix(), 0..6),
        ) {
            let holes: Vec<_> = holes.into_iter().filter(|hole| whole.contains(hole)).collect();
            let left = without(whole, &holes);
            for last in 0..=255u8 {
                let address = IpAddr::from([10, 0, 0, last]);
                let expected = whole.contains(&address) && !holes.iter().any(|hole| hole.contains(&address));
                let times = left.iter().filter(|prefix| prefix.contains(&address)).count();
                prop_assert_eq!(times, usize::from(expected), "{}", address);
            }
        }
    }
}
