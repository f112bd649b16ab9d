//! Random patterns and names over a tiny alphabet, so that they often meet.

use proptest::prelude::*;

use crate::name::Name;

pub(crate) fn written_pattern() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        4 => "[abA-]{1,3}",
        3 => "[ab*]{1,5}",
        2 => Just("*".to_owned()),
        1 => Just("**".to_owned()),
    ];
    (prop::collection::vec(label, 1..5), any::<bool>())
        .prop_map(|(labels, dot)| labels.join(".") + if dot { "." } else { "" })
}

pub(crate) fn asked_name() -> impl Strategy<Value = Name> {
    let label = prop_oneof![
        8 => "[abA-]{1,4}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(label, 0..6).prop_map(|labels| Name::from_wire_labels(labels.iter().map(Vec::as_slice)))
}
