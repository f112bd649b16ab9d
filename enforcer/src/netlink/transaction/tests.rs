use std::time::Duration;

use crate::netlink::message::{Attributes, NfnlMessages, text};
use crate::netlink::objects::{Datatype, NftRule, NftVerdict, PacketField, RuleLookup, RuleMatch, SetSpec, half_open};
use crate::netlink::set_key::{KeyRange, SetKey};

use super::*;

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn kinds(encoded: &EncodedTransaction) -> Vec<u16> {
    NfnlMessages(&encoded.bytes).map(|message| message.kind).collect()
}

fn range(first: &[u8], last: &[u8]) -> KeyRange {
    KeyRange {
        first: SetKey::from_slice(first),
        last: SetKey::from_slice(last),
    }
}

#[test]
fn a_rule_brings_its_own_set_before_it_and_only_the_last_message_is_acknowledged() {
    let rule = NftRule {
        test: RuleMatch::In(
            vec![PacketField::Protocol, PacketField::Port],
            RuleLookup::Ranges(vec![range(&[6, 0, 0, 0, 0, 80, 0, 0], &[6, 0, 0, 0, 0, 90, 0, 0])]),
        ),
        verdict: Some(NftVerdict::Return),
    };
    let commands = [
        TableCommand::AddChain(name("a")),
        TableCommand::AddRule(name("a"), rule),
    ];
    let encoded = EncodedTransaction::new("t", &commands, 7);
    assert_eq!(
        kinds(&encoded),
        [
            BEGIN,
            nf_tables::msg::NEW_CHAIN,
            nf_tables::msg::NEW_SET,
            nf_tables::msg::NEW_ELEMENT,
            nf_tables::msg::NEW_RULE,
            END
        ]
    );
    assert_eq!(encoded.commands, [0, 1, 1, 1]);
    let acknowledged: Vec<bool> = NfnlMessages(&encoded.bytes)
        .map(|message| message.flags & flags::ACK != 0)
        .collect();
    assert_eq!(acknowledged, [false, false, false, false, true, false]);
    assert_eq!(encoded.end(), 12);
}

#[test]
fn objections_name_the_command_and_the_last_reply_ends_them() {
    let commands = [TableCommand::AddChain(name("a")), TableCommand::DeleteSet(name("b"))];
    let encoded = EncodedTransaction::new("t", &commands, u32::MAX);
    let reply = |sequence, errno| NetlinkReply {
        sequence,
        errno,
        explanation: None,
        offset: None,
    };
    let mut errors = Vec::new();
    assert!(
        !encoded.take(&mut errors, reply(17, libc::EINVAL)),
        "of another transaction"
    );
    assert!(!encoded.take(&mut errors, reply(0, libc::EEXIST)));
    assert!(encoded.take(&mut errors, reply(1, libc::ENOENT)));
    let found: Vec<_> = errors.iter().map(|error| (error.command, error.errno)).collect();
    assert_eq!(found, [(Some(0), libc::EEXIST), (Some(1), libc::ENOENT)]);
    // The whole is refused.
    assert!(encoded.take(&mut errors, reply(u32::MAX, libc::EPERM)));
    assert_eq!(errors[2].command, None);
}

#[test]
fn elements_are_spread_over_messages_within_the_nest_limit() {
    let element = NewElement {
        timeout: Some(Duration::from_secs(1)),
        ..NewElement::plain(SetKey::from_slice(&[0; 24]))
    };
    let commands = [TableCommand::AddElements(name("s"), vec![element; 5000])];
    let encoded = EncodedTransaction::new("t", &commands, 1);
    let lists =
        NfnlMessages(&encoded.bytes).filter_map(|message| message.attributes().find(nf_tables::element_list::ELEMENTS));
    let counts: Vec<usize> = lists.map(|list| Attributes(list).count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 5000);
    assert!(counts.len() > 4 && encoded.commands == vec![0; counts.len()]);
}

#[test]
fn emptying_a_set_names_it_and_no_element() {
    let encoded = EncodedTransaction::new("t", &[TableCommand::EmptySet(name("s"))], 1);
    let message = NfnlMessages(&encoded.bytes).nth(1).unwrap();
    assert_eq!(message.kind, nf_tables::msg::DELETE_ELEMENT);
    assert_eq!(
        message.attributes().find(nf_tables::element_list::SET).and_then(text),
        Some("s")
    );
    assert_eq!(message.attributes().find(nf_tables::element_list::ELEMENTS), None);
}

#[test]
fn ranges_of_one_part_end_where_the_next_begins_or_with_an_element_of_their_own() {
    let ranges = [range(&[1], &[3]), range(&[4], &[4]), range(&[9], &[255])];
    let elements: Vec<(u8, bool)> = half_open(ranges.iter().map(|range| (range, None)))
        .iter()
        .map(|element| (element.key[0], element.ends_range))
        .collect();
    assert_eq!(elements, [(1, false), (4, false), (5, true), (9, false)]);
}

#[test]
fn a_declared_size_is_at_least_what_is_written() {
    for element in [
        NewElement::plain(SetKey::from_slice(&[1; 4])),
        NewElement {
            value: Some(crate::netlink::objects::MapValue::Verdict(NftVerdict::Goto(name(
                "ep4-0123456789abcdef",
            )))),
            ..NewElement::plain(SetKey::from_slice(&[1; 16]))
        },
        NewElement {
            ends_range: true,
            timeout: Some(Duration::from_secs(1)),
            last: Some(SetKey::from_slice(&[1; 5])),
            value: Some(crate::netlink::objects::MapValue::Data(SetKey::from_slice(&[1; 2]))),
            ..NewElement::plain(SetKey::from_slice(&[1; 5]))
        },
    ] {
        let mut encoder = Encoder::default();
        let nest = encoder.open_nest(nf_tables::LIST_ELEMENT);
        set::encode_element(&mut encoder, &element);
        encoder.close_nest(nest);
        assert!(encoder.len() <= set::element_size(&element), "{element:?}");
    }
}

#[test]
fn a_set_of_ranges_says_so() {
    let form = SetSpec {
        key: vec![Datatype::Port],
        maps_to: None,
        ranges: true,
        timeouts: false,
        swept: None,
        size: None,
        meter: None,
    };
    let encoded = EncodedTransaction::new("t", &[TableCommand::AddSet(name("s"), form)], 1);
    let message = NfnlMessages(&encoded.bytes).nth(1).unwrap();
    assert_eq!(message.attributes().find(3), Some(&[0, 0, 0, 4][..]));
    assert_eq!(message.attributes().find(5), Some(&[0, 0, 0, 2][..]));
}
