//! How lookups reach the proxy, and what happens to those that do not.
//!
//! # dnat
//! The intercepted sources (`pods4`, `pods6`), the known resolvers (`resolvers4`, `resolvers6`),
//! our listeners and the maps to them are [sets of the table](super::table_sets). They exist in
//! every mode, also in those that do not read them.
//!
//! The rules stand in a nat chain just before kube-proxy's, where the packet still carries the
//! address that the pod asked. Two maps with equal keys give the listener's address and port. The
//! port tells the proxy which resolver was asked. A nat chain sees only the first packet of a flow.
//!
//! The flows of intercepted lookups have a conntrack [zone](ZONE) of their own, so that the
//! translation of a flow lasts no longer than the heartbeat. A packet gets the zone before it is
//! tracked, under the conditions under which it is translated. When the heartbeat ends, the next
//! packet of a client that keeps its socket is in the default zone, where nothing is translated,
//! and goes to the resolver. When the heartbeat begins again, flows that began meanwhile are not in
//! our zone, and are intercepted. The proxy's replies get the zone by their source, which is one of
//! our listen addresses.
//!
//! The zone also keeps lookups tracked. Caches on the node (NodeLocal DNSCache) switch tracking off
//! for lookups to themselves, and untracked packets are not translated. But `notrack` and the
//! target CT leave a packet alone that has a zone.
//!
//! # tproxy
//! The rules stand in a filter chain just *after* kube-proxy's translation, because TCP would be
//! reset before it. There the packet may carry the address of a backend, so that the conntrack
//! tuple has to tell whom the pod asked. Every packet of a flow passes this chain, so it tests
//! little: direction and family once, and then it goes to a chain for the matching packets. The
//! direction excludes replies, because those of a resolver that is a governed pod have a matching
//! tuple.
//!
//! # Sources that are no Pod's yet
//! Sources in `unknown4` and `unknown6` are refused everywhere else. Their lookups go to the proxy,
//! which answers that it is too early. A rejection by the kernel would not do, because the kernel
//! limits the rate of its ICMP errors, and a resolver library without an error waits for its
//! timeout. Only the first packet of a flow is matched. So with tproxy, where every packet of a
//! flow has to be intercepted, only lookups over UDP are.
//!
//! # The heartbeat
//! In fail-mode open, lookups are intercepted only while a living agent keeps [`ALIVE_SET`] filled.
//! Otherwise they pass before any program is asked; the original destination tells them, because
//! kube-proxy may have translated them. In fail-mode closed they are refused, with tproxy where it
//! finds no socket of the proxy: neither a policy that allows port 53 nor a flow from before may
//! open a way around the proxy.

use std::net::{IpAddr, SocketAddr};

use nftables::expr::{BinaryOperation, CTDir, Expression, Map, MetaKey, NamedExpression};
use nftables::stmt::{Mangle, NAT, NATFamily, Statement, TProxy};
use nftables::types::{NfChainType, NfHook};
use policy::Protocol;

use crate::desired::{DesiredState, FailMode, Interception};
use crate::layout::{ALIVE_SET, IpFamily};
use crate::routing::{LISTEN_V4, LISTEN_V6};

use super::document::{ChainHook, NftDocument};
use super::expression::{
    Expr, accept, address, any_of, concat, conntrack, destination, goto, has_any, header, ip, is, is_of, is_tcp_or_udp,
    meta, named, named_set, number, original, port, port_value, protocol, protocol_value, return_, set_mark, source,
    word,
};
use super::spoofed_resolvers::{BEFORE_RAW, BEFORE_TRACKING};
use super::{refusal, set_names, zones};

const REPLIES_CHAIN: &str = "replies";
const DNAT_CHAIN: &str = "intercept-dnat";
const TPROXY_CHAIN: &str = "intercept-tproxy";

/// The names of the base chains of all modes.
pub(super) fn hooks() -> impl Iterator<Item = String> {
    [REPLIES_CHAIN, DNAT_CHAIN, TPROXY_CHAIN].into_iter().map(str::to_owned)
}

