//! Encodes a rule as expressions, which compute on registers of four octets.

use crate::layout::IpFamily;
use crate::netlink::message::{Encoder, align};
use crate::netlink::objects::{NftVerdict, PacketField};
use crate::netlink::{nf_tables, verdict};

/// `NFTA_EXPR_*`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_META_*`.
const META_TO: u16 = 1;
const META_KEY: u16 = 2;
/// `NFTA_PAYLOAD_*`.
const PAYLOAD_TO: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
/// `NFTA_CMP_*`.
const COMPARE_FROM: u16 = 1;
const COMPARE_HOW: u16 = 2;
const COMPARE_WITH: u16 = 3;
/// `NFTA_CT_*`.
const CONNTRACK_TO: u16 = 1;
const CONNTRACK_KEY: u16 = 2;
const CONNTRACK_DIRECTION: u16 = 3;
/// `NFTA_BITWISE_*`.
const BITWISE_FROM: u16 = 1;
const BITWISE_TO: u16 = 2;
const BITWISE_LENGTH: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
/// `NFTA_LOOKUP_*`.
const LOOKUP_SET: u16 = 1;
const LOOKUP_FROM: u16 = 2;
const LOOKUP_TO: u16 = 3;
const LOOKUP_SET_ID: u16 = 4;
/// `NFTA_IMMEDIATE_*`.
const IMMEDIATE_TO: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;

/// `NFT_REG_VERDICT`, `NFT_REG32_00`.
const VERDICT: u32 = 0;
const FIRST: u32 = 8;

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// `NFT_CT_*`, and `IP_CT_DIR_ORIGINAL`.
const CONNTRACK_STATE: u32 = 0;
const CONNTRACK_PORT: u32 = 12;
const CONNTRACK_DESTINATION_V4: u32 = 20;
const CONNTRACK_DESTINATION_V6: u32 = 22;
const ORIGINAL: u8 = 0;
/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
pub(super) const ESTABLISHED: u32 = 2;
pub(super) const RELATED: u32 = 4;

/// `NFT_META_*`.
const META_LINK: u32 = 4;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

/// `NFT_PAYLOAD_*_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// A rule whose sets all have names.
pub(super) struct ResolvedRule<'a> {
    /// All of them, in order.
    pub(super) tests: Vec<ResolvedMatch<'a>>,
    pub(super) verdict: Option<&'a NftVerdict>,
}

pub(super) enum ResolvedMatch<'a> {
    Is(u8),
    /// This destination port.
    IsTo(u16),
    /// One of these bits of the conntrack state.
    State(u32),
    In {
        fields: &'a [PacketField],
        set: String,
        id: Option<u32>,
        /// Whether the set is a verdict map.
        is_map: bool,
    },
}

pub(super) fn encode(encoder: &mut Encoder, rule: &ResolvedRule<'_>) {
    for test in &rule.tests {
        encode_test(encoder, test);
    }
    if let Some(verdict) = rule.verdict {
        expression(encoder, "immediate", |encoder| {
            encoder.attribute(IMMEDIATE_TO, &VERDICT.to_be_bytes());
            let data = encoder.open_nest(IMMEDIATE_DATA);
            verdict::encode(encoder, verdict);
            encoder.close_nest(data);
        });
    }
}

fn encode_test(encoder: &mut Encoder, test: &ResolvedMatch<'_>) {
    match test {
        ResolvedMatch::Is(protocol) => {
            load_meta(encoder, META_L4PROTO, FIRST);
            compare(encoder, FIRST, EQUAL, &[*protocol]);
        }
        ResolvedMatch::IsTo(port) => {
            load(encoder, PacketField::Port, FIRST);
            compare(encoder, FIRST, EQUAL, &port.to_be_bytes());
        }
        ResolvedMatch::State(bits) => {
            load_conntrack(encoder, CONNTRACK_STATE, None, FIRST);
            mask(encoder, FIRST, *bits);
            compare(encoder, FIRST, UNEQUAL, &0u32.to_ne_bytes());
        }
        ResolvedMatch::In {
            fields,
            set,
            id,
            is_map,
        } => {
            // Packets in the chain always match these; nft needs them to print the fields by name.
            for field in *fields {
                say_context(encoder, *field);
            }
            let mut register = FIRST;
            for field in *fields {
                load(encoder, *field, register);
                // At most four registers for one field.
                register += u32::try_from(align(field.datatype().length()) / 4).unwrap_or(0);
            }
            look_up(encoder, set, *id, *is_map);
        }
    }
}

fn say_context(encoder: &mut Encoder, field: PacketField) {
    match field {
        PacketField::Source(family) | PacketField::Destination(family) | PacketField::OriginalDestination(family) => {
            load_meta(encoder, META_NFPROTO, FIRST);
            let nfproto = match family {
                IpFamily::V4 => 2,
                IpFamily::V6 => 10,
            };
            compare(encoder, FIRST, EQUAL, &[nfproto]);
        }
        PacketField::MessageType(family) => {
            load_meta(encoder, META_L4PROTO, FIRST);
            let protocol = match family {
                IpFamily::V4 => policy::Protocol::Icmp,
                IpFamily::V6 => policy::Protocol::Icmpv6,
            };
            compare(encoder, FIRST, EQUAL, &[protocol.number()]);
        }
        PacketField::Link
        | PacketField::Protocol
        | PacketField::Port
        | PacketField::SourcePort
        | PacketField::OriginalPort => {}
    }
}

