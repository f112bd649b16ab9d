//! A table of family `bridge`, which keeps answers to connections that are made in a client's place
//! on this node.
//!
//! Where client and server are on one bridge, the server's answers bear the client's hardware
//! address, and the bridge would pass them on to it. So answers that bear the [reply
//! mark](crate::Handover::reply_mark), which bridge netfilter lets the table of family `inet` set,
//! are given the bridge's own address. What goes to a bridge already is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::expr::{BinaryOperation, Expression, MetaKey};
use nftables::schema::{Chain, NfListObject, Nftables, Rule, Table};
use nftables::stmt::{Mangle, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::desired::DesiredState;
use crate::layout::IpFamily;
use crate::pod_links::HardwareAddress;

use super::expression::{Expr, accept, any_of, destination, header, is, is_not, meta, number, prefix, word};

const CHAIN: &str = "answers";
/// Behind bridge netfilter (`NF_BR_PRI_BRNF`), whose rules set the mark.
const BEHIND_NETFILTER: i32 = 10;

/// What the table follows from. Equal values give equal tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BridgeAnswers<'a> {
    reply_mark: NonZeroU32,
    bridged: &'a BTreeMap<IpNet, HardwareAddress>,
}

/// `None` where no bridge leads to pods, or nothing is handed over.
pub(crate) fn wanted(desired: &DesiredState) -> Option<BridgeAnswers<'_>> {
    let handover = desired.handover.as_ref()?;
    let bridged = &desired.pod_links.bridged;
    (!bridged.is_empty()).then_some(BridgeAnswers {
        reply_mark: handover.reply_mark,
        bridged,
    })
}

/// The transaction that writes the table anew, or removes it.
pub(crate) fn table(name: &str, answers: Option<&BridgeAnswers<'_>>) -> Nftables<'static> {
    let table = || {
        NfListObject::Table(Table {
            family: NfFamily::Bridge,
            name: name.to_owned().into(),
            handle: None,
        })
    };
    let mut batch = Batch::new();
    // Added first, because it is an error to delete a table that does not exist.
    batch.add(table());
    batch.delete(table());
    let Some(answers) = answers else {
        return batch.to_nftables();
    };
    batch.add(table());
    batch.add(NfListObject::Chain(Chain {
        family: NfFamily::Bridge,
        table: name.to_owned().into(),
        name: CHAIN.into(),
        _type: Some(NfChainType::Filter),
        hook: Some(NfHook::Prerouting),
        prio: Some(BEHIND_NETFILTER),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    }));
    for statements in rules(answers) {
        batch.add(NfListObject::Rule(Rule {
            family: NfFamily::Bridge,
            table: name.to_owned().into(),
            chain: CHAIN.into(),
            expr: statements.into(),
            handle: None,
            index: None,
            comment: None,
        }));
    }
    batch.to_nftables()
}

fn rules(answers: &BridgeAnswers<'_>) -> Vec<Vec<Statement<'static>>> {
    let mark = || number(answers.reply_mark.get());
    let masked = BinaryOperation::AND(meta(MetaKey::Mark), mark());
    let own: BTreeSet<&HardwareAddress> = answers.bridged.values().collect();
    let own = any_of(own.into_iter().map(hardware_address));
    let mut rules = vec![
        vec![is_not(Expression::BinaryOperation(Box::new(masked)), mark()), accept()],
        vec![is(header("ether", "daddr"), own), accept()],
    ];
    rules.extend(answers.bridged.iter().map(|(network, bridge)| {
        vec![
            is(destination(IpFamily::of(network.addr())), prefix(*network)),
            set(meta(MetaKey::Pkttype), word("host")),
            set(header("ether", "daddr"), hardware_address(bridge)),
        ]
    }));
    rules
}

fn set(key: Expr, value: Expr) -> Statement<'static> {
    Statement::Mangle(Mangle { key, value })
}

fn hardware_address([a, b, c, d, e, f]: &HardwareAddress) -> Expr {
    Expression::String(format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").into())
}
