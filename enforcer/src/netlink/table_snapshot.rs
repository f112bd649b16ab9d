//! The objects of a table, with the handles that tell whether an object is still the same
//! (`linux/netfilter/nf_tables.h`).
//!
//! The kernel gives every table, chain, set and rule a handle, and never gives the same one to
//! another object of the table, even after the first is gone. A rule that is replaced gets a new
//! handle. So objects with the same handles are the same, and no expression has to be compared.

use std::collections::BTreeMap;

use super::dump::ask;
use super::message::{Attributes, Encoder, NfnlHeader, NfnlMessage, field, flags, text};
use super::objects::{HookInfo, MapValue};
use super::set_key::SetKey;
use super::{nf_tables, verdict};

/// The objects of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableSnapshot {
    /// The table itself; `None` where it does not exist.
    pub(crate) table: Option<TableInfo>,
    /// Its chains, by name.
    pub(crate) chains: BTreeMap<String, ChainInfo>,
    /// Its named sets and maps, by name.
    pub(crate) sets: BTreeMap<String, SetInfo>,
}

/// A table without its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableInfo {
    pub(crate) handle: u64,
    /// `NFT_TABLE_F_*`. With `DORMANT`, no hook calls the table's chains.
    pub(crate) flags: u32,
}

/// A chain, with the handles of its rules in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChainInfo {
    pub(crate) handle: u64,
    /// The hook, if it is a base chain.
    pub(crate) hook: Option<HookInfo>,
    /// The verdict for packets that no rule decides, in base chains.
    pub(crate) policy: Option<u32>,
    pub(crate) rules: Vec<u64>,
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetInfo {
    pub(crate) handle: u64,
    pub(crate) shape: SetShape,
    pub(crate) limits: SetLimits,
}

/// The part of a set's declaration that cannot be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetShape {
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_length: u32,
    pub(crate) data_type: u32,
    pub(crate) data_length: u32,
}

/// The part of a set's declaration that may be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SetLimits {
    /// The most elements; 0 without a limit.
    pub(crate) size: u32,
    /// The default timeout of elements in milliseconds; 0 without one.
    pub(crate) timeout: u64,
    /// Milliseconds between two garbage collections; 0 where the kernel decides.
    pub(crate) sweep: u32,
}

/// An element as the kernel lists it. In sets of ranges with keys of a single field, the ends of
/// ranges are elements too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RawElement {
    pub(crate) key: SetKey,
    pub(crate) ends_range: bool,
}

/// An object of a table, out of a dump.
#[derive(Debug)]
pub(crate) enum TableObject {
    Chain(String, ChainInfo),
    /// A rule of this chain.
    Rule(String, u64),
    Set(String, SetInfo),
}

/// Encodes a request for the number of the last transaction, of all tables in the network
/// namespace.
pub(crate) fn ask_generation(sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(NfnlHeader {
        kind: nf_tables::msg::GET_GENERATION,
        flags: flags::REQUEST,
        sequence,
        family: 0,
        resource: 0,
    });
    encoder.close_message(message);
    encoder.finish()
}

/// Reads the reply to [`ask_generation`].
pub(crate) fn read_generation(message: &NfnlMessage<'_>) -> Option<u32> {
    if message.kind != nf_tables::msg::NEW_GENERATION {
        return None;
    }
    number(message.attributes().find(nf_tables::generation::ID)?)
}

/// Encodes a request for the tables of family `inet`.
pub(crate) fn ask_tables(sequence: u32) -> Vec<u8> {
    ask(nf_tables::msg::GET_TABLE, sequence, &[])
}

/// Reads the table of this name out of a reply to [`ask_tables`].
pub(crate) fn read_table(message: &NfnlMessage<'_>, table: &str) -> Option<TableInfo> {
    if message.kind != nf_tables::msg::NEW_TABLE
        || !is_of_family(message)
        || named(message, nf_tables::table::NAME)? != table
    {
        return None;
    }
    Some(TableInfo {
        handle: handle(message, nf_tables::table::HANDLE)?,
        flags: message
            .attributes()
            .find(nf_tables::table::FLAGS)
            .and_then(number)
            .unwrap_or(0),
    })
}