/// The conntrack zone of intercepted lookups. Others are unlikely to use the number: OVN counts
/// from 1, Antrea and OVN-Kubernetes stay above 64,000. Another user would do harm only with equal
/// flows.
const ZONE: u16 = 15_353;

/// `dstnat - 5`: just before kube-proxy.
const BEFORE_DNAT: i32 = -105;
/// `dstnat + 1`: just after kube-proxy.
const AFTER_DNAT: i32 = -99;

/// Writes the chains of the interception mode.
pub(super) fn chain(document: &mut NftDocument<'_>, desired: &DesiredState) {
    match desired.interception {
        Interception::Off => {}
        Interception::Dnat => {
            keep_in_zone(document, desired);
            document.base_chain(
                DNAT_CHAIN,
                ChainHook {
                    chain_type: NfChainType::NAT,
                    hook: NfHook::Prerouting,
                    priority: BEFORE_DNAT,
                },
            );
            for family in IpFamily::BOTH {
                let to_listener = NAT {
                    addr: Some(mapped(asked_now(family), &set_names::listener_address(family))),
                    family: Some(match family {
                        IpFamily::V4 => NATFamily::IP,
                        IpFamily::V6 => NATFamily::IP6,
                    }),
                    port: Some(mapped(asked_now(family), &set_names::listener_port(family))),
                    flags: None,
                };
                for sources in [set_names::pods(family), set_names::unknown(family)] {
                    let mut statements = vec![is_of(family), is_tcp_or_udp()];
                    statements.extend(lookups(desired, family, asked_now(family), &sources));
                    // The sets may have changed since the packet passed the earlier chain. Without
                    // the zone, the reply would find no flow.
                    statements.push(is(conntrack("zone", None), number(ZONE.into())));
                    statements.push(Statement::DNAT(Some(to_listener.clone())));
                    document.rule(DNAT_CHAIN, statements);
                }
            }
        }
        Interception::Tproxy { mark, port, .. } => {
            document.base_chain(
                TPROXY_CHAIN,
                ChainHook {
                    chain_type: NfChainType::Filter,
                    hook: NfHook::Prerouting,
                    priority: AFTER_DNAT,
                },
            );
            for family in IpFamily::BOTH {
                let (chain, taken) = (tproxy_chain(family), taken_chain(family));
                document.chain(&chain);
                take_lookups(document, &taken, desired, family, (mark.get(), port));
                let forwards = is(conntrack("direction", None), word("original"));
                document.rule(TPROXY_CHAIN, [is_of(family), forwards, goto(&chain)]);
                // An untranslated packet still carries what the pod asked.
                let translated = has_any(conntrack("status", None), word("dnat"));
                let (pods, unknown) = (set_names::pods(family), set_names::unknown(family));
                let first = || [is(conntrack("state", None), word("new")), is(protocol(), word("udp"))];
                let ways = [
                    (vec![is_tcp_or_udp()], asked_first(family), &pods),
                    (vec![translated.clone(), is_tcp_or_udp()], asked_now(family), &pods),
                    (first().into(), asked_first(family), &unknown),
                    ([vec![translated], first().into()].concat(), asked_now(family), &unknown),
                ];
                for (mut statements, asked, sources) in ways {
                    statements.extend(lookups(desired, family, asked, sources));
                    statements.push(goto(&taken));
                    document.rule(&chain, statements);
                }
            }
        }
    }
}

/// Writes the chain for the lookups of mode tproxy, which gives them to the proxy.
///
/// Where the proxy has no socket, the kernel leaves the rule. Then a lookup on a flow that exists
/// would pass as established before anybody asks whether it was intercepted, so in fail-mode closed
/// it is refused here.
fn take_lookups(
    document: &mut NftDocument<'_>,
    chain: &str,
    desired: &DesiredState,
    family: IpFamily,
    (mark, port): (u32, u16),
) {
    document.chain(chain);
    let to_proxy = TProxy {
        family: Some(ip(family).into()),
        port,
        addr: None,
    };
    // nft asks for the protocol in the rule that has the statement.
    let statements = [is_tcp_or_udp(), Statement::TProxy(to_proxy), set_mark(mark), accept()];
    document.rule(chain, statements);
    if desired.fail_mode == FailMode::Closed {
        document.rule(chain, [goto(refusal::CHAIN)]);
    }
}

