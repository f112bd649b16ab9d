//! What an API server might hand over, for tests.

use proptest::prelude::*;
use serde_json::Value;

/// Any JSON under field names that mean something to a kind, and with texts that do, so that every
/// reader meets every type.
pub(crate) fn json(names: &'static [&'static str], texts: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        prop::sample::select(texts).prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 4, move |inner| {
        let fields = prop::collection::btree_map(prop::sample::select(names), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Into::into),
            fields.prop_map(|fields| serde_json::to_value(fields).unwrap()),
        ]
    })
}
