//! Requests for dumps of nf_tables (chains, sets, elements, counters), and their replies
//! (`linux/netfilter/nf_tables.h`).

use std::time::Duration;

use super::message::{Attributes, Encoder, NfnlHeader, NfnlMessage, field, flags, text};
use super::nf_tables;
use super::set_key::SetKey;

/// A named set or map, with what tells whether it has the form of a learned set.
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

/// Encodes a request for the chains of all tables: the kernel filters them by family only before
/// Linux 4.18.
pub(crate) fn ask_chains(sequence: u32) -> Vec<u8> {
    ask(nf_tables::msg::GET_CHAIN, sequence, &[])
}

/// Encodes a request for the sets of a table. The answer is ENOENT when there is no such table.
pub(crate) fn ask_sets(table: &str, sequence: u32) -> Vec<u8> {
    ask(nf_tables::msg::GET_SET, sequence, &[(nf_tables::set::TABLE, table)])
}

/// Reads a named set of `table` out of a reply to [`ask_sets`].
pub(crate) fn read_set(message: &NfnlMessage<'_>, table: &str) -> Option<SetSummary> {
    if message.kind != nf_tables::msg::NEW_SET
        || message.attributes().find(nf_tables::set::TABLE).and_then(text)? != table
    {
        return None;
    }
    let number = |value| field(value, 0).map(u32::from_be_bytes);
    let flags = message
        .attributes()
        .find(nf_tables::set::FLAGS)
        .and_then(number)
        .unwrap_or(0);
    if flags & nf_tables::set_flag::ANONYMOUS != 0 {
        return None;
    }
    Some(SetSummary {
        name: message
            .attributes()
            .find(nf_tables::set::NAME)
            .and_then(text)?
            .to_owned(),
        size: message
            .attributes()
            .find(nf_tables::set::DESCRIPTION)
            .and_then(|description| Attributes(description).find(nf_tables::set_description::SIZE))
            .and_then(number)
            .filter(|size| *size != 0),
        key_length: message
            .attributes()
            .find(nf_tables::set::KEY_LENGTH)
            .and_then(number)
            .unwrap_or(0),
        timeouts: flags & nf_tables::set_flag::TIMEOUT != 0,
    })
}

/// Encodes a request for the elements of a set.
pub(crate) fn ask_elements(table: &str, set: &str, sequence: u32) -> Vec<u8> {
    ask(
        nf_tables::msg::GET_ELEMENT,
        sequence,
        &[
            (nf_tables::element_list::TABLE, table),
            (nf_tables::element_list::SET, set),
        ],
    )
}

/// Encodes a request for one element of a set. The answer is ENOENT when the set does not hold it.
pub(crate) fn ask_element(table: &str, set: &str, key: &[u8], sequence: u32) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(NfnlHeader {
        kind: nf_tables::msg::GET_ELEMENT,
        flags: flags::REQUEST,
        sequence,
        family: nf_tables::FAMILY_INET,
        resource: 0,
    });
    encoder.string(nf_tables::element_list::TABLE, table);
    encoder.string(nf_tables::element_list::SET, set);
    let list = encoder.open_nest(nf_tables::element_list::ELEMENTS);
    let element = encoder.open_nest(nf_tables::LIST_ELEMENT);
    let nest = encoder.open_nest(nf_tables::element::KEY);
    encoder.attribute(nf_tables::data::VALUE, key);
    encoder.close_nest(nest);
    encoder.close_nest(element);
    encoder.close_nest(list);
    encoder.close_message(message);
    encoder.finish()
}

/// Reads the elements out of a reply to [`ask_elements`]. Malformed ones are left out.
pub(crate) fn read_elements<'a>(message: &NfnlMessage<'a>) -> impl Iterator<Item = StandingElement> + use<'a> {
    let list = if message.kind == nf_tables::msg::NEW_ELEMENT {
        message.attributes().find(nf_tables::element_list::ELEMENTS)
    } else {
        None
    };
    Attributes(list.unwrap_or_default())
        .filter(|(kind, _)| *kind == nf_tables::LIST_ELEMENT)
        .filter_map(|(_, element)| {
            let key = Attributes(Attributes(element).find(nf_tables::element::KEY)?).find(nf_tables::data::VALUE)?;
            let millis = Attributes(element)
                .find(nf_tables::element::EXPIRATION)
                .and_then(|value| field(value, 0));
            Some(StandingElement {
                key: SetKey::from_slice(key),
                remaining: millis.map(|millis| Duration::from_millis(u64::from_be_bytes(millis))),
            })
        })
}

/// Encodes a request for the named objects of a table, its counters among them.
pub(crate) fn ask_objects(table: &str, sequence: u32) -> Vec<u8> {
    ask(
        nf_tables::msg::GET_OBJECT,
        sequence,
        &[(nf_tables::object::TABLE, table)],
    )
}

/// Reads a counter of `table` out of a reply to [`ask_objects`]: its name and its packets.
pub(crate) fn read_counter(message: &NfnlMessage<'_>, table: &str) -> Option<(String, u64)> {
    if message.kind != nf_tables::msg::NEW_OBJECT
        || message.attributes().find(nf_tables::object::TABLE).and_then(text)? != table
    {
        return None;
    }
    if u32::from_be_bytes(field(message.attributes().find(nf_tables::object::TYPE)?, 0)?) != nf_tables::OBJECT_COUNTER {
        return None;
    }
    let name = message.attributes().find(nf_tables::object::NAME).and_then(text)?;
    let packets = Attributes(message.attributes().find(nf_tables::object::DATA)?).find(nf_tables::counter::PACKETS)?;
    Some((name.to_owned(), u64::from_be_bytes(field(packets, 0)?)))
}

pub(super) fn ask(kind: u16, sequence: u32, names: &[(u16, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let message = encoder.open_message(NfnlHeader {
        kind,
        flags: flags::REQUEST | flags::DUMP,
        sequence,
        family: nf_tables::FAMILY_INET,
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
            kind: nf_tables::msg::NEW_ELEMENT,
            flags: 0,
            sequence: 1,
            family: nf_tables::FAMILY_INET,
            resource: 0,
        });
        let list = encoder.open_nest(nf_tables::element_list::ELEMENTS);
        for millis in [Some(1500u64), None] {
            let element = encoder.open_nest(nf_tables::LIST_ELEMENT);
            let key = encoder.open_nest(nf_tables::element::KEY);
            encoder.attribute(nf_tables::data::VALUE, &[10, 0, 0, 1]);
            encoder.close_nest(key);
            if let Some(millis) = millis {
                encoder.attribute(nf_tables::element::EXPIRATION, &millis.to_be_bytes());
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
            kind in prop_oneof![Just(nf_tables::msg::NEW_SET), Just(nf_tables::msg::NEW_ELEMENT), Just(nf_tables::msg::NEW_OBJECT)],
        ) {
            let message = NfnlMessage { kind, flags: 0, sequence: 1, payload: &payload };
            let _ = read_set(&message, "t");
            let _ = read_counter(&message, "t");
            prop_assert!(read_elements(&message).count() <= payload.len());
        }
    }
}
