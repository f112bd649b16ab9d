//! The shape of `networking.k8s.io/v1` NetworkPolicy: all fields, whether enforced here or not.

use crate::selector::SHAPE as SELECTOR;
use crate::shape::FieldShape::{self, Any, Inert, Integer, IntegerOrText, List, Object, Text};

pub(crate) static POLICY: FieldShape = Object(&[
    ("apiVersion", Text),
    ("kind", Text),
    ("metadata", Any),
    ("spec", SPEC),
    ("status", Any),
]);

pub(super) const SPEC: FieldShape = Object(&[
    ("podSelector", SELECTOR),
    ("policyTypes", List(&Text)),
    // Where `policyTypes` lists the direction, no rules are none.
    (
        "ingress",
        Inert(&List(&Object(&[("from", List(&PEER)), ("ports", List(&PORT))]))),
    ),
    (
        "egress",
        Inert(&List(&Object(&[("to", List(&PEER)), ("ports", List(&PORT))]))),
    ),
]);

const PEER: FieldShape = Object(&[
    ("podSelector", SELECTOR),
    ("namespaceSelector", SELECTOR),
    ("ipBlock", Object(&[("cidr", Text), ("except", List(&Text))])),
]);

const PORT: FieldShape = Object(&[("protocol", Text), ("port", IntegerOrText), ("endPort", Integer)]);