/// Reads a chain of `table` out of a reply to [`ask_chains`](super::dump::ask_chains), without
/// its rules.
pub(crate) fn read_chain(message: &NfnlMessage<'_>, table: &str) -> Option<TableObject> {
    if message.kind != nf_tables::msg::NEW_CHAIN
        || !is_of_family(message)
        || named(message, nf_tables::chain::TABLE)? != table
    {
        return None;
    }
    let attributes = message.attributes();
    let hook = attributes.clone().find(nf_tables::chain::HOOK).and_then(|hook| {
        Some(HookInfo {
            number: number(Attributes(hook).find(nf_tables::hook::NUMBER)?)?,
            priority: field(Attributes(hook).find(nf_tables::hook::PRIORITY)?, 0).map(i32::from_be_bytes)?,
            kind: named(message, nf_tables::chain::TYPE)?.to_owned(),
        })
    });
    let chain = ChainInfo {
        handle: handle(message, nf_tables::chain::HANDLE)?,
        hook,
        policy: attributes.find(nf_tables::chain::POLICY).and_then(number),
        rules: Vec::new(),
    };
    Some(TableObject::Chain(
        named(message, nf_tables::chain::NAME)?.to_owned(),
        chain,
    ))
}

/// Encodes a request for the rules of a table, which are listed chain by chain in their order.
pub(crate) fn ask_rules(table: &str, sequence: u32) -> Vec<u8> {
    ask(nf_tables::msg::GET_RULE, sequence, &[(nf_tables::rule::TABLE, table)])
}

/// Reads a rule of `table` out of a reply to [`ask_rules`].
pub(crate) fn read_rule(message: &NfnlMessage<'_>, table: &str) -> Option<TableObject> {
    if message.kind != nf_tables::msg::NEW_RULE
        || !is_of_family(message)
        || named(message, nf_tables::rule::TABLE)? != table
    {
        return None;
    }
    let chain = named(message, nf_tables::rule::CHAIN)?.to_owned();
    Some(TableObject::Rule(chain, handle(message, nf_tables::rule::HANDLE)?))
}

/// Reads a named set of `table` out of a reply to [`ask_sets`](super::dump::ask_sets).
pub(crate) fn read_set(message: &NfnlMessage<'_>, table: &str) -> Option<TableObject> {
    if message.kind != nf_tables::msg::NEW_SET || named(message, nf_tables::set::TABLE)? != table {
        return None;
    }
    let of = |kind| message.attributes().find(kind).and_then(number).unwrap_or(0);
    let flags = of(nf_tables::set::FLAGS);
    if flags & nf_tables::set_flag::ANONYMOUS != 0 {
        return None;
    }
    let size = message
        .attributes()
        .find(nf_tables::set::DESCRIPTION)
        .and_then(|description| Attributes(description).find(nf_tables::set_description::SIZE))
        .and_then(number);
    let set = SetInfo {
        handle: handle(message, nf_tables::set::HANDLE)?,
        shape: SetShape {
            flags,
            key_type: of(nf_tables::set::KEY_TYPE),
            key_length: of(nf_tables::set::KEY_LENGTH),
            data_type: of(nf_tables::set::DATA_TYPE),
            data_length: of(nf_tables::set::DATA_LENGTH),
        },
        limits: SetLimits {
            size: size.unwrap_or(0),
            timeout: handle(message, nf_tables::set::TIMEOUT).unwrap_or(0),
            sweep: of(nf_tables::set::GC_INTERVAL),
        },
    };
    Some(TableObject::Set(named(message, nf_tables::set::NAME)?.to_owned(), set))
}

/// Reads the elements out of a reply to [`ask_elements`](super::dump::ask_elements), with what
/// they are mapped to; malformed ones are left out.
pub(crate) fn read_entries<'a>(
    message: &NfnlMessage<'a>,
) -> impl Iterator<Item = (RawElement, Option<MapValue>)> + use<'a> {
    let list = match message.kind {
        nf_tables::msg::NEW_ELEMENT => message.attributes().find(nf_tables::element_list::ELEMENTS),
        _ => None,
    };
    Attributes(list.unwrap_or_default())
        .filter(|(kind, _)| *kind == nf_tables::LIST_ELEMENT)
        .filter_map(|(_, element)| {
            let key = Attributes(Attributes(element).find(nf_tables::element::KEY)?).find(nf_tables::data::VALUE)?;
            let flags = Attributes(element)
                .find(nf_tables::element::FLAGS)
                .and_then(number)
                .unwrap_or(0);
            let entry = RawElement {
                key: SetKey::from_slice(key),
                ends_range: flags & nf_tables::ELEMENT_INTERVAL_END != 0,
            };
            let value = Attributes(element).find(nf_tables::element::DATA).and_then(read_value);
            Some((entry, value))
        })
}

fn read_value(data: &[u8]) -> Option<MapValue> {
    if let Some(value) = Attributes(data).find(nf_tables::data::VALUE) {
        return Some(MapValue::Data(SetKey::from_slice(value)));
    }
    verdict::read(data).map(MapValue::Verdict)
}

