//! Examines the tables of others: whether they may drop what Namegate allows, and whether they keep
//! lookups from being intercepted.
//!
//! The tables are read as plain JSON. Typed documents do not suffice, since others use everything
//! that nft has.

use std::collections::BTreeMap;

use serde_json::Value;
use settings::InterceptionMode;

use crate::{NodeFacts, NodeFinding};

/// A base chain in a table of others, with everything that it jumps to.
#[derive(Debug, Default)]
struct ForeignChain<'a> {
    hook: &'a str,
    drops_by_policy: bool,
    /// Whether a rule drops or rejects.
    drops: bool,
    /// Whether a rule takes packets to port 53 out of connection tracking.
    untracks_lookups: bool,
}

pub(crate) fn examine(facts: &NodeFacts) -> Vec<NodeFinding> {
    let mut findings = Vec::new();
    match &facts.ruleset {
        Ok(ruleset) => {
            let chains = chains(ruleset, &facts.table);
            findings.push(untracked(&chains, facts.interception));
            findings.extend(dropping(&chains, facts.interception));
        }
        Err(error) => findings.push(NodeFinding::problem(
            "ruleset",
            format!("the tables of others cannot be read: {error}"),
            "run it as root",
        )),
    }
    findings.extend(legacy(facts));
    findings
}

/// Only mode tproxy is affected. In mode dnat, Namegate's rules keep lookups in connection
/// tracking. In mode tproxy the answers leave from the resolver's address, and such rules take
/// these out of connection tracking too.
fn untracked(chains: &BTreeMap<String, ForeignChain<'_>>, interception: InterceptionMode) -> NodeFinding {
    const CODE: &str = "untracked-lookups";
    let culprits = named(chains, |chain| chain.untracks_lookups);
    match culprits.is_empty() || interception != InterceptionMode::Tproxy {
        true => NodeFinding::ok(CODE, "lookups are tracked on their way"),
        false => NodeFinding::problem(
            CODE,
            format!(
                "{culprits} takes lookups out of connection tracking, as NodeLocal DNSCache does: they cannot be \
                 answered in its place"
            ),
            "use --intercept dnat, or start node-cache with -setupiptables=false",
        ),
    }
}

fn dropping(chains: &BTreeMap<String, ForeignChain<'_>>, interception: InterceptionMode) -> Vec<NodeFinding> {
    let mut findings = Vec::new();
    let through = named(chains, |chain| chain.hook == "forward" && chain.may_drop());
    if !through.is_empty() {
        findings.push(NodeFinding::note(
            "others-drop",
            format!("{through} may drop what passes through this node, also what Namegate allows"),
            "nothing, if that is a policy of its own; an accept in one table never overrides a drop in another",
        ));
    }
    let closed = named(chains, |chain| chain.hook == "input" && chain.drops_by_policy);
    if !closed.is_empty() && interception == InterceptionMode::Dnat {
        findings.push(NodeFinding::problem(
            "input-closed",
            format!("{closed} drops what comes to this node unless a rule lets it in, and lookups come to this node"),
            "let translated lookups in there (nft: `ct status dnat meta l4proto { tcp, udp } accept`), or use --intercept tproxy",
        ));
    }
    if findings.is_empty() {
        findings.push(NodeFinding::ok("others-drop", "no table of others drops packets here"));
    }
    findings
}

fn legacy(facts: &NodeFacts) -> Option<NodeFinding> {
    (!facts.legacy_tables.is_empty()).then(|| {
        NodeFinding::note(
            "legacy-iptables",
            format!(
                "the legacy iptables holds tables ({}), which nft cannot see into",
                facts.legacy_tables.join(", ")
            ),
            "look with iptables-legacy-save for rules that drop or that take port 53 out of connection tracking",
        )
    })
}

impl ForeignChain<'_> {
    fn may_drop(&self) -> bool {
        self.drops || self.drops_by_policy
    }
}

