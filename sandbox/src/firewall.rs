//! The sandbox's nftables table: address translation and protection against spoofed addresses.
//!
//! The agent's rules decide where the sandbox may go; they stand in a table of their own. The table
//! here
//!
//! - drops packets from the sandbox's link that do not have the sandbox's address as their source,
//!   because the agent knows the sandbox by its address;
//! - drops connections to the sandbox through the host;
//! - records which links forward only for sandboxes, and drops what these would forward for others;
//! - masquerades what leaves the sandbox.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;

use enforcer::ruleset::HANDOVER_HOOK;
use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::expr::{CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, SetItem};
use nftables::helper::{self, NftablesError};
use nftables::schema::{Chain, NfListObject, NfObject, Nftables, Rule, Set, SetType, SetTypeValue, Table};
use nftables::stmt::{Match, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::network_plan::{LINK_PREFIX, NetworkPlan};

/// The prefix of the names of all sandboxes' tables; the sandbox's number follows.
const TABLE_PREFIX: &str = "namegate_exec_";

/// The suffix of the name of this module's table.
const NAT_SUFFIX: &str = "_nat";

/// The set of links for which IPv4 forwarding was switched on for a sandbox.
const SWITCHED: &str = "switched";

/// The name of the agent's table.
pub(crate) fn agent_table(id: u32) -> String {
    format!("{TABLE_PREFIX}{id}")
}

/// The name of this module's table.
pub(crate) fn nat_table(id: u32) -> String {
    format!("{TABLE_PREFIX}{id}{NAT_SUFFIX}")
}

/// Installs the table for `plan`, in the namespace of the calling thread.
pub(crate) fn install(plan: &NetworkPlan) -> io::Result<()> {
    apply(&document(plan))
}

/// Removes tables in the namespace of the calling thread. A table that is not there is no error.
pub(crate) fn remove(tables: &[String]) -> io::Result<()> {
    let mut batch = Batch::new();
    for name in tables {
        let table = NfListObject::Table(Table {
            family: NfFamily::INet,
            name: Cow::Borrowed(name),
            handle: None,
        });
        // Added first so that the deletion cannot fail; adding a table that exists changes nothing.
        // (`destroy` needs Linux 6.3.)
        batch.add(table.clone());
        batch.delete(table);
    }
    apply(&batch.to_nftables())
}

/// The numbers of the sandboxes that have tables.
pub(crate) fn sandboxes() -> io::Result<BTreeSet<u32>> {
    let listed = list(&["list", "tables", "inet"])?;
    Ok(listed
        .objects
        .iter()
        .filter_map(|object| match object {
            NfObject::ListObject(NfListObject::Table(table)) => sandbox_of(&table.name),
            _ => None,
        })
        .collect())
}

/// The links for which the sandbox `id` has switched forwarding on; none when it has no table.
pub(crate) fn switched_by(id: u32) -> io::Result<BTreeSet<String>> {
    let table = nat_table(id);
    // The set may have gone with its sandbox since the sandbox was listed.
    let Ok(listed) = list(&["list", "set", "inet", &table, SWITCHED]) else {
        return Ok(BTreeSet::new());
    };
    Ok(listed
        .objects
        .iter()
        .filter_map(|object| match object {
            NfObject::ListObject(NfListObject::Set(set)) => set.elem.as_deref(),
            _ => None,
        })
        .flatten()
        .filter_map(|element| match element {
            Expression::String(link) => Some(link.to_string()),
            _ => None,
        })
        .collect())
}

/// The links for which any sandbox but `own` has switched forwarding on.
pub(crate) fn switched_by_others(own: Option<u32>) -> io::Result<BTreeSet<String>> {
    let mut links = BTreeSet::new();
    for id in sandboxes()?.into_iter().filter(|id| Some(*id) != own) {
        links.extend(switched_by(id)?);
    }
    Ok(links)
}

/// The tables, of anybody, that hand connections over to who looks into them.
pub(crate) fn tables_that_hand_over() -> io::Result<BTreeSet<String>> {
    let listed = list(&["list", "chains", "inet"])?;
    let chains = listed.objects.iter().filter_map(|object| match object {
        NfObject::ListObject(NfListObject::Chain(chain)) => Some(chain),
        _ => None,
    });
    let handing = chains.filter(|chain| chain.name == HANDOVER_HOOK && chain.hook.is_some());
    Ok(handing.map(|chain| chain.table.to_string()).collect())
}

/// Chains of others whose policy is to drop, as `family table chain`. Packets and lookups of a
/// sandbox may be dropped in them: an accept in one table never overrides a drop in another.
pub(crate) fn foreign_chains_that_drop() -> io::Result<Vec<String>> {
    let listed = list(&["list", "chains"])?;
    Ok(listed
        .objects
        .iter()
        .filter_map(|object| match object {
            NfObject::ListObject(NfListObject::Chain(chain)) => Some(chain),
            _ => None,
        })
        .filter(|chain| matches!(chain.family, NfFamily::IP | NfFamily::INet))
        .filter(|chain| matches!(chain.hook, Some(NfHook::Forward | NfHook::Input)))
        .filter(|chain| chain.policy == Some(NfChainPolicy::Drop) && sandbox_of(&chain.table).is_none())
        .map(|chain| {
            let family = if chain.family == NfFamily::IP { "ip" } else { "inet" };
            format!("{family} {} {}", chain.table, chain.name)
        })
        .collect())
}

fn sandbox_of(table: &str) -> Option<u32> {
    let number = table.strip_prefix(TABLE_PREFIX)?;
    number.strip_suffix(NAT_SUFFIX).unwrap_or(number).parse().ok()
}

fn document(plan: &NetworkPlan) -> Nftables<'static> {
    let table = nat_table(plan.id);
    let from_sandbox = || is(meta(MetaKey::Iifname), text(&plan.link));
    let to_sandbox = || is(meta(MetaKey::Oifname), text(&plan.link));
    let mut batch = Batch::new();
    batch.add(NfListObject::Table(Table {
        family: NfFamily::INet,
        name: table.clone().into(),
        handle: None,
    }));
    batch.add(NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: table.clone().into(),
        name: SWITCHED.into(),
        set_type: SetTypeValue::Single(SetType::Ifname),
        elem: (!plan.forwarding.is_empty()).then(|| plan.forwarding.iter().map(|link| text(link)).collect()),
        ..Set::default()
    })));
    for (name, kind, hook, priority) in [
        ("prerouting", NfChainType::Filter, NfHook::Prerouting, -300),
        ("forward", NfChainType::Filter, NfHook::Forward, 0),
        ("postrouting", NfChainType::NAT, NfHook::Postrouting, 100),
    ] {
        batch.add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: table.clone().into(),
            name: name.into(),
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            policy: Some(NfChainPolicy::Accept),
            ..Chain::default()
        }));
    }
    let mut rule = |chain: &'static str, statements: Vec<Statement<'static>>| {
        batch.add(NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: table.clone().into(),
            chain: chain.into(),
            expr: statements.into(),
            ..Rule::default()
        }));
    };

    // Neighbour discovery uses link-local sources too (RFC 4861 §4.3, §4.4). Any other IPv6 packet
    // that does not come from the sandbox's address would bypass the agent's rules.
    let neighbours = ["nd-neighbor-solicit", "nd-neighbor-advert"];
    rule(
        "prerouting",
        vec![
            from_sandbox(),
            is(field("icmpv6", "type"), set(neighbours.iter().map(|kind| text(kind)))),
            Statement::Accept(None),
        ],
    );
    for (family, veth) in [("ipv4", Some(plan.v4)), ("ipv6", plan.v6)] {
        let mut statements = vec![from_sandbox(), is(meta(MetaKey::Nfproto), text(family))];
        statements.extend(veth.map(|veth| is_not(source(&veth.sandbox), text(&veth.sandbox.addr().to_string()))));
        statements.push(Statement::Drop(None));
        rule("prerouting", statements);
    }

    rule(
        "forward",
        vec![to_sandbox(), is(conntrack_state(), text("new")), Statement::Drop(None)],
    );
    rule(
        "forward",
        vec![
            is(meta(MetaKey::Iifname), text(&format!("@{SWITCHED}"))),
            is_not(meta(MetaKey::Oifname), text(&format!("{LINK_PREFIX}*"))),
            Statement::Drop(None),
        ],
    );
    for veth in plan.veth_addresses() {
        rule(
            "postrouting",
            vec![
                is(source(&veth.sandbox), text(&veth.sandbox.addr().to_string())),
                is_not(meta(MetaKey::Oifname), text(&plan.link)),
                Statement::Masquerade(None),
            ],
        );
    }
    batch.to_nftables()
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::EQ,
    })
}

