//! Builds a transaction for `nft` out of declarations, rules and deletions, in the order that the
//! kernel needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use nftables::schema::{
    Chain, Counter, FlushObject, NfCmd, NfListObject, NfObject, Nftables, Rule, Set, SetType, SetTypeValue, Table,
};
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::netlink::objects;

use super::ExistingObjects;

/// Collects the parts of a transaction; [`finish`](Self::finish) puts them in order.
pub(super) struct NftDocument<'a> {
    table: &'a str,
    existing: &'a ExistingObjects,
    wanted_chains: BTreeSet<String>,
    base_chains: BTreeMap<String, objects::HookInfo>,
    declarations: Vec<NfListObject<'static>>,
    rules: Vec<NfListObject<'static>>,
}

/// Where a base chain hooks in.
pub(super) struct ChainHook {
    pub(super) chain_type: NfChainType,
    pub(super) hook: NfHook,
    pub(super) priority: i32,
}

/// A chain of the frame, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainForm {
    /// The hook of a base chain; `None` for a chain that rules call.
    pub(crate) hook: Option<objects::HookInfo>,
    /// The number of its rules.
    pub(crate) rules: usize,
}

impl ChainHook {
    fn as_told(&self) -> objects::HookInfo {
        // `NF_INET_*`.
        let number = match self.hook {
            NfHook::Ingress | NfHook::Prerouting => 0,
            NfHook::Input => 1,
            NfHook::Forward => 2,
            NfHook::Output => 3,
            NfHook::Postrouting | NfHook::Egress => 4,
        };
        let kind = match self.chain_type {
            NfChainType::Filter => "filter",
            NfChainType::Route => "route",
            NfChainType::NAT => "nat",
        };
        objects::HookInfo {
            number,
            priority: self.priority,
            kind: kind.to_owned(),
        }
    }
}

impl<'a> NftDocument<'a> {
    pub(super) fn new(table: &'a str, existing: &'a ExistingObjects) -> Self {
        Self {
            table,
            existing,
            wanted_chains: BTreeSet::new(),
            base_chains: BTreeMap::new(),
            declarations: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Declares a counter. One that exists keeps its figures.
    pub(super) fn counter(&mut self, name: &str) {
        let counter = Counter {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(name),
            handle: None,
            packets: Some(0),
            bytes: Some(0),
        };
        self.declarations.push(NfListObject::Counter(counter));
    }

    /// Declares a base chain. Packets that it does not decide pass.
    pub(super) fn base_chain(&mut self, name: &str, at: ChainHook) {
        self.base_chains.insert(name.to_owned(), at.as_told());
        let chain = Chain {
            _type: Some(at.chain_type),
            hook: Some(at.hook),
            prio: Some(at.priority),
            policy: Some(NfChainPolicy::Accept),
            ..self.bare_chain(name)
        };
        self.declarations.push(NfListObject::Chain(chain));
        self.wanted_chains.insert(name.to_owned());
    }

    /// Declares a chain that rules call.
    pub(super) fn chain(&mut self, name: &str) {
        let chain = self.bare_chain(name);
        self.declarations.push(NfListObject::Chain(chain));
        self.wanted_chains.insert(name.to_owned());
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, chain: &str, statements: impl IntoIterator<Item = Statement<'static>>) {
        let rule = Rule {
            family: NfFamily::INet,
            table: self.table(),
            chain: owned(chain),
            expr: statements.into_iter().collect(),
            handle: None,
            index: None,
            comment: None,
        };
        self.rules.push(NfListObject::Rule(rule));
    }

    /// The names of the chains that were declared.
    pub(super) fn into_chains(self) -> BTreeSet<String> {
        self.wanted_chains
    }

    /// The chains that were declared, as the kernel lists them.
    pub(super) fn into_forms(mut self) -> BTreeMap<String, ChainForm> {
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        for object in &self.rules {
            if let NfListObject::Rule(rule) = object {
                *rules.entry(rule.chain.to_string()).or_default() += 1;
            }
        }
        let form = |name: String| {
            let hook = self.base_chains.remove(&name);
            let rules = rules.get(&name).copied().unwrap_or(0);
            (name, ChainForm { hook, rules })
        };
        self.wanted_chains.into_iter().map(form).collect()
    }

    /// The whole transaction.
    pub(super) fn finish(self) -> Nftables<'static> {
        let table = NfListObject::Table(Table {
            family: NfFamily::INet,
            name: self.table(),
            handle: None,
        });
        let mut emptied_chains = Vec::new();
        let mut deletions = Vec::new();
        if self.existing.table {
            for name in &self.existing.chains {
                emptied_chains.push(FlushObject::Chain(self.bare_chain(name)));
            }
            for name in &self.existing.sets {
                deletions.push(NfListObject::Set(Box::new(self.bare_set(name))));
            }
            // After the sets: elements of a verdict map hold on to chains.
            for name in self.existing.chains.difference(&self.wanted_chains) {
                deletions.push(NfListObject::Chain(self.bare_chain(name)));
            }
        }
        let add = |object| NfObject::CmdObject(NfCmd::Add(object));
        let empty = |object| NfObject::CmdObject(NfCmd::Flush(object));
        let delete = |object| NfObject::CmdObject(NfCmd::Delete(object));
        // Chains are flushed before anything is deleted: then no rule refers to a set or chain any
        // more.
        let objects = std::iter::once(add(table))
            .chain(self.declarations.into_iter().map(add))
            .chain(emptied_chains.into_iter().map(empty))
            .chain(self.rules.into_iter().map(add))
            .chain(deletions.into_iter().map(delete))
            .collect();
        Nftables { objects }
    }

    fn bare_chain(&self, name: &str) -> Chain<'static> {
        Chain {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(name),
            ..Chain::default()
        }
    }

    /// The kernel and nft delete a set by its name and never look at its declaration.
    fn bare_set(&self, name: &str) -> Set<'static> {
        Set {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(name),
            set_type: SetTypeValue::Single(SetType::Ipv4Addr),
            ..Set::default()
        }
    }

    fn table(&self) -> Cow<'static, str> {
        owned(self.table)
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}
