//! How connections that are looked into reach who looks into them, and what that may send in their
//! place.
//!
//! # Handing over
//! A nat chain just before kube-proxy's asks the sender's program, then the receiver's, whether the
//! connection is looked into ([`program_chains`](super::program_chains)), and translates it to a
//! listener of this node. Only the first packet of a connection comes here, and only of pods whose
//! program looks into some. A Service's address stands for its backends: where one of these is
//! looked into the connection is handed over, and who looks into it finds out which backend it has
//! ([`DesiredState::inspected_services`]). With nobody at the listener the kernel refuses it at
//! once: what is looked into is never let through unseen.
//!
//! # What is sent in a client's place
//! The listener's owner connects to where the client wanted to go, from the client's own address
//! and port, with a mark. Such packets are given a conntrack zone of their own in the original
//! direction, because they differ in nothing from the client's. They are judged by the programs of
//! both ends once more (`resumed`), after kube-proxy's translation: a fault in what looks into
//! connections opens nothing that no rule names.
//!
//! Answers bear the client's address. They are known by the zone of the flow that they answer, and
//! are marked, so that a routing rule delivers them here. That holds where the flow was translated,
//! in which a match for the socket would fail.

use nftables::expr::{BinaryOperation, CTDir, Expression, Map, MetaKey, NamedExpression};
use nftables::stmt::{Mangle, NAT, NATFamily, Statement};
use nftables::types::{NfChainType, NfHook};
use policy::{Direction, Protocol};

use crate::desired::{DesiredState, Handover};
use crate::layout::IpFamily;

use super::document::{ChainHook, NftDocument};
use super::expression::{
    Expr, accept, address, concat, conntrack, destination, goto, has_any, is, is_of, jump, meta, named, named_set,
    number, port, protocol, protocol_value, set_mark, word,
};
use super::spoofed_resolvers::BEFORE_RAW;
use super::{dispatch, refusal, set_names};

/// The chain that translates a connection to the listener. Programs call it.
pub(super) const CHAIN: &str = "hand-over";
/// The chain of connections to an address of Services some of whose backends look into
/// connections.
pub(super) const TO_SERVICES: &str = "hand-over-services";
/// The chains that programs and elements name, which must exist before these do.
pub(super) const CALLED: [&str; 2] = [CHAIN, TO_SERVICES];

/// The base chain that is there as long as connections are handed over.
pub const HANDOVER_HOOK: &str = "handover";
const MARKS_OUT: &str = "handover-zone";
const ANSWERS: &str = "handover-answers";
const RESUMED: &str = "resumed";
/// For the program of the source, and of the destination.
const OF_DIRECTION: [&str; 2] = ["handover-out", "handover-in"];
const RESUMED_OF_DIRECTION: [&str; 2] = ["resumed-out", "resumed-in"];

/// `dstnat - 4`: just before kube-proxy, and behind the lookups.
const BEFORE_DNAT: i32 = -104;
/// `mangle`.
const MANGLE: i32 = -150;

/// The names of the base chains.
pub(super) fn hooks() -> impl Iterator<Item = String> {
    [HANDOVER_HOOK, MARKS_OUT, ANSWERS, RESUMED]
        .into_iter()
        .map(str::to_owned)
}