/// Gives the zone to lookups that will be translated, to their replies, and to the ICMP errors that
/// either end reports about them.
fn keep_in_zone(document: &mut NftDocument<'_>, desired: &DesiredState) {
    document.base_chain(
        REPLIES_CHAIN,
        ChainHook {
            chain_type: NfChainType::Filter,
            hook: NfHook::Output,
            priority: BEFORE_RAW,
        },
    );
    for family in IpFamily::BOTH {
        for sources in [set_names::pods(family), set_names::unknown(family)] {
            let mut statements = vec![is_of(family), is_tcp_or_udp()];
            statements.extend(lookups(desired, family, asked_now(family), &sources));
            statements.push(set_zone());
            document.rule(BEFORE_TRACKING, statements);
        }

        // A client that has closed its socket reports an error, which quotes a flow of the zone.
        let (icmp, header_name, unreachable) = match family {
            IpFamily::V4 => (Protocol::Icmp, "icmp", 3),
            IpFamily::V6 => (Protocol::Icmpv6, "icmpv6", 1),
        };
        document.rule(
            BEFORE_TRACKING,
            [
                is_of(family),
                is(protocol(), protocol_value(icmp)),
                is(header(header_name, "type"), number(unreachable)),
                is(destination(family), named_set(&set_names::resolver_hosts(family))),
                is(source(family), named_set(&set_names::pods(family))),
                set_zone(),
            ],
        );
        let listener = match family {
            IpFamily::V4 => IpAddr::V4(LISTEN_V4),
            IpFamily::V6 => IpAddr::V6(LISTEN_V6),
        };
        document.rule(
            REPLIES_CHAIN,
            [is_of(family), is(source(family), address(listener)), set_zone()],
        );
    }
}

fn set_zone() -> Statement<'static> {
    Statement::Mangle(Mangle {
        key: conntrack("zone", None),
        value: number(ZONE.into()),
    })
}

/// Lets intercepted lookups into this node, whatever the program of the pod says about the node.
pub(super) fn pass_intercepted(document: &mut NftDocument<'_>, chain: &str, desired: &DesiredState) {
    match desired.interception {
        Interception::Dnat => {
            for family in IpFamily::BOTH {
                document.rule(
                    chain,
                    [
                        has_any(conntrack("status", None), word("dnat")),
                        is_tcp_or_udp(),
                        is(asked_now(family), named_set(&set_names::listeners(family))),
                        accept(),
                    ],
                );
            }
        }
        Interception::Tproxy { mark, .. } => {
            let mark = || number(mark.get());
            let masked = BinaryOperation::AND(meta(MetaKey::Mark), mark());
            document.rule(
                chain,
                [is(Expression::BinaryOperation(Box::new(masked)), mark()), accept()],
            );
        }
        Interception::Off => {}
    }
}

/// Lets lookups that workloads send to the proxy's own addresses into this node.
pub(super) fn pass_to_listeners(document: &mut NftDocument<'_>, chain: &str, desired: &DesiredState) {
    for family in IpFamily::BOTH {
        let own = desired.listening.iter().filter(|own| IpFamily::of(own.ip()) == family);
        let (anywhere, at): (Vec<SocketAddr>, Vec<SocketAddr>) =
            own.copied().partition(|own| own.ip().is_unspecified());
        let sockets: Vec<_> = at.iter().map(|own| socket(own.ip(), own.port())).collect();
        let ports: Vec<_> = anywhere.iter().map(|own| port_value(own.port())).collect();
        let from_pod = || [is(source(family), named_set(&set_names::pods(family))), is_tcp_or_udp()];
        if !sockets.is_empty() {
            let to_listener = [is(asked_now(family), any_of(sockets)), accept()];
            document.rule(chain, from_pod().into_iter().chain(to_listener));
        }
        if !ports.is_empty() {
            let to_listener = [zones::is_host(family), is(port(), any_of(ports)), accept()];
            document.rule(chain, from_pod().into_iter().chain(to_listener));
        }
    }
}

