//! What stands in a table, with the handles that tell whether it is still the same
//! (`linux/netfilter/nf_tables.h`).
//!
//! The kernel gives every table, chain, set and rule a number that it gives to no other in its
//! table, also not after that one is gone, and a rule that is replaced gets a new one. So what has
//! the same handles is what it was, and no expression has to be compared.

use std::collections::BTreeMap;

use super::batch::{DATA_VALUE, ELEMENT_KEY, FAMILY_INET, LIST_ELEMENT, LIST_ELEMENTS, SUBSYSTEM, SetKey};
use super::dump::{NEW_ELEMENTS, NEW_SET, ask};
use super::message::{Attributes, Encoder, NfnlHeader, NfnlMessage, field, flags, text};
use super::objects::{MapValue, NftVerdict};

/// `NFT_MSG_*` with their subsystem.
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLES: u16 = SUBSYSTEM << 8 | 1;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULES: u16 = SUBSYSTEM << 8 | 7;
const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;
const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;

/// `NFTA_GEN_ID`.
const GENERATION_ID: u16 = 1;
/// `NFTA_TABLE_*`.
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_HANDLE: u16 = 4;
/// `NFTA_CHAIN_*`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_HANDLE: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
/// `NFTA_HOOK_*`.
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NFTA_RULE_*`.
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
/// `NFTA_SET_*`.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_TIMEOUT: u16 = 11;
const SET_SWEEP: u16 = 12;
const SET_HANDLE: u16 = 16;
/// `NFTA_SET_DESC_SIZE`.
const DESCRIPTION_SIZE: u16 = 1;
/// `NFT_SET_ANONYMOUS`: part of a rule, and as constant as it.
const ANONYMOUS: u32 = 1;
/// `NFTA_SET_ELEM_*`, `NFT_SET_ELEM_INTERVAL_END`.
const ELEMENT_DATA: u16 = 2;
const ELEMENT_FLAGS: u16 = 3;
const INTERVAL_END: u32 = 1;
/// `NFTA_DATA_VERDICT`, `NFTA_VERDICT_*`, and codes.
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableSnapshot {
    /// Itself; `None` where there is none.
    pub(crate) table: Option<TableInfo>,
    /// Its chains, by name.
    pub(crate) chains: BTreeMap<String, ChainInfo>,
    /// Its named sets and maps, by name.
    pub(crate) sets: BTreeMap<String, SetInfo>,
}

/// What is said of a table itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableInfo {
    pub(crate) handle: u64,
    /// `NFT_TABLE_F_DORMANT` among them: then no hook calls its chains.
    pub(crate) flags: u32,
}

/// A chain, with the handles of its rules in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChainInfo {
    pub(crate) handle: u64,
    /// Where it hooks in, if it is a base chain.
    pub(crate) hook: Option<HookInfo>,
    /// What becomes of packets that no rule decides; of base chains.
    pub(crate) policy: Option<u32>,
    pub(crate) rules: Vec<u64>,
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookInfo {
    /// `NF_INET_*`.
    pub(crate) number: u32,
    pub(crate) priority: i32,
    /// `filter`, `nat`, `route`.
    pub(crate) kind: String,
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetInfo {
    pub(crate) handle: u64,
    pub(crate) shape: SetShape,
    pub(crate) limits: SetLimits,
}

/// What of a set is given for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetShape {
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_length: u32,
    pub(crate) data_type: u32,
    pub(crate) data_length: u32,
}

/// What of a set may be changed while it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SetLimits {
    /// Elements; 0 without a limit.
    pub(crate) size: u32,
    /// Milliseconds that an element lives of which nothing is said; 0 without an end.
    pub(crate) timeout: u64,
    /// Milliseconds between two sweeps; 0 where the kernel decides.
    pub(crate) sweep: u32,
}

/// An element of a set that the whole table uses: those of a single part hold ends of ranges as
/// elements.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RawElement {
    pub(crate) key: SetKey,
    pub(crate) ends_range: bool,
}

/// A part of a table, as a dump tells it.
#[derive(Debug)]
pub(crate) enum TableObject {
    Chain(String, ChainInfo),
    /// A rule of this chain.
    Rule(String, u64),
    Set(String, SetInfo),
}

/// Asks which transaction was the last, of all tables in the network namespace.
pub(crate) fn ask_generation(sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(NfnlHeader {
        kind: GET_GENERATION,
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
    if message.kind != NEW_GENERATION {
        return None;
    }
    number(message.attributes().find(GENERATION_ID)?)
}

/// Asks for the tables of our family.
pub(crate) fn ask_tables(sequence: u32) -> Vec<u8> {
    ask(GET_TABLES, sequence, &[])
}

/// Reads the table of this name out of a reply to [`ask_tables`].
pub(crate) fn read_table(message: &NfnlMessage<'_>, table: &str) -> Option<TableInfo> {
    if message.kind != NEW_TABLE || !is_of_family(message) || named(message, TABLE_NAME)? != table {
        return None;
    }
    Some(TableInfo {
        handle: handle(message, TABLE_HANDLE)?,
        flags: message.attributes().find(TABLE_FLAGS).and_then(number).unwrap_or(0),
    })
}

/// Reads a chain of `table` out of a reply to [`ask_chains`](super::dump::ask_chains), without
/// its rules.
pub(crate) fn read_chain(message: &NfnlMessage<'_>, table: &str) -> Option<TableObject> {
    if message.kind != NEW_CHAIN || !is_of_family(message) || named(message, CHAIN_TABLE)? != table {
        return None;
    }
    let attributes = message.attributes();
    let hook = attributes.clone().find(CHAIN_HOOK).and_then(|hook| {
        Some(HookInfo {
            number: number(Attributes(hook).find(HOOK_NUMBER)?)?,
            priority: field(Attributes(hook).find(HOOK_PRIORITY)?, 0).map(i32::from_be_bytes)?,
            kind: named(message, CHAIN_TYPE)?.to_owned(),
        })
    });
    let chain = ChainInfo {
        handle: handle(message, CHAIN_HANDLE)?,
        hook,
        policy: attributes.find(CHAIN_POLICY).and_then(number),
        rules: Vec::new(),
    };
    Some(TableObject::Chain(named(message, CHAIN_NAME)?.to_owned(), chain))
}

/// Asks for the rules of a table, chain by chain in their order.
pub(crate) fn ask_rules(table: &str, sequence: u32) -> Vec<u8> {
    ask(GET_RULES, sequence, &[(RULE_TABLE, table)])
}

/// Reads a rule of `table` out of a reply to [`ask_rules`].
pub(crate) fn read_rule(message: &NfnlMessage<'_>, table: &str) -> Option<TableObject> {
    if message.kind != NEW_RULE || !is_of_family(message) || named(message, RULE_TABLE)? != table {
        return None;
    }
    let chain = named(message, RULE_CHAIN)?.to_owned();
    Some(TableObject::Rule(chain, handle(message, RULE_HANDLE)?))
}

/// Reads a named set of `table` out of a reply to [`ask_sets`](super::dump::ask_sets).
pub(crate) fn read_set(message: &NfnlMessage<'_>, table: &str) -> Option<TableObject> {
    if message.kind != NEW_SET || named(message, SET_TABLE)? != table {
        return None;
    }
    let of = |kind| message.attributes().find(kind).and_then(number).unwrap_or(0);
    let flags = of(SET_FLAGS);
    if flags & ANONYMOUS != 0 {
        return None;
    }
    let size = message
        .attributes()
        .find(SET_DESCRIPTION)
        .and_then(|description| Attributes(description).find(DESCRIPTION_SIZE))
        .and_then(number);
    let set = SetInfo {
        handle: handle(message, SET_HANDLE)?,
        shape: SetShape {
            flags,
            key_type: of(SET_KEY_TYPE),
            key_length: of(SET_KEY_LENGTH),
            data_type: of(SET_DATA_TYPE),
            data_length: of(SET_DATA_LENGTH),
        },
        limits: SetLimits {
            size: size.unwrap_or(0),
            timeout: handle(message, SET_TIMEOUT).unwrap_or(0),
            sweep: of(SET_SWEEP),
        },
    };
    Some(TableObject::Set(named(message, SET_NAME)?.to_owned(), set))
}

/// Reads the elements out of a reply to [`ask_elements`](super::dump::ask_elements), with what
/// they are mapped to; malformed ones are left out.
pub(crate) fn read_entries<'a>(
    message: &NfnlMessage<'a>,
) -> impl Iterator<Item = (RawElement, Option<MapValue>)> + use<'a> {
    let list = match message.kind {
        NEW_ELEMENTS => message.attributes().find(LIST_ELEMENTS),
        _ => None,
    };
    Attributes(list.unwrap_or_default())
        .filter(|(kind, _)| *kind == LIST_ELEMENT)
        .filter_map(|(_, element)| {
            let key = Attributes(Attributes(element).find(ELEMENT_KEY)?).find(DATA_VALUE)?;
            let flags = Attributes(element).find(ELEMENT_FLAGS).and_then(number).unwrap_or(0);
            let entry = RawElement {
                key: SetKey::from_slice(key),
                ends_range: flags & INTERVAL_END != 0,
            };
            let value = Attributes(element).find(ELEMENT_DATA).and_then(read_value);
            Some((entry, value))
        })
}

fn read_value(data: &[u8]) -> Option<MapValue> {
    if let Some(value) = Attributes(data).find(DATA_VALUE) {
        return Some(MapValue::Data(SetKey::from_slice(value)));
    }
    let verdict = Attributes(data).find(DATA_VERDICT)?;
    let chain = || {
        Attributes(verdict)
            .find(VERDICT_CHAIN)
            .and_then(text)
            .map(|chain| chain.into())
    };
    let code = i32::from_be_bytes(field(Attributes(verdict).find(VERDICT_CODE)?, 0)?);
    let verdict = match code {
        DROP => NftVerdict::Drop,
        ACCEPT => NftVerdict::Accept,
        RETURN => NftVerdict::Return,
        GOTO => NftVerdict::Goto(chain()?),
        // None of ours.
        _ => return None,
    };
    Some(MapValue::Verdict(verdict))
}

impl TableSnapshot {
    /// Adds what a dump told; rules of chains that it did not tell before are left out.
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

/// Kernels before Linux 4.18 tell of all families.
fn is_of_family(message: &NfnlMessage<'_>) -> bool {
    message.payload.first() == Some(&FAMILY_INET)
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
            family: FAMILY_INET,
            resource: 0,
        });
        write(&mut encoder);
        encoder.close_message(message);
        encoder.finish()
    }

    #[test]
    fn rules_are_put_with_their_chains_in_order() {
        let chain = message(NEW_CHAIN, |encoder| {
            encoder.string(CHAIN_TABLE, "t");
            encoder.string(CHAIN_NAME, "forward");
            encoder.attribute(CHAIN_HANDLE, &7u64.to_be_bytes());
            let hook = encoder.open_nest(CHAIN_HOOK);
            encoder.attribute(HOOK_NUMBER, &2u32.to_be_bytes());
            encoder.attribute(HOOK_PRIORITY, &(-5i32).to_be_bytes());
            encoder.close_nest(hook);
            encoder.attribute(CHAIN_POLICY, &1u32.to_be_bytes());
            encoder.string(CHAIN_TYPE, "filter");
        });
        let rule = |table: &str, chain: &str, handle: u64| {
            message(NEW_RULE, |encoder| {
                encoder.string(RULE_TABLE, table);
                encoder.string(RULE_CHAIN, chain);
                encoder.attribute(RULE_HANDLE, &handle.to_be_bytes());
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
                Just(NEW_TABLE), Just(NEW_CHAIN), Just(NEW_RULE), Just(NEW_SET), Just(NEW_ELEMENTS), Just(NEW_GENERATION)
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
