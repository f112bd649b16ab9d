//! The fields of the `cilium.io/v2` policy objects, after the CRDs of Cilium 1.18.
//!
//! All fields are here, enforced or not, so that an unknown field is known to be a typing error.

use crate::selector::SHAPE as SELECTOR;
use crate::shape::FieldShape::{self, Any, Boolean, Inert, Integer, IntegerOrText, List, Map, Object, Text};

/// CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.
pub(crate) static POLICY: FieldShape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Any),
    ("spec", RULE),
    ("specs", List(&RULE)),
    ("status", Any),
]);

/// One `spec`.
pub(super) const RULE: FieldShape = Object(&[
    ("endpointSelector", SELECTOR),
    ("nodeSelector", SELECTOR),
    ("egress", List(&EGRESS)),
    ("egressDeny", List(&EGRESS_DENY)),
    ("ingress", List(&INGRESS)),
    ("ingressDeny", List(&INGRESS_DENY)),
    ("enableDefaultDeny", DEFAULT_DENY),
    (
        "labels",
        Inert(&List(&Object(&[("key", Text), ("value", Text), ("source", Text)]))),
    ),
    ("log", Inert(&Object(&[("value", Inert(&Text))]))),
    ("description", Inert(&Text)),
]);

pub(super) const DEFAULT_DENY: FieldShape = Object(&[("egress", Boolean), ("ingress", Boolean)]);

const EGRESS: FieldShape = Object(&[
    ("toFQDNs", List(&FQDN)),
    ("toCIDR", List(&Text)),
    ("toCIDRSet", List(&CIDR_RULE)),
    ("toEntities", List(&Text)),
    ("toEndpoints", List(&SELECTOR)),
    ("toServices", List(&SERVICE)),
    ("toNodes", List(&SELECTOR)),
    ("toGroups", List(&GROUP)),
    ("toRequires", List(&SELECTOR)),
    ("toPorts", List(&PORT_RULE)),
    ("icmps", List(&ICMP_RULE)),
    ("authentication", AUTHENTICATION),
]);

/// `toFQDNs` here is an extension: Cilium has none in deny rules.
const EGRESS_DENY: FieldShape = Object(&[
    ("toFQDNs", List(&FQDN)),
    ("toCIDR", List(&Text)),
    ("toCIDRSet", List(&CIDR_RULE)),
    ("toEntities", List(&Text)),
    ("toEndpoints", List(&SELECTOR)),
    ("toServices", List(&SERVICE)),
    ("toNodes", List(&SELECTOR)),
    ("toGroups", List(&GROUP)),
    ("toRequires", List(&SELECTOR)),
    ("toPorts", List(&PORT_DENY_RULE)),
    ("icmps", List(&ICMP_RULE)),
]);

const INGRESS: FieldShape = Object(&[
    ("fromCIDR", List(&Text)),
    ("fromCIDRSet", List(&CIDR_RULE)),
    ("fromEntities", List(&Text)),
    ("fromEndpoints", List(&SELECTOR)),
    ("fromNodes", List(&SELECTOR)),
    ("fromGroups", List(&GROUP)),
    ("fromRequires", List(&SELECTOR)),
    ("toPorts", List(&PORT_RULE)),
    ("icmps", List(&ICMP_RULE)),
    ("authentication", AUTHENTICATION),
]);

const INGRESS_DENY: FieldShape = Object(&[
    ("fromCIDR", List(&Text)),
    ("fromCIDRSet", List(&CIDR_RULE)),
    ("fromEntities", List(&Text)),
    ("fromEndpoints", List(&SELECTOR)),
    ("fromNodes", List(&SELECTOR)),
    ("fromGroups", List(&GROUP)),
    ("fromRequires", List(&SELECTOR)),
    ("toPorts", List(&PORT_DENY_RULE)),
    ("icmps", List(&ICMP_RULE)),
]);

const FQDN: FieldShape = Object(&[("matchName", Text), ("matchPattern", Text)]);

const CIDR_RULE: FieldShape = Object(&[
    ("cidr", Text),
    ("except", List(&Text)),
    ("cidrGroupRef", Text),
    ("cidrGroupSelector", SELECTOR),
]);

const SERVICE: FieldShape = Object(&[
    ("k8sService", Object(&[("serviceName", Text), ("namespace", Text)])),
    (
        "k8sServiceSelector",
        Object(&[("selector", SELECTOR), ("namespace", Text)]),
    ),
]);

const GROUP: FieldShape = Object(&[(
    "aws",
    Object(&[
        ("labels", Map(&Text)),
        ("region", Text),
        ("securityGroupsIds", List(&Text)),
        ("securityGroupsNames", List(&Text)),
    ]),
)]);

const AUTHENTICATION: FieldShape = Object(&[("mode", Text)]);

const ICMP_RULE: FieldShape = Object(&[("fields", List(&Object(&[("family", Text), ("type", IntegerOrText)])))]);

const PORT_RULE: FieldShape = Object(&[
    ("ports", List(&PORT)),
    ("rules", L7_RULES),
    ("serverNames", List(&Text)),
    ("listener", LISTENER),
    ("terminatingTLS", TLS),
    ("originatingTLS", TLS),
]);

const PORT_DENY_RULE: FieldShape = Object(&[("ports", List(&PORT))]);

const PORT: FieldShape = Object(&[("port", Text), ("endPort", Integer), ("protocol", Text)]);

const L7_RULES: FieldShape = Object(&[
    ("dns", List(&FQDN)),
    ("http", List(&HTTP)),
    ("kafka", List(&KAFKA)),
    ("l7", List(&Map(&Text))),
    ("l7proto", Text),
]);

const HTTP: FieldShape = Object(&[
    ("path", Text),
    ("method", Text),
    ("host", Text),
    ("headers", List(&Text)),
    (
        "headerMatches",
        List(&Object(&[
            ("mismatch", Text),
            ("name", Text),
            ("secret", SECRET),
            ("value", Text),
        ])),
    ),
]);

const KAFKA: FieldShape = Object(&[
    ("role", Text),
    ("apiKey", Text),
    ("apiVersion", Text),
    ("clientID", Text),
    ("topic", Text),
]);

const LISTENER: FieldShape = Object(&[
    ("envoyConfig", Object(&[("kind", Text), ("name", Text)])),
    ("name", Text),
    ("priority", Integer),
]);

const TLS: FieldShape = Object(&[
    ("secret", SECRET),
    ("trustedCA", Text),
    ("certificate", Text),
    ("privateKey", Text),
]);

const SECRET: FieldShape = Object(&[("name", Text), ("namespace", Text)]);