/// Lets answers of a known resolver on this node pass, where connection tracking is switched off
/// for them (NodeLocal DNSCache), so that nothing shows that they answer.
pub(super) fn pass_untracked_answers(document: &mut NftDocument<'_>, chain: &str) {
    for family in IpFamily::BOTH {
        let answering = concat([source(family), header("th", "sport")]);
        document.rule(
            chain,
            [
                has_any(conntrack("state", None), word("untracked")),
                is_of(family),
                is_tcp_or_udp(),
                is(answering, named_set(&set_names::resolvers(family))),
                accept(),
            ],
        );
    }
}

/// Lets a lookup to a known resolver pass, or refuses it, as the fail mode says. A lookup gets here
/// when it was not intercepted because no agent is alive.
pub(super) fn judge_unintercepted(document: &mut NftDocument<'_>, chain: &str, desired: &DesiredState) {
    if desired.interception == Interception::Off {
        return;
    }
    for family in IpFamily::BOTH {
        let verdict = match desired.fail_mode {
            FailMode::Open => return_(),
            FailMode::Closed => goto(refusal::CHAIN),
        };
        let tracked = is(conntrack("direction", None), word("original"));
        // Lookups to a cache on the node are untracked, and no packet of theirs is translated.
        let untracked = has_any(conntrack("state", None), word("untracked"));
        for (which, asked) in [(tracked, asked_first(family)), (untracked, asked_now(family))] {
            let lookup = to_resolver(family, asked, &set_names::pods(family));
            document.rule(
                chain,
                [which, is_of(family), is_tcp_or_udp()]
                    .into_iter()
                    .chain(lookup)
                    .chain([verdict.clone()]),
            );
        }
    }
}

/// Matches lookups that are to be intercepted; in fail-mode open only while the heartbeat lasts.
fn lookups(desired: &DesiredState, family: IpFamily, asked: Expr, sources: &str) -> Vec<Statement<'static>> {
    let mut statements = Vec::from(to_resolver(family, asked, sources));
    match desired.fail_mode {
        FailMode::Open => statements.push(is(protocol(), named_set(ALIVE_SET))),
        FailMode::Closed => {}
    }
    statements
}

/// Matches packets from these sources to a known resolver. The rule must have matched the protocol
/// before, because nft requires that for rules that read or translate ports. The resolver is tested
/// first, so that nearly all packets cost one lookup only: most come from a pod, and few go to a
/// resolver.
fn to_resolver(family: IpFamily, asked: Expr, sources: &str) -> [Statement<'static>; 2] {
    [
        is(asked, named_set(&set_names::resolvers(family))),
        is(source(family), named_set(sources)),
    ]
}

/// The destination address and port that the packet carries now.
fn asked_now(family: IpFamily) -> Expr {
    concat([destination(family), port()])
}

/// The destination address and port that the flow's first packet carried. It must stand after
/// [`is_tcp_or_udp`], from which nft knows the port's type.
fn asked_first(family: IpFamily) -> Expr {
    concat([
        original(format!("{} daddr", ip(family))),
        conntrack("proto-dst", Some(CTDir::Original)),
    ])
}

fn socket(ip: IpAddr, port: u16) -> Expr {
    concat([address(ip), port_value(port)])
}

fn mapped(key: Expr, map: &str) -> Expr {
    named(NamedExpression::Map(Box::new(Map {
        key,
        data: named_set(map),
    })))
}

fn tproxy_chain(family: IpFamily) -> String {
    format!("{TPROXY_CHAIN}{family}")
}

fn taken_chain(family: IpFamily) -> String {
    format!("{TPROXY_CHAIN}{family}-taken")
}
