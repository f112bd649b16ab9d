//! What stands in nf_tables: tables, chains, sets and elements (`linux/netfilter/nf_tables.h`).

use std::time::Duration;

use super::batch::{
    DATA_VALUE, ELEMENT_EXPIRATION, ELEMENT_KEY, FAMILY_INET, LIST_ELEMENT, LIST_ELEMENTS, LIST_SET, LIST_TABLE,
    SUBSYSTEM, SetKey,
};
use super::message::{Attributes, Encoder, NfnlHeader, NfnlMessage, field, flags, text};

/// `NFT_MSG_*` with their subsystem.
const GET_CHAINS: u16 = SUBSYSTEM << 8 | 4;
const GET_SETS: u16 = SUBSYSTEM << 8 | 10;
const GET_ELEMENTS: u16 = SUBSYSTEM << 8 | 13;
const GET_OBJECTS: u16 = (SUBSYSTEM << 8) | 19;
const NEW_OBJECT: u16 = (SUBSYSTEM << 8) | 18;
pub(super) const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
pub(super) const NEW_ELEMENTS: u16 = SUBSYSTEM << 8 | 12;

/// `NFTA_SET_*`.
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
/// `NFTA_SET_DESC_SIZE`.
const DESCRIPTION_SIZE: u16 = 1;
/// `NFTA_OBJ_*`.
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`.
const COUNTER: u32 = 1;
/// `NFTA_COUNTER_PACKETS`.
const COUNTER_PACKETS: u16 = 2;
/// `NFT_SET_ANONYMOUS`: part of a rule, no set of its own.
const ANONYMOUS: u32 = 1;
/// `NFT_SET_TIMEOUT`.
const TIMEOUTS: u32 = 0x10;

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetSummary {
    pub(crate) name: String,
    /// How many elements it may hold, expired ones included; `None` without a limit.
    pub(crate) size: Option<u32>,
    /// The bytes of a key.
    pub(crate) key_length: u32,
    /// Whether its elements may have timeouts.
    pub(crate) timeouts: bool,
}

/// An element that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StandingElement {
    pub(crate) key: SetKey,
    /// `None` when it never expires.
    pub(crate) remaining: Option<Duration>,
}

/// Asks for the chains of all tables: the kernel filters them by family only before Linux 4.18.
pub(crate) fn ask_chains(sequence: u32) -> Vec<u8> {
    ask(GET_CHAINS, sequence, &[])
}

/// Asks for the sets of a table; answered with ENOENT when there is no such table.
pub(crate) fn ask_sets(table: &str, sequence: u32) -> Vec<u8> {
    ask(GET_SETS, sequence, &[(SET_TABLE, table)])
}

/// Reads a named set of `table` out of a reply to [`ask_sets`].
pub(crate) fn read_set(message: &NfnlMessage<'_>, table: &str) -> Option<SetSummary> {
    if message.kind != NEW_SET || message.attributes().find(SET_TABLE).and_then(text)? != table {
        return None;
    }
    let number = |value| field(value, 0).map(u32::from_be_bytes);
    let flags = message.attributes().find(SET_FLAGS).and_then(number).unwrap_or(0);
    if flags & ANONYMOUS != 0 {
        return None;
    }
    Some(SetSummary {
        name: message.attributes().find(SET_NAME).and_then(text)?.to_owned(),
        size: message
            .attributes()
            .find(SET_DESCRIPTION)
            .and_then(|description| Attributes(description).find(DESCRIPTION_SIZE))
            .and_then(number)
            .filter(|size| *size != 0),
        key_length: message.attributes().find(SET_KEY_LENGTH).and_then(number).unwrap_or(0),
        timeouts: flags & TIMEOUTS != 0,
    })
}

/// Asks for the elements of a set.
pub(crate) fn ask_elements(table: &str, set: &str, sequence: u32) -> Vec<u8> {
    ask(GET_ELEMENTS, sequence, &[(LIST_TABLE, table), (LIST_SET, set)])
}

/// Asks for one element of a set; answered with ENOENT when it does not hold it.
pub(crate) fn ask_element(table: &str, set: &str, key: &[u8], sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(NfnlHeader {
        kind: GET_ELEMENTS,
        flags: flags::REQUEST,
        sequence,
        family: FAMILY_INET,
        resource: 0,
    });
    encoder.string(LIST_TABLE, table);
    encoder.string(LIST_SET, set);
    let list = encoder.open_nest(LIST_ELEMENTS);
    let element = encoder.open_nest(LIST_ELEMENT);
    let nest = encoder.open_nest(ELEMENT_KEY);
    encoder.attribute(DATA_VALUE, key);
    encoder.close_nest(nest);
    encoder.close_nest(element);
    encoder.close_nest(list);
    encoder.close_message(message);
    encoder.finish()
}

/// Reads the elements out of a reply to [`ask_elements`]; malformed ones are left out.
pub(crate) fn read_elements<'a>(message: &NfnlMessage<'a>) -> impl Iterator<Item = StandingElement> + use<'a> {
    let list = if message.kind == NEW_ELEMENTS {
        message.attributes().find(LIST_ELEMENTS)
    } else {
        None
    };
    Attributes(list.unwrap_or_default())
        .filter(|(kind, _)| *kind == LIST_ELEMENT)
        .filter_map(|(_, element)| {
            let key = Attributes(Attributes(element).find(ELEMENT_KEY)?).find(DATA_VALUE)?;
            let millis = Attributes(element)
                .find(ELEMENT_EXPIRATION)
                .and_then(|value| field(value, 0));
            Some(StandingElement {
                key: SetKey::from_slice(key),
                remaining: millis.map(|millis| Duration::from_millis(u64::from_be_bytes(millis))),
            })
        })
}

/// Asks for the named objects of a table, counters among them.
pub(crate) fn ask_objects(table: &str, sequence: u32) -> Vec<u8> {
    ask(GET_OBJECTS, sequence, &[(OBJECT_TABLE, table)])
}

/// Reads a counter of `table` out of a reply to [`ask_objects`]: its name, and the packets that it
/// counted.
pub(crate) fn read_counter(message: &NfnlMessage<'_>, table: &str) -> Option<(String, u64)> {
    if message.kind != NEW_OBJECT || message.attributes().find(OBJECT_TABLE).and_then(text)? != table {
        return None;
    }
    if u32::from_be_bytes(field(message.attributes().find(OBJECT_TYPE)?, 0)?) != COUNTER {
        return None;
    }
    let name = message.attributes().find(OBJECT_NAME).and_then(text)?;
    let packets = Attributes(message.attributes().find(OBJECT_DATA)?).find(COUNTER_PACKETS)?;
    Some((name.to_owned(), u64::from_be_bytes(field(packets, 0)?)))
}

pub(super) fn ask(kind: u16, sequence: u32, names: &[(u16, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(NfnlHeader {
        kind,
        flags: flags::REQUEST | flags::DUMP,
        sequence,
        family: FAMILY_INET,
        resource: 0,
    });
    for (attribute, name) in names {
        encoder.string(*attribute, name);
    }
    encoder.close_message(message);
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::message::NfnlMessages;

    #[test]
    fn elements_are_read_with_the_time_they_have_left() {
        let mut encoder = Encoder::default();
        let message = encoder.open_message(NfnlHeader {
            kind: NEW_ELEMENTS,
            flags: 0,
            sequence: 1,
            family: FAMILY_INET,
            resource: 0,
        });
        let list = encoder.open_nest(LIST_ELEMENTS);
        for millis in [Some(1500u64), None] {
            let element = encoder.open_nest(LIST_ELEMENT);
            let key = encoder.open_nest(ELEMENT_KEY);
            encoder.attribute(DATA_VALUE, &[10, 0, 0, 1]);
            encoder.close_nest(key);
            if let Some(millis) = millis {
                encoder.attribute(ELEMENT_EXPIRATION, &millis.to_be_bytes());
            }
            encoder.close_nest(element);
        }
        encoder.close_nest(list);
        encoder.close_message(message);
        let bytes = encoder.finish();
        let elements: Vec<_> = NfnlMessages(&bytes)
            .flat_map(|message| read_elements(&message))
            .collect();
        let expected = |remaining| StandingElement {
            key: SetKey::from_slice(&[10, 0, 0, 1]),
            remaining,
        };
        assert_eq!(elements, [expected(Some(Duration::from_millis(1500))), expected(None)]);
    }

    proptest! {
        #[test]
        fn hostile_dumps_never_panic(
            payload in proptest::collection::vec(any::<u8>(), 0..256),
            kind in prop_oneof![Just(NEW_SET), Just(NEW_ELEMENTS), Just(NEW_OBJECT)],
        ) {
            let message = NfnlMessage { kind, flags: 0, sequence: 1, payload: &payload };
            let _ = read_set(&message, "t");
            let _ = read_counter(&message, "t");
            prop_assert!(read_elements(&message).count() <= payload.len());
        }
    }
}
