//! The shape of the `cilium.io/v2` policy objects, as their CRDs (Cilium 1.18) have it: all fields,
//! whether enforced here or not, so that a field of theirs and a typing error can be told apart.

use crate::selector::SHAPE as SELECTOR;
use crate::shape::Shape::{self, Any, Boolean, Inert, Integer, IntegerOrText, List, Map, Object, Text};

/// CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.
pub(crate) static POLICY: Shape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Any),
    ("spec", RULE),
    ("specs", List(&RULE)),
    ("status", Any),
]);

/// One `spec`.
pub(super) const RULE: Shape = Object(&[
    ("endpointSelector", SELECTOR),
    ("nodeSelector", SELECTOR),
    ("egress", List(&EGRESS)),
    ("egressDeny", List(&EGRESS_DENY)),
    ("ingress", Inert(&List(&INGRESS))),
    ("ingressDeny", Inert(&List(&INGRESS_DENY))),
    ("enableDefaultDeny", DEFAULT_DENY),
    (
        "labels",
        Inert(&List(&Object(&[("key", Text), ("value", Text), ("source", Text)]))),
    ),
    ("log", Inert(&Object(&[("value", Inert(&Text))]))),
    ("description", Inert(&Text)),
]);

pub(super) const DEFAULT_DENY: Shape = Object(&[("egress", Boolean), ("ingress", Inert(&Boolean))]);

const EGRESS: Shape = Object(&[
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
const EGRESS_DENY: Shape = Object(&[
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

const INGRESS: Shape = Object(&[
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

const INGRESS_DENY: Shape = Object(&[
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

const FQDN: Shape = Object(&[("matchName", Text), ("matchPattern", Text)]);

const CIDR_RULE: Shape = Object(&[
    ("cidr", Text),
    ("except", List(&Text)),
    ("cidrGroupRef", Text),
    ("cidrGroupSelector", SELECTOR),
]);

const SERVICE: Shape = Object(&[
    ("k8sService", Object(&[("serviceName", Text), ("namespace", Text)])),
    (
        "k8sServiceSelector",
        Object(&[("selector", SELECTOR), ("namespace", Text)]),
    ),
]);

const GROUP: Shape = Object(&[(
    "aws",
    Object(&[
        ("labels", Map(&Text)),
        ("region", Text),
        ("securityGroupsIds", List(&Text)),
        ("securityGroupsNames", List(&Text)),
    ]),
)]);

const AUTHENTICATION: Shape = Object(&[("mode", Text)]);

const ICMP_RULE: Shape = Object(&[("fields", List(&Object(&[("family", Text), ("type", IntegerOrText)])))]);

const PORT_RULE: Shape = Object(&[
    ("ports", List(&PORT)),
    ("rules", L7_RULES),
    ("serverNames", List(&Text)),
    ("listener", LISTENER),
    ("terminatingTLS", TLS),
    ("originatingTLS", TLS),
]);

const PORT_DENY_RULE: Shape = Object(&[("ports", List(&PORT))]);

const PORT: Shape = Object(&[("port", Text), ("endPort", Integer), ("protocol", Text)]);

const L7_RULES: Shape = Object(&[
    ("dns", List(&FQDN)),
    ("http", List(&HTTP)),
    ("kafka", List(&KAFKA)),
    ("l7", List(&Map(&Text))),
    ("l7proto", Text),
]);

const HTTP: Shape = Object(&[
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

const KAFKA: Shape = Object(&[
    ("role", Text),
    ("apiKey", Text),
    ("apiVersion", Text),
    ("clientID", Text),
    ("topic", Text),
]);

const LISTENER: Shape = Object(&[
    ("envoyConfig", Object(&[("kind", Text), ("name", Text)])),
    ("name", Text),
    ("priority", Integer),
]);

const TLS: Shape = Object(&[
    ("secret", SECRET),
    ("trustedCA", Text),
    ("certificate", Text),
    ("privateKey", Text),
]);

const SECRET: Shape = Object(&[("name", Text), ("namespace", Text)]);