/// The base chains of every table but our own, by family, table and name. The rules of the chains
/// that a base chain jumps to count as its own.
fn chains<'a>(ruleset: &'a Value, own: &str) -> BTreeMap<String, ForeignChain<'a>> {
    let objects = || ruleset["nftables"].as_array().into_iter().flatten();
    let text = |value: &'a Value, field: &str| value[field].as_str().unwrap_or_default();
    let is_own = |object: &'a Value| {
        let table = text(object, "table");
        text(object, "family") == "inet" && (table == own || table.strip_prefix(own) == Some("-probe"))
    };
    let name =
        |object: &'a Value, chain: &str| format!("{} {} {}", text(object, "family"), text(object, "table"), chain);

    let rules: Vec<&Value> = objects()
        .filter_map(|object| object.get("rule"))
        .filter(|rule| !is_own(rule))
        .collect();
    let mut found = BTreeMap::new();
    for chain in objects()
        .filter_map(|object| object.get("chain"))
        .filter(|chain| !is_own(chain))
    {
        let Some(hook) = chain["hook"].as_str() else { continue };
        let mut base = ForeignChain {
            hook,
            drops_by_policy: text(chain, "policy") == "drop",
            ..ForeignChain::default()
        };
        // Each chain is visited once, so that the time grows with the number of rules even where
        // chains jump to each other in many ways.
        let mut reached = vec![name(chain, text(chain, "name"))];
        let mut next = 0;
        while let Some(current) = reached.get(next).cloned() {
            next += 1;
            for rule in rules.iter().filter(|rule| name(rule, text(rule, "chain")) == current) {
                let statements = rule["expr"].as_array().into_iter().flatten();
                let statements: Vec<&Value> = statements.collect();
                base.drops |= statements.iter().any(|statement| drops(statement));
                base.untracks_lookups |=
                    statements.iter().any(|statement| untracks(statement)) && may_be_lookup(&statements);
                for target in statements.iter().filter_map(|statement| jump(statement)) {
                    let target = name(rule, target);
                    if !reached.contains(&target) {
                        reached.push(target);
                    }
                }
            }
        }
        found.insert(name(chain, text(chain, "name")), base);
    }
    found
}

fn drops(statement: &Value) -> bool {
    let target = &statement["xt"]["name"];
    statement.get("drop").is_some() || statement.get("reject").is_some() || target == "REJECT" || target == "DROP"
}

fn untracks(statement: &Value) -> bool {
    let target = &statement["xt"]["name"];
    // The target CT has other uses too, and nft does not show which one a rule has.
    statement.get("notrack").is_some() || target == "CT" || target == "NOTRACK"
}

/// Whether a rule may match packets to port 53: it names that port, or no port at all.
fn may_be_lookup(statements: &[&Value]) -> bool {
    let ports: Vec<&Value> = statements
        .iter()
        .map(|statement| &statement["match"])
        .filter(|condition| condition["left"]["payload"]["field"] == "dport")
        .map(|condition| &condition["right"])
        .collect();
    let from_port = |statement: &&Value| statement["match"]["left"]["payload"]["field"] == "sport";
    match ports.is_empty() {
        true => !statements.iter().any(from_port),
        // A set or a range is taken to contain the port.
        false => ports.iter().any(|port| port.as_u64().is_none_or(|port| port == 53)),
    }
}

fn jump(statement: &Value) -> Option<&str> {
    ["jump", "goto"]
        .iter()
        .find_map(|verb| statement[*verb]["target"].as_str())
}

fn named(chains: &BTreeMap<String, ForeignChain<'_>>, which: impl Fn(&ForeignChain<'_>) -> bool) -> String {
    let names: Vec<String> = chains
        .iter()
        .filter(|(_, chain)| which(chain))
        .map(|(name, _)| format!("the chain {name}"))
        .collect();
    names.join(", ")
}