fn load(encoder: &mut Encoder, field: PacketField, to: u32) {
    let (base, offset) = match field {
        PacketField::Protocol => return load_meta(encoder, META_L4PROTO, to),
        PacketField::Link => return load_meta(encoder, META_LINK, to),
        PacketField::OriginalDestination(IpFamily::V4) => {
            return load_conntrack(encoder, CONNTRACK_DESTINATION_V4, Some(ORIGINAL), to);
        }
        PacketField::OriginalDestination(IpFamily::V6) => {
            return load_conntrack(encoder, CONNTRACK_DESTINATION_V6, Some(ORIGINAL), to);
        }
        PacketField::OriginalPort => return load_conntrack(encoder, CONNTRACK_PORT, Some(ORIGINAL), to),
        PacketField::Source(IpFamily::V4) => (NETWORK, 12),
        PacketField::Source(IpFamily::V6) => (NETWORK, 8),
        PacketField::Destination(IpFamily::V4) => (NETWORK, 16),
        PacketField::Destination(IpFamily::V6) => (NETWORK, 24),
        PacketField::Port => (TRANSPORT, 2),
        PacketField::SourcePort => (TRANSPORT, 0),
        PacketField::MessageType(_) => (TRANSPORT, 0),
    };
    let length = u32::try_from(field.datatype().length()).unwrap_or(0);
    expression(encoder, "payload", |encoder| {
        encoder.attribute(PAYLOAD_TO, &to.to_be_bytes());
        encoder.attribute(PAYLOAD_BASE, &base.to_be_bytes());
        encoder.attribute(PAYLOAD_OFFSET, &u32::to_be_bytes(offset));
        encoder.attribute(PAYLOAD_LENGTH, &length.to_be_bytes());
    });
}

fn load_meta(encoder: &mut Encoder, key: u32, to: u32) {
    expression(encoder, "meta", |encoder| {
        encoder.attribute(META_KEY, &key.to_be_bytes());
        encoder.attribute(META_TO, &to.to_be_bytes());
    });
}

fn load_conntrack(encoder: &mut Encoder, key: u32, direction: Option<u8>, to: u32) {
    expression(encoder, "ct", |encoder| {
        encoder.attribute(CONNTRACK_TO, &to.to_be_bytes());
        encoder.attribute(CONNTRACK_KEY, &key.to_be_bytes());
        if let Some(direction) = direction {
            encoder.attribute(CONNTRACK_DIRECTION, &[direction]);
        }
    });
}

/// Keeps these bits of a register, which is in the byte order of this machine.
fn mask(encoder: &mut Encoder, register: u32, bits: u32) {
    expression(encoder, "bitwise", |encoder| {
        encoder.attribute(BITWISE_FROM, &register.to_be_bytes());
        encoder.attribute(BITWISE_TO, &register.to_be_bytes());
        encoder.attribute(BITWISE_LENGTH, &4u32.to_be_bytes());
        for (operand, value) in [(BITWISE_MASK, bits), (BITWISE_XOR, 0)] {
            let data = encoder.open_nest(operand);
            encoder.attribute(nf_tables::data::VALUE, &value.to_ne_bytes());
            encoder.close_nest(data);
        }
    });
}

/// Breaks off the rule unless the register and the value are [`EQUAL`], or [`UNEQUAL`].
fn compare(encoder: &mut Encoder, from: u32, how: u32, with: &[u8]) {
    expression(encoder, "cmp", |encoder| {
        encoder.attribute(COMPARE_FROM, &from.to_be_bytes());
        encoder.attribute(COMPARE_HOW, &how.to_be_bytes());
        let data = encoder.open_nest(COMPARE_WITH);
        encoder.attribute(nf_tables::data::VALUE, with);
        encoder.close_nest(data);
    });
}

fn look_up(encoder: &mut Encoder, set: &str, id: Option<u32>, is_map: bool) {
    expression(encoder, "lookup", |encoder| {
        encoder.string(LOOKUP_SET, set);
        encoder.attribute(LOOKUP_FROM, &FIRST.to_be_bytes());
        if is_map {
            encoder.attribute(LOOKUP_TO, &VERDICT.to_be_bytes());
        }
        if let Some(id) = id {
            encoder.attribute(LOOKUP_SET_ID, &id.to_be_bytes());
        }
    });
}

fn expression(encoder: &mut Encoder, name: &str, data: impl FnOnce(&mut Encoder)) {
    let element = encoder.open_nest(nf_tables::LIST_ELEMENT);
    encoder.string(NAME, name);
    let nest = encoder.open_nest(DATA);
    data(encoder);
    encoder.close_nest(nest);
    encoder.close_nest(element);
}