impl TableSnapshot {
    /// Adds an object out of a dump. A rule must come after its chain; otherwise it is left out.
    pub(crate) fn take(&mut self, part: TableObject) {
        match part {
            TableObject::Chain(name, chain) => drop(self.chains.insert(name, chain)),
            TableObject::Rule(chain, handle) => {
                if let Some(chain) = self.chains.get_mut(&chain) {
                    chain.rules.push(handle);
                }
            }
            TableObject::Set(name, set) => drop(self.sets.insert(name, set)),
        }
    }
}

/// Kernels before Linux 4.18 list objects of all families.
fn is_of_family(message: &NfnlMessage<'_>) -> bool {
    message.payload.first() == Some(&nf_tables::FAMILY_INET)
}

fn named<'a>(message: &NfnlMessage<'a>, kind: u16) -> Option<&'a str> {
    message.attributes().find(kind).and_then(text)
}

fn handle(message: &NfnlMessage<'_>, kind: u16) -> Option<u64> {
    field(message.attributes().find(kind)?, 0).map(u64::from_be_bytes)
}

fn number(value: &[u8]) -> Option<u32> {
    field(value, 0).map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::NfnlMessages;

    /// A message of this kind.
    fn message(kind: u16, write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let message = encoder.open_message(NfnlHeader {
            kind,
            flags: 0,
            sequence: 1,
            family: nf_tables::FAMILY_INET,
            resource: 0,
        });
        write(&mut encoder);
        encoder.close_message(message);
        encoder.finish()
    }

    #[test]
    fn rules_are_put_with_their_chains_in_order() {
        let chain = message(nf_tables::msg::NEW_CHAIN, |encoder| {
            encoder.string(nf_tables::chain::TABLE, "t");
            encoder.string(nf_tables::chain::NAME, "forward");
            encoder.attribute(nf_tables::chain::HANDLE, &7u64.to_be_bytes());
            let hook = encoder.open_nest(nf_tables::chain::HOOK);
            encoder.attribute(nf_tables::hook::NUMBER, &2u32.to_be_bytes());
            encoder.attribute(nf_tables::hook::PRIORITY, &(-5i32).to_be_bytes());
            encoder.close_nest(hook);
            encoder.attribute(nf_tables::chain::POLICY, &1u32.to_be_bytes());
            encoder.string(nf_tables::chain::TYPE, "filter");
        });
        let rule = |table: &str, chain: &str, handle: u64| {
            message(nf_tables::msg::NEW_RULE, |encoder| {
                encoder.string(nf_tables::rule::TABLE, table);
                encoder.string(nf_tables::rule::CHAIN, chain);
                encoder.attribute(nf_tables::rule::HANDLE, &handle.to_be_bytes());
            })
        };
        let mut structure = TableSnapshot::default();
        let dumps = [
            chain,
            rule("t", "forward", 9),
            rule("t", "forward", 8),
            rule("other", "forward", 10),
            rule("t", "unheard", 11),
        ]
        .concat();
        for message in NfnlMessages(&dumps) {
            for part in [read_chain(&message, "t"), read_rule(&message, "t")]
                .into_iter()
                .flatten()
            {
                structure.take(part);
            }
        }
        let forward = ChainInfo {
            handle: 7,
            hook: Some(HookInfo {
                number: 2,
                priority: -5,
                kind: "filter".into(),
            }),
            policy: Some(1),
            rules: vec![9, 8],
        };
        assert_eq!(structure.chains, [("forward".to_owned(), forward)].into());
    }

    proptest! {
        #[test]
        fn hostile_dumps_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..256),
            kind in prop_oneof![
                Just(nf_tables::msg::NEW_TABLE), Just(nf_tables::msg::NEW_CHAIN), Just(nf_tables::msg::NEW_RULE), Just(nf_tables::msg::NEW_SET), Just(nf_tables::msg::NEW_ELEMENT), Just(nf_tables::msg::NEW_GENERATION)
            ],
        ) {
            let message = NfnlMessage { kind, flags: 0, sequence: 1, payload: &payload };
            let _ = read_generation(&message);
            let _ = read_table(&message, "t");
            let parts = [read_chain(&message, "t"), read_rule(&message, "t"), read_set(&message, "t")];
            let mut structure = TableSnapshot::default();
            parts.into_iter().flatten().for_each(|part| structure.take(part));
            prop_assert!(read_entries(&message).count() <= payload.len());
        }
    }
}