fn is_not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::NEQ,
    })
}

fn text(value: &str) -> Expression<'static> {
    Expression::String(value.to_owned().into())
}

fn set(items: impl Iterator<Item = Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(items.map(SetItem::Element).collect()))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn conntrack_state() -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT {
        key: "state".into(),
        family: None,
        dir: None,
    }))
}

fn source(of: &IpNet) -> Expression<'static> {
    field(if of.addr().is_ipv4() { "ip" } else { "ip6" }, "saddr")
}

fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

fn list(arguments: &[&str]) -> io::Result<Nftables<'static>> {
    helper::get_current_ruleset_with_args(helper::DEFAULT_NFT, arguments.iter().copied()).map_err(explain)
}

fn apply(document: &Nftables<'_>) -> io::Result<()> {
    helper::apply_ruleset(document).map_err(explain)
}

fn explain(error: NftablesError) -> io::Error {
    match error {
        NftablesError::NftExecution { inner, .. } if inner.kind() == io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            "the program `nft` was not found; install the package nftables",
        ),
        NftablesError::NftFailed { stderr, .. } => io::Error::other(format!("nft: {}", stderr.trim())),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use netns::LinkRoute;

    use super::*;
    use crate::network_plan::HostNetwork;

    /// nft looks up names of protocols and ports in files below /etc, which may be missing.
    #[test]
    fn the_rules_are_taken_where_etc_is_empty() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let mut dual = HostNetwork {
            forwards_ipv6: true,
            ..HostNetwork::default()
        };
        dual.routes.push(LinkRoute {
            destination: "::/0".parse().unwrap(),
            via: None,
            link: Some("eth0".into()),
            table: 254,
        });
        let plans = [HostNetwork::default(), dual].map(|host| NetworkPlan::choose(0, &host).unwrap());
        assert!(plans[1].v6.is_some());
        for plan in plans {
            let script = "mount -t tmpfs none /etc; exec nft -j -f -";
            let mut nft = Command::new("unshare")
                .args(["--net", "--mount", "--propagation", "private", "sh", "-ec", script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let text = serde_json::to_vec(&document(&plan)).unwrap();
            nft.stdin.take().unwrap().write_all(&text).unwrap();
            assert!(nft.wait().unwrap().success());
        }
    }
}