pub(super) fn chains(document: &mut NftDocument<'_>, desired: &DesiredState) {
    // Chains of programs may call them before there is a handover.
    for chain in CALLED {
        document.chain(chain);
    }
    let Some(handover) = &desired.handover else { return };
    for family in IpFamily::BOTH {
        document.rule(
            CHAIN,
            [is_of(family), is_tcp(), Statement::DNAT(Some(to_listener(family)))],
        );
    }
    for family in IpFamily::BOTH {
        let to_one = is(
            concat([destination(family), protocol(), port()]),
            named_set(&set_names::handover_services(Direction::Ingress, family)),
        );
        document.rule(TO_SERVICES, [is_of(family), is_tcp(), to_one, goto(CHAIN)]);
    }
    base_chain(
        document,
        HANDOVER_HOOK,
        NfChainType::NAT,
        NfHook::Prerouting,
        BEFORE_DNAT,
    );
    for (direction, chain) in Direction::BOTH.into_iter().zip(OF_DIRECTION) {
        document.chain(chain);
        dispatch_by(document, chain, direction, set_names::handover);
        document.rule(HANDOVER_HOOK, [is_tcp(), jump(chain)]);
    }

    base_chain(document, MARKS_OUT, NfChainType::Filter, NfHook::Output, BEFORE_RAW);
    let zone = Statement::Mangle(Mangle {
        key: original_zone(),
        value: number(handover.zone.into()),
    });
    document.rule(MARKS_OUT, [bears(handover), zone]);

    base_chain(document, ANSWERS, NfChainType::Filter, NfHook::Prerouting, MANGLE);
    document.rule(
        ANSWERS,
        [
            is(conntrack("direction", None), word("reply")),
            is(original_zone(), number(handover.zone.into())),
            set_mark(handover.reply_mark.get()),
        ],
    );

    base_chain(document, RESUMED, NfChainType::Filter, NfHook::Output, 0);
    document.rule(
        RESUMED,
        [has_any(conntrack("state", None), word("established")), accept()],
    );
    for (direction, chain) in Direction::BOTH.into_iter().zip(RESUMED_OF_DIRECTION) {
        document.chain(chain);
        dispatch_by(document, chain, direction, set_names::resumed);
        // The programs that look into nothing judge these packets as they judge others.
        dispatch_by(document, chain, direction, set_names::dispatch);
        document.rule(RESUMED, [bears(handover), jump(chain)]);
    }
}

/// Goes to the chain that a map has for the judged end. `map` names that of each family.
fn dispatch_by(
    document: &mut NftDocument<'_>,
    chain: &'static str,
    direction: Direction,
    map: impl Fn(Direction, IpFamily) -> String,
) {
    for family in IpFamily::BOTH {
        document.rule(
            chain,
            [dispatch::to_chain_of(direction, family, &map(direction, family))],
        );
    }
}

/// Lets connections that were handed over into this node, and nothing else to the listeners'
/// addresses. Ports are not looked at: where agents follow each other, elements lead to the port of
/// the later one before this rule is written again, and handshakes with the former are under way.
pub(super) fn pass_handed_over(document: &mut NftDocument<'_>, chain: &str, desired: &DesiredState) {
    let Some(handover) = &desired.handover else { return };
    for listener in IpFamily::BOTH
        .into_iter()
        .filter_map(|family| handover.listener(family))
    {
        let family = IpFamily::of(listener.ip());
        let to_it = || [is_tcp(), is(destination(family), address(listener.ip()))];
        let translated = has_any(conntrack("status", None), word("dnat"));
        document.rule(chain, [translated].into_iter().chain(to_it()).chain([accept()]));
        document.rule(chain, to_it().into_iter().chain([goto(refusal::CHAIN)]));
    }
}

/// Leaves what is sent in a client's place to [`RESUMED`].
pub(super) fn pass_resumed(document: &mut NftDocument<'_>, chain: &str, desired: &DesiredState) {
    if let Some(handover) = &desired.handover {
        document.rule(chain, [bears(handover), accept()]);
    }
}

fn base_chain(document: &mut NftDocument<'_>, name: &str, chain_type: NfChainType, hook: NfHook, priority: i32) {
    document.base_chain(
        name,
        ChainHook {
            chain_type,
            hook,
            priority,
        },
    );
}

fn to_listener(family: IpFamily) -> NAT<'static> {
    NAT {
        addr: Some(mapped(&set_names::handover_address(family))),
        family: Some(match family {
            IpFamily::V4 => NATFamily::IP,
            IpFamily::V6 => NATFamily::IP6,
        }),
        port: Some(mapped(&set_names::handover_port(family))),
        flags: None,
    }
}

fn mapped(map: &str) -> Expr {
    named(NamedExpression::Map(Box::new(Map {
        key: protocol(),
        data: named_set(map),
    })))
}

fn is_tcp() -> Statement<'static> {
    is(protocol(), protocol_value(Protocol::Tcp))
}

fn bears(handover: &Handover) -> Statement<'static> {
    let mark = || number(handover.mark.get());
    let masked = BinaryOperation::AND(meta(MetaKey::Mark), mark());
    is(Expression::BinaryOperation(Box::new(masked)), mark())
}

fn original_zone() -> Expr {
    conntrack("zone", Some(CTDir::Original))
}
