//! The shape of `policy.networking.k8s.io` ClusterNetworkPolicy, as the experimental CRD of
//! `v1beta1` has it, and that of `v1alpha2`.

use crate::selector::SHAPE as SELECTOR;
use crate::shape::FieldShape::{self, Any, Inert, Integer, List, Map, Object, Text};

pub(crate) static POLICY: FieldShape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Any),
    ("spec", SPEC),
    ("status", Any),
]);

pub(super) const SPEC: FieldShape = Object(&[
    ("tier", Text),
    ("priority", Integer),
    ("subject", SUBJECT),
    (
        "ingress",
        Inert(&List(&Object(&[
            ("name", Inert(&Text)),
            ("action", Text),
            ("from", EXTENSIBLE),
            ("protocols", EXTENSIBLE),
        ]))),
    ),
    (
        "egress",
        Inert(&List(&Object(&[
            ("name", Inert(&Text)),
            ("action", Text),
            ("to", EXTENSIBLE),
            ("protocols", EXTENSIBLE),
        ]))),
    ),
]);

/// Entries of which a newer version of the API may have others.
const EXTENSIBLE: FieldShape = List(&Map(&Any));

pub(super) const SUBJECT: FieldShape = Object(&[("namespaces", SELECTOR), ("pods", PODS)]);

const PODS: FieldShape = Object(&[("namespaceSelector", SELECTOR), ("podSelector", SELECTOR)]);

/// The peers that are known, each with the shape of what it holds.
pub(crate) static PEERS: [(&str, FieldShape); 5] = [
    ("namespaces", SELECTOR),
    ("pods", PODS),
    ("nodes", SELECTOR),
    ("networks", List(&Text)),
    ("domainNames", List(&Text)),
];

/// The protocols that are known, each with the shape of what it holds.
pub(crate) static PROTOCOLS: [(&str, FieldShape); 4] = [
    ("tcp", PROTOCOL),
    ("udp", PROTOCOL),
    ("sctp", PROTOCOL),
    ("destinationNamedPort", Text),
];

const PROTOCOL: FieldShape = Object(&[(
    "destinationPort",
    Object(&[
        ("number", Integer),
        ("range", Object(&[("start", Integer), ("end", Integer)])),
    ]),
)]);
