//! A transaction in the making: what is declared, filled, ruled and deleted, put in the order that the kernel needs.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use nftables::expr::Expression;
use nftables::schema::{
    Chain, Counter, Element, FlushObject, Map, NfCmd, NfListObject, NfObject, Nftables, Rule, Set, SetFlag, SetType,
    SetTypeValue, Table,
};
use nftables::stmt::Statement;
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::Standing;

/// Collects the parts of a transaction; [`finish`](Self::finish) puts them in order.
pub(super) struct Document<'a> {
    table: &'a str,
    standing: &'a Standing,
    wanted_chains: BTreeSet<String>,
    wanted_sets: BTreeSet<String>,
    declarations: Vec<NfListObject<'static>>,
    emptied_sets: Vec<FlushObject<'static>>,
    elements: Vec<NfListObject<'static>>,
    rules: Vec<NfListObject<'static>>,
}

/// What a set's elements look like.
pub(super) struct SetForm {
    /// The parts of its key.
    pub(super) key: Vec<SetType>,
    /// One flag at most: the crate keeps flags in a hash set, and a document should always be the same text.
    pub(super) flag: Option<SetFlag>,
    /// The most elements that it may hold.
    pub(super) size: Option<u32>,
}

/// Where a base chain hooks in.
pub(super) struct Hook {
    pub(super) chain_type: NfChainType,
    pub(super) hook: NfHook,
    pub(super) priority: i32,
}

impl<'a> Document<'a> {
    pub(super) fn new(table: &'a str, standing: &'a Standing) -> Self {
        Self {
            table,
            standing,
            wanted_chains: BTreeSet::new(),
            wanted_sets: BTreeSet::new(),
            declarations: Vec::new(),
            emptied_sets: Vec::new(),
            elements: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Declares a counter. One that stands keeps its figures.
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

    /// A chain that a hook calls. What it does not decide passes.
    pub(super) fn base_chain(&mut self, name: &str, at: Hook) {
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

    /// A chain that rules call.
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

    /// A set whose elements are exactly these from now on.
    pub(super) fn set(&mut self, name: &str, form: SetForm, elements: Vec<Expression<'static>>) {
        let set = self.bare_set(name, form);
        if self.stands(name) {
            self.emptied_sets.push(FlushObject::Set(Box::new(set.clone())));
        }
        self.declare_set(set, elements);
    }

    /// A set that keeps the elements it has; these are its first ones.
    pub(super) fn kept_set(&mut self, name: &str, form: SetForm, first: impl FnOnce() -> Vec<Expression<'static>>) {
        let set = self.bare_set(name, form);
        let elements = if self.stands(name) { Vec::new() } else { first() };
        self.declare_set(set, elements);
    }

    /// A map whose elements are exactly these from now on.
    pub(super) fn map(&mut self, name: &str, key: Vec<SetType>, value: SetType, elements: Vec<Expression<'static>>) {
        let map = Map {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(name),
            set_type: type_of(key),
            map: SetTypeValue::Single(value),
            ..Map::default()
        };
        if self.stands(name) {
            self.emptied_sets.push(FlushObject::Map(Box::new(map.clone())));
        }
        self.declarations.push(NfListObject::Map(Box::new(map)));
        self.wanted_sets.insert(name.to_owned());
        self.fill(name, elements);
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
        if self.standing.table {
            for name in &self.standing.chains {
                emptied_chains.push(FlushObject::Chain(self.bare_chain(name)));
            }
            for name in self.standing.sets.difference(&self.wanted_sets) {
                // The kernel, and nft with it, deletes by name alone; the form is never looked at.
                let set = self.bare_set(name, SetForm::plain([SetType::Ipv4Addr]));
                deletions.push(NfListObject::Set(Box::new(set)));
            }
            // After the sets: elements of a verdict map hold on to chains.
            for name in self.standing.chains.difference(&self.wanted_chains) {
                deletions.push(NfListObject::Chain(self.bare_chain(name)));
            }
        }
        let add = |object| NfObject::CmdObject(NfCmd::Add(object));
        let empty = |object| NfObject::CmdObject(NfCmd::Flush(object));
        let delete = |object| NfObject::CmdObject(NfCmd::Delete(object));
        // Chains are emptied before sets: in an emptied chain nothing refers to a set any more.
        let objects = std::iter::once(add(table))
            .chain(self.declarations.into_iter().map(add))
            .chain(emptied_chains.into_iter().map(empty))
            .chain(self.emptied_sets.into_iter().map(empty))
            .chain(self.elements.into_iter().map(add))
            .chain(self.rules.into_iter().map(add))
            .chain(deletions.into_iter().map(delete))
            .collect();
        Nftables { objects }
    }

    fn declare_set(&mut self, set: Set<'static>, elements: Vec<Expression<'static>>) {
        let name = set.name.clone();
        self.declarations.push(NfListObject::Set(Box::new(set)));
        self.fill(&name, elements);
        self.wanted_sets.insert(name.into_owned());
    }

    fn fill(&mut self, set: &str, elements: Vec<Expression<'static>>) {
        if elements.is_empty() {
            return;
        }
        let element = Element {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(set),
            elem: elements.into(),
        };
        self.elements.push(NfListObject::Element(element));
    }

    fn stands(&self, set: &str) -> bool {
        self.standing.table && self.standing.sets.contains(set)
    }

    fn bare_chain(&self, name: &str) -> Chain<'static> {
        Chain {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(name),
            ..Chain::default()
        }
    }

    fn bare_set(&self, name: &str, form: SetForm) -> Set<'static> {
        Set {
            family: NfFamily::INet,
            table: self.table(),
            name: owned(name),
            set_type: type_of(form.key),
            flags: form.flag.map(|flag| HashSet::from([flag])),
            size: form.size,
            ..Set::default()
        }
    }

    fn table(&self) -> Cow<'static, str> {
        owned(self.table)
    }
}

impl SetForm {
    /// A hash set without timeouts.
    pub(super) fn plain(key: impl Into<Vec<SetType>>) -> Self {
        Self {
            key: key.into(),
            flag: None,
            size: None,
        }
    }

    /// A set of ranges and prefixes.
    pub(super) fn interval(key: impl Into<Vec<SetType>>) -> Self {
        Self {
            key: key.into(),
            flag: Some(SetFlag::Interval),
            size: None,
        }
    }

    /// A hash set whose elements have timeouts.
    pub(super) fn timeout(key: impl Into<Vec<SetType>>, size: Option<u32>) -> Self {
        Self {
            key: key.into(),
            flag: Some(SetFlag::Timeout),
            size,
        }
    }
}

fn type_of(key: Vec<SetType>) -> SetTypeValue<'static> {
    match key[..] {
        [single] => SetTypeValue::Single(single),
        _ => SetTypeValue::Concatenated(key.into()),
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}
