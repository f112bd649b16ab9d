//! Tables of others: what they may drop although Namegate allows it, and what keeps lookups from
//! being intercepted.
//!
//! They are read as plain JSON. The typed documents would not do: others use everything that nft
//! can say.

use std::collections::BTreeMap;

use serde_json::Value;
use settings::InterceptionMode;

use super::{Facts, Finding};

/// A base chain of somebody else's.
#[derive(Debug, Default)]
struct Chain<'a> {
    hook: &'a str,
    drops_by_policy: bool,
    /// Some rule drops or rejects.
    drops: bool,
    /// Some rule takes packets to port 53 out of connection tracking.
    untracks_lookups: bool,
}

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.ruleset {
        Ok(ruleset) => {
            let chains = chains(ruleset, &facts.table);
            findings.push(untracked(&chains, facts.interception));
            findings.extend(dropping(&chains, facts.interception));
        }
        Err(error) => findings.push(Finding::problem(
            "ruleset",
            format!("the tables of others cannot be read: {error}"),
            "run it as root",
        )),
    }
    findings.extend(legacy(facts));
    findings
}

/// In mode dnat lookups are kept in connection tracking. In mode tproxy the answers leave from the
/// resolver's address, which such rules take out of it too.
fn untracked(chains: &BTreeMap<String, Chain<'_>>, interception: InterceptionMode) -> Finding {
    const CODE: &str = "untracked-lookups";
    let culprits = named(chains, |chain| chain.untracks_lookups);
    match culprits.is_empty() || interception != InterceptionMode::Tproxy {
        true => Finding::ok(CODE, "lookups are tracked on their way"),
        false => Finding::problem(
            CODE,
            format!(
                "{culprits} takes lookups out of connection tracking, as NodeLocal DNSCache does: they cannot be \
                 answered in its place"
            ),
            "use --intercept dnat, or start node-cache with -setupiptables=false",
        ),
    }
}

fn dropping(chains: &BTreeMap<String, Chain<'_>>, interception: InterceptionMode) -> Vec<Finding> {
    let mut findings = Vec::new();
    let through = named(chains, |chain| chain.hook == "forward" && chain.may_drop());
    if !through.is_empty() {
        findings.push(Finding::note(
            "others-drop",
            format!("{through} may drop what passes through this node, also what Namegate allows"),
            "nothing, if that is a policy of its own; an accept in one table never overrides a drop in another",
        ));
    }
    let closed = named(chains, |chain| chain.hook == "input" && chain.drops_by_policy);
    if !closed.is_empty() && interception == InterceptionMode::Dnat {
        findings.push(Finding::problem(
            "input-closed",
            format!("{closed} drops what comes to this node unless a rule lets it in, and lookups come to this node"),
            "let translated lookups in there (nft: `ct status dnat meta l4proto { tcp, udp } accept`), or use --intercept tproxy",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("others-drop", "no table of others drops packets here"));
    }
    findings
}

fn legacy(facts: &Facts) -> Option<Finding> {
    (!facts.legacy_tables.is_empty()).then(|| {
        Finding::note(
            "legacy-iptables",
            format!(
                "the legacy iptables holds tables ({}), which nft cannot see into",
                facts.legacy_tables.join(", ")
            ),
            "look with iptables-legacy-save for rules that drop or that take port 53 out of connection tracking",
        )
    })
}

impl Chain<'_> {
    fn may_drop(&self) -> bool {
        self.drops || self.drops_by_policy
    }
}

/// The base chains of every table but our own, by family, table and name. What a base chain jumps
/// to counts as its own.
fn chains<'a>(ruleset: &'a Value, own: &str) -> BTreeMap<String, Chain<'a>> {
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
        let mut base = Chain {
            hook,
            drops_by_policy: text(chain, "policy") == "drop",
            ..Chain::default()
        };
        // Every chain once, so that rulesets that are large or made by hand take no longer than
        // they have rules.
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
    // The target CT can do other things as well; nft does not tell which.
    statement.get("notrack").is_some() || target == "CT" || target == "NOTRACK"
}

/// Whether a rule may be about packets to port 53: it names that port, or no port at all.
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
        // A set or range is not taken apart.
        false => ports.iter().any(|port| port.as_u64().is_none_or(|port| port == 53)),
    }
}

fn jump(statement: &Value) -> Option<&str> {
    ["jump", "goto"]
        .iter()
        .find_map(|verb| statement[*verb]["target"].as_str())
}

fn named(chains: &BTreeMap<String, Chain<'_>>, which: impl Fn(&Chain<'_>) -> bool) -> String {
    let names: Vec<String> = chains
        .iter()
        .filter(|(_, chain)| which(chain))
        .map(|(name, _)| format!("the chain {name}"))
        .collect();
    names.join(", ")
}
