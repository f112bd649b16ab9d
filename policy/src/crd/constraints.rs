//! What the API server is to refuse beyond fields and types.
//!
//! Expressions (CEL) stand where the reason is worth a sentence. They are few and shallow: the API
//! server bounds what they may cost, and multiplies by the length that every list around them may
//! have.

use crate::cilium::ENTITIES;
use serde_json::{Map, Value, json};

/// What holds at one place of a kind.
pub(super) struct Constraint {
    /// The end of a path: `egress[]` holds for `.spec.egress[]` and `.specs[].egress[]`. A path
    /// that begins with a dot is whole, and the empty one is the object itself.
    pub(super) at: &'static str,
    what: ConstraintKind,
}

enum ConstraintKind {
    /// A list has at most so many items.
    MaxItems(u32),
    /// A list has at least one item, and at most so many.
    SomeItems(u32),
    /// A list holds nothing twice, has at least one item, and at most so many.
    SomeDistinct(u32),
    /// A text has at most so many characters.
    MaxLength(u32),
    /// A text matches this (RE2).
    Pattern(&'static str),
    /// A text is one of these.
    OneOf(&'static [&'static str]),
    /// A number lies between these.
    Between(u32, u32),
    /// These fields stand.
    Required(&'static [&'static str]),
    /// Exactly one of these two fields stands.
    Either([&'static str; 2]),
    /// `port` stands, unless `protocol` matches this (RE2).
    PortUnless(&'static str),
    /// These two fields do not both stand.
    NotBoth([&'static str; 2]),
    /// An address or a prefix.
    AddressOrCidr,
    /// The text must be a prefix (`10.0.0.0/8`).
    Cidr,
    /// CEL expressions, each with what to say when it is false.
    Rules(&'static [(&'static str, &'static str)]),
}

impl Constraint {
    const fn new(at: &'static str, what: ConstraintKind) -> Self {
        Self { at, what }
    }

    pub(super) fn keywords(&self) -> Map<String, Value> {
        let keywords = match &self.what {
            ConstraintKind::MaxItems(count) => json!({"maxItems": count}),
            ConstraintKind::SomeItems(count) => json!({"minItems": 1, "maxItems": count}),
            ConstraintKind::SomeDistinct(count) => {
                json!({"minItems": 1, "maxItems": count, "x-kubernetes-list-type": "set"})
            }
            ConstraintKind::MaxLength(count) => json!({"maxLength": count}),
            ConstraintKind::Pattern(pattern) => json!({"pattern": pattern}),
            ConstraintKind::OneOf(values) => json!({"enum": values}),
            ConstraintKind::Between(low, high) => json!({"minimum": low, "maximum": high}),
            ConstraintKind::Required(fields) => json!({"required": fields}),
            ConstraintKind::Either([one, other]) => json!({"oneOf": [{"required": [one]}, {"required": [other]}]}),
            ConstraintKind::PortUnless(pattern) => json!({"anyOf": [
                {"required": ["port"]},
                {"required": ["protocol"], "properties": {"protocol": {"pattern": pattern}}},
            ]}),
            ConstraintKind::NotBoth(fields) => json!({"not": {"required": fields}}),
            ConstraintKind::AddressOrCidr => {
                json!({"anyOf": [{"format": "cidr"}, {"format": "ipv4"}, {"format": "ipv6"}]})
            }
            ConstraintKind::Cidr => json!({"format": "cidr"}),
            ConstraintKind::Rules(rules) => {
                let rules = rules
                    .iter()
                    .map(|(rule, message)| json!({"rule": rule, "message": message}));
                json!({"x-kubernetes-validations": rules.collect::<Vec<_>>()})
            }
        };
        match keywords {
            Value::Object(keywords) => keywords,
            _ => Map::new(),
        }
    }
}

/// The API server refuses objects of more than a few MiB; these bounds are beyond what fits, or
/// what anybody writes.
const MANY: u32 = 1_000;

pub(super) const CIDR_GROUP: &[Constraint] = &[
    Constraint::new("externalCIDRs[]", ConstraintKind::AddressOrCidr),
    Constraint::new("externalCIDRs", ConstraintKind::MaxItems(50_000)),
];

/// Protocols of Cilium's that have no ports.
const WITHOUT_PORTS: &str = "^(?i)(VRRP|IGMP|GRE|IPIP|IPV6|ESP|AH)$";

pub(super) const CILIUM_POLICY: &[Constraint] = &[
    Constraint::new(
        "",
        ConstraintKind::Rules(&[
            ("has(self.spec) || has(self.specs)", "write `spec` or `specs`"),
            (
                "self.kind != 'CiliumNetworkPolicy' || !has(self.spec) || !has(self.spec.nodeSelector)",
                "a CiliumNetworkPolicy is of one namespace, and nodes are in none: write a CiliumClusterwideNetworkPolicy",
            ),
        ]),
    ),
    Constraint::new(".specs", ConstraintKind::MaxItems(50)),
    Constraint::new(".spec", SPEC),
    Constraint::new(".specs[]", SPEC),
    Constraint::new("egress", ConstraintKind::MaxItems(MANY)),
    Constraint::new("egressDeny", ConstraintKind::MaxItems(MANY)),
    Constraint::new("egress[]", RULE),
    Constraint::new("egressDeny[]", RULE),
    Constraint::new("toFQDNs[]", ConstraintKind::NotBoth(["matchName", "matchPattern"])),
    Constraint::new("matchName", ConstraintKind::MaxLength(255)),
    Constraint::new("matchName", ConstraintKind::Pattern("^[-a-zA-Z0-9_.]+$")),
    Constraint::new("matchPattern", ConstraintKind::MaxLength(255)),
    Constraint::new("matchPattern", ConstraintKind::Pattern("^[-a-zA-Z0-9_.*]+$")),
    Constraint::new("toCIDR[]", ConstraintKind::AddressOrCidr),
    Constraint::new("toCIDRSet[].cidr", ConstraintKind::Cidr),
    Constraint::new("toCIDRSet[].except", ConstraintKind::MaxItems(1_000)),
    Constraint::new("toCIDRSet[].except[]", ConstraintKind::Cidr),
    Constraint::new("toEntities[]", ConstraintKind::OneOf(&ENTITIES)),
    Constraint::new("ports", ConstraintKind::MaxItems(40)),
    Constraint::new("ports[]", ConstraintKind::PortUnless(WITHOUT_PORTS)),
    Constraint::new("endPort", ConstraintKind::Between(0, 65_535)),
    Constraint::new(
        "protocol",
        ConstraintKind::Pattern("^((?i)TCP|UDP|SCTP|ANY|VRRP|IGMP|GRE|IPIP|IPV6|ESP|AH)?$"),
    ),
    Constraint::new("matchExpressions[]", ConstraintKind::Required(&["key", "operator"])),
    Constraint::new(
        "operator",
        ConstraintKind::OneOf(&["In", "NotIn", "Exists", "DoesNotExist"]),
    ),
];

const SPEC: ConstraintKind = ConstraintKind::Rules(&[
    (
        "!has(self.nodeSelector) || !has(self.endpointSelector)",
        "`nodeSelector` and `endpointSelector` stand in one spec: write two specs",
    ),
    (
        "has(self.nodeSelector) || has(self.endpointSelector)",
        "`endpointSelector` is required; write `endpointSelector: {}` to select every Pod",
    ),
    // A field that is null is none to `has`.
    (
        "[has(self.egress) && size(self.egress) > 0, has(self.egressDeny) && size(self.egressDeny) > 0, \
         has(self.ingress) && size(self.ingress) > 0, has(self.ingressDeny) && size(self.ingressDeny) > 0, \
         has(self.enableDefaultDeny) && has(self.enableDefaultDeny.egress) && self.enableDefaultDeny.egress == true].exists(stands, stands)",
        "it has no rule in any direction: write `egress: [{}]` to close egress",
    ),
]);

const RULE: ConstraintKind = ConstraintKind::Rules(&[
    (
        "[has(self.toFQDNs) && size(self.toFQDNs) > 0, has(self.toCIDR) && size(self.toCIDR) > 0, \
         has(self.toCIDRSet) && size(self.toCIDRSet) > 0, has(self.toEntities) && size(self.toEntities) > 0, \
         has(self.toEndpoints) && size(self.toEndpoints) > 0, has(self.toServices) && size(self.toServices) > 0, \
         has(self.toNodes) && size(self.toNodes) > 0].filter(stands, stands).size() <= 1",
        "two kinds of destinations stand in one rule: write one rule for each",
    ),
    (
        "!(has(self.icmps) && size(self.icmps) > 0 && has(self.toPorts) && size(self.toPorts) > 0)",
        "`icmps` and `toPorts` stand in one rule: write one rule for each",
    ),
    (
        "!has(self.toGroups) || size(self.toGroups) == 0",
        "`toGroups` needs the API of a cloud provider and is not supported: list the group's addresses with `toCIDR`",
    ),
]);

/// As the API has it, for rules, peers, protocols, networks and names.
const CNP_ITEMS: u32 = 25;

pub(super) const CLUSTER_NETWORK_POLICY: &[Constraint] = &[
    Constraint::new("", ConstraintKind::Required(&["spec"])),
    Constraint::new(".spec", ConstraintKind::Required(&["tier", "priority", "subject"])),
    Constraint::new("tier", ConstraintKind::OneOf(&["Admin", "Baseline"])),
    Constraint::new("priority", ConstraintKind::Between(0, 1_000)),
    Constraint::new("subject", ConstraintKind::Either(["namespaces", "pods"])),
    Constraint::new("pods", ConstraintKind::Required(&["podSelector"])),
    Constraint::new("egress", ConstraintKind::MaxItems(CNP_ITEMS)),
    Constraint::new("ingress", ConstraintKind::MaxItems(CNP_ITEMS)),
    Constraint::new("egress[]", ConstraintKind::Required(&["action", "to"])),
    Constraint::new("ingress[]", ConstraintKind::Required(&["action", "from"])),
    Constraint::new(
        "egress[]",
        ConstraintKind::Rules(&[(
            "self.action == 'Accept' || self.to.all(peer, !has(peer.domainNames))",
            "`domainNames` are for rules with the action Accept only: accept the names that are meant, and deny `networks` \
             in a rule after it",
        )]),
    ),
    Constraint::new("action", ConstraintKind::OneOf(&["Accept", "Deny", "Pass"])),
    Constraint::new("name", ConstraintKind::MaxLength(100)),
    Constraint::new("to", ConstraintKind::SomeItems(CNP_ITEMS)),
    Constraint::new("from", ConstraintKind::SomeItems(CNP_ITEMS)),
    Constraint::new("protocols", ConstraintKind::SomeItems(CNP_ITEMS)),
    Constraint::new("networks", ConstraintKind::SomeDistinct(CNP_ITEMS)),
    Constraint::new("networks[]", ConstraintKind::Cidr),
    Constraint::new("domainNames", ConstraintKind::SomeDistinct(CNP_ITEMS)),
    Constraint::new("domainNames[]", ConstraintKind::MaxLength(255)),
    Constraint::new(
        "domainNames[]",
        ConstraintKind::Pattern(
            "^([*][.])?([a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9])?[.])+[a-zA-Z0-9_]([-a-zA-Z0-9_]*[a-zA-Z0-9])?[.]?$",
        ),
    ),
    Constraint::new("destinationPort", ConstraintKind::Either(["number", "range"])),
    Constraint::new("number", ConstraintKind::Between(1, 65_535)),
    Constraint::new("range", ConstraintKind::Required(&["start", "end"])),
    Constraint::new("start", ConstraintKind::Between(1, 65_535)),
    Constraint::new("end", ConstraintKind::Between(1, 65_535)),
    Constraint::new("matchExpressions[]", ConstraintKind::Required(&["key", "operator"])),
    Constraint::new(
        "operator",
        ConstraintKind::OneOf(&["In", "NotIn", "Exists", "DoesNotExist"]),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;
    use crate::validate::validate;

    #[test]
    fn the_entities_are_those_that_reading_knows() {
        for (entity, known) in ENTITIES.iter().map(|entity| (*entity, true)).chain([("moon", false)]) {
            let text = format!(
                "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: n}}\n\
                 spec: {{endpointSelector: {{}}, egress: [{{toEntities: [{entity}]}}]}}\n"
            );
            let (documents, _) = parse(&text);
            let (verdict, _) = validate(&documents[0]);
            assert_eq!(verdict.accepted().is_some(), known, "{entity}");
        }
    }
}
