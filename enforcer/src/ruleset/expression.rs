//! Constructors for the expressions and statements of the frame's rules.

use std::net::IpAddr;

use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, CT, CTDir, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, SetItem,
};
use nftables::stmt::{JumpTarget, Mangle, Match, Operator, Statement};
use policy::Protocol;

use crate::layout::IpFamily;

/// An expression that owns its text.
pub(super) type Expr = Expression<'static>;

// ---- What a packet carries

/// The source address.
pub(super) fn source(family: IpFamily) -> Expr {
    header(ip(family), "saddr")
}

/// The destination address.
pub(super) fn destination(family: IpFamily) -> Expr {
    header(ip(family), "daddr")
}

/// The transport protocol, behind any IPv6 extension headers.
pub(super) fn protocol() -> Expr {
    meta(MetaKey::L4proto)
}

/// The destination port. In a protocol without ports these are other octets, so a match must name
/// the protocol too.
pub(super) fn port() -> Expr {
    header("th", "dport")
}

/// A field of the original conntrack tuple: what the packet carried before any address translation.
pub(super) fn original(key: String) -> Expr {
    conntrack(key, Some(CTDir::Original))
}

/// A property of the packet's conntrack entry.
pub(super) fn conntrack(key: impl Into<String>, dir: Option<CTDir>) -> Expr {
    named(NamedExpression::CT(CT {
        key: key.into().into(),
        family: None,
        dir,
    }))
}

/// Metadata of the packet.
pub(super) fn meta(key: MetaKey) -> Expr {
    named(NamedExpression::Meta(Meta { key }))
}

/// A field of a header.
pub(super) fn header(protocol: &'static str, field: &'static str) -> Expr {
    named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

/// The family's name in expressions.
pub(super) fn ip(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

// ---- Values

/// Several expressions as one key.
pub(super) fn concat(parts: impl IntoIterator<Item = Expr>) -> Expr {
    named(NamedExpression::Concat(parts.into_iter().collect()))
}

/// A set that lives in its rule.
pub(super) fn any_of(values: impl IntoIterator<Item = Expr>) -> Expr {
    named(NamedExpression::Set(values.into_iter().map(SetItem::Element).collect()))
}

/// A named set or map.
pub(super) fn named_set(name: &str) -> Expr {
    Expression::String(format!("@{name}").into())
}

/// A keyword that nft knows by itself.
///
/// Names that nft looks up in files of the host (protocols, services, marks, groups) are written as
/// numbers: an image may lack those files, and nft would refuse the ruleset.
pub(super) fn word(word: &'static str) -> Expr {
    Expression::String(word.into())
}

/// An address.
pub(super) fn address(address: IpAddr) -> Expr {
    Expression::String(address.to_string().into())
}

/// A prefix; one that holds a single address is written as that address.
pub(super) fn prefix(prefix: IpNet) -> Expr {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        return address(prefix.addr());
    }
    named(NamedExpression::Prefix(Prefix {
        addr: Box::new(address(prefix.network())),
        len: prefix.prefix_len().into(),
    }))
}

/// A protocol, by its number.
pub(super) fn protocol_value(protocol: Protocol) -> Expr {
    number(protocol.number().into())
}

/// A port.
pub(super) fn port_value(port: u16) -> Expr {
    number(port.into())
}

/// A number.
pub(super) fn number(number: u32) -> Expr {
    Expression::Number(number)
}

// ---- Statements

/// The left side is in the right side, or equal to it.
pub(super) fn is(left: Expr, right: Expr) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::EQ,
    })
}

/// The left side is not in the right side, or not equal to it.
pub(super) fn is_not(left: Expr, right: Expr) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::NEQ,
    })
}

/// Some bit of the left side is among those of the right.
pub(super) fn has_any(left: Expr, right: Expr) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::IN,
    })
}

/// The packet is of this family. nft would add this test only where it needs it; a packet of the
/// other family would be tested for everything before that.
pub(super) fn is_of(family: IpFamily) -> Statement<'static> {
    let family = match family {
        IpFamily::V4 => "ipv4",
        IpFamily::V6 => "ipv6",
    };
    is(meta(MetaKey::Nfproto), word(family))
}

/// The packet is TCP or UDP, which both carry lookups.
pub(super) fn is_tcp_or_udp() -> Statement<'static> {
    is(protocol(), any_of([Protocol::Tcp, Protocol::Udp].map(protocol_value)))
}

/// Ends the evaluation of the base chain: the packet passes, whatever stands behind.
pub(super) fn accept() -> Statement<'static> {
    Statement::Accept(None)
}

/// Leaves the chain, and goes on behind the last `jump`.
pub(super) fn return_() -> Statement<'static> {
    Statement::Return(None)
}

/// Goes on in a chain and comes back at its end.
pub(super) fn jump(chain: &str) -> Statement<'static> {
    Statement::Jump(target(chain))
}

/// Goes on in a chain; its end is the end of this one.
pub(super) fn goto(chain: &str) -> Statement<'static> {
    Statement::Goto(target(chain))
}

/// Sets the bits of a mark, and keeps all others.
pub(super) fn set_mark(mark: u32) -> Statement<'static> {
    let marked = BinaryOperation::OR(vec![meta(MetaKey::Mark), number(mark)]);
    Statement::Mangle(Mangle {
        key: meta(MetaKey::Mark),
        value: Expression::BinaryOperation(Box::new(marked)),
    })
}

/// A chain to go on in.
pub(super) fn target(chain: &str) -> JumpTarget<'static> {
    JumpTarget {
        target: chain.to_owned().into(),
    }
}

pub(super) fn named(expression: NamedExpression<'static>) -> Expr {
    Expression::Named(expression)
}
