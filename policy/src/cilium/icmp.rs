//! `icmps`: message types by family, as numbers or names → a [`PortSet`].

use serde_json::Value;

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::shape::DocumentNode;

use super::written_list::Side;

/// The CRD's limit (`maxItems`).
const MAX_FIELDS: usize = 40;

/// The CRD's names of message types, its own misspellings included, with the numbers of the IANA
/// registry. Sorted by name.
const V4: [(&str, u8); 15] = [
    ("DestinationUnreachable", 3),
    ("Echo", 8),
    ("EchoReply", 0),
    ("EchoRequest", 8),
    ("ExtendedEcho Reply", 43),
    ("ExtendedEchoReply", 43),
    ("ExtendedEchoRequest", 42),
    ("ParameterProblem", 12),
    ("Photuris", 40),
    ("Redirect", 5),
    ("RouterAdvertisement", 9),
    ("RouterSelection", 10),
    ("TimeExceeded", 11),
    ("Timestamp", 13),
    ("TimestampReply", 14),
];
/// The same for ICMPv6.
const V6: [(&str, u8); 28] = [
    ("DestinationUnreachable", 1),
    ("DuplicateAddressConfirmationCodeSuffix", 158),
    ("DuplicateAddressRequestCodeSuffix", 157),
    ("EchoReply", 129),
    ("EchoRequest", 128),
    ("ExtendedEcho Reply", 161),
    ("ExtendedEchoReply", 161),
    ("ExtendedEchoRequest", 160),
    ("HomeAgentAddressDiscoveryReply", 145),
    ("HomeAgentAddressDiscoveryRequest", 144),
    ("ICMPNodeInformationQuery", 139),
    ("ICMPNodeInformationResponse", 140),
    ("InverseNeighborDiscoveryAdvertisement", 142),
    ("InverseNeighborDiscoverySolicitation", 141),
    ("MobilePrefixAdvertisement", 147),
    ("MobilePrefixSolicitation", 146),
    ("MulticastListenerDone", 132),
    ("MulticastListenerQuery", 130),
    ("MulticastListenerReport", 131),
    ("NeighborAdvertisement", 136),
    ("NeighborSolicitation", 135),
    ("PacketTooBig", 2),
    ("ParameterProblem", 4),
    ("RedirectMessage", 137),
    ("RouterAdvertisement", 134),
    ("RouterRenumbering", 138),
    ("RouterSolicitation", 133),
    ("TimeExceeded", 3),
];

/// The message types under a non-empty `icmps`.
pub(super) fn read(icmps: &DocumentNode<'_>, side: Side, report: &mut DiagnosticReport<'_>) -> PortSet {
    let mut types = Vec::new();
    for entry in icmps.items().filter(|entry| entry.value.is_object()) {
        let fields = entry.list("fields");
        if fields.len() > MAX_FIELDS {
            let reason = format!("it has {} fields, and at most {MAX_FIELDS} are allowed", fields.len());
            report
                .error("too-many", &format!("{}.fields", entry.path), reason)
                .suggest("write several `icmps` entries");
        }
        if fields.is_empty() {
            let effect = match side {
                Side::Allow => "opens nothing",
                Side::Deny => "denies every ICMP message",
            };
            report
                .warning("no-ports", &entry.path, format!("it lists no `fields`, and {effect}"))
                .suggest("write `fields: [{family: IPv4, type: 8}, {family: IPv6, type: 128}]`");
            if side == Side::Deny {
                types.extend([Protocol::Icmp, Protocol::Icmpv6].map(PortRange::every));
            }
        }
        types.extend(fields.iter().filter_map(|field| message_type(field, report)));
    }
    PortSet::from_ranges(types)
}

fn message_type(field: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<PortRange> {
    if !field.value.is_object() {
        return None;
    }
    let (protocol, names) = match field.text("family") {
        None | Some("IPv4") => (Protocol::Icmp, V4.as_slice()),
        Some("IPv6") => (Protocol::Icmpv6, V6.as_slice()),
        Some(other) => {
            let path = format!("{}.family", field.path);
            report.error("bad-value", &path, format!("{} is not IPv4 or IPv6", quoted(other)));
            return None;
        }
    };
    let Some(node) = field.get("type") else {
        report.error("missing-field", &field.path, "`type` is required");
        return None;
    };
    let number = match node.value {
        Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Value::String(text) => number(text).or_else(|| named(text, names)),
        // `shape::check` has reported any other JSON type.
        _ => return None,
    };
    if number.is_none() {
        let written = node.value.as_str().map_or_else(|| node.value.to_string(), quoted);
        let reason = format!("{written} is neither a number from 0 to 255 nor the name of a type of {protocol}");
        let finding = report.error("bad-icmp-type", &node.path, reason);
        let names = names.iter().map(|(name, _)| *name);
        if let Some(meant) = node.value.as_str().and_then(|text| closest(text, names)) {
            finding.suggest(format!("did you mean `{meant}`?"));
        }
    }
    number.map(|number| PortRange::single(protocol, number.into()))
}

/// A number as the CRD's pattern has it: digits without leading zeros.
fn number(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn named(text: &str, names: &[(&str, u8)]) -> Option<u8> {
    let found = names.binary_search_by(|(name, _)| (*name).cmp(text)).ok()?;
    names.get(found).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(V4.is_sorted_by_key(|(name, _)| *name));
        assert!(V6.is_sorted_by_key(|(name, _)| *name));
    }
}
