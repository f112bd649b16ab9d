//! May this endpoint ask this name?

use std::net::{IpAddr, SocketAddr};

use names::{Name, NameIndex, Pattern};

use crate::dns_rules::{DnsServers, QuestionMode};
use crate::policy::Action;
use crate::program::{EndpointPolicy, Peer, Rule, Tiers};

/// Whether a question may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionVerdict {
    /// It may be asked.
    Allowed,
    /// It may be asked if this address is learned: the name is its reverse name. The caller looks
    /// into the ledger.
    AllowedIfLearned(IpAddr),
    /// It may not.
    Denied(QuestionDenial),
}

/// Why a question may not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionDenial {
    /// `egressDeny.toFQDNs` matches the name.
    DeniedName,
    /// The endpoint has DNS rules for this resolver and none lets the name be asked.
    NoDnsRule,
    /// `--dns-questions allowed-only`, and no selector of the endpoint matches the name.
    NoSelector,
    /// The name is a search-list expansion of one that may be asked; refused, but not counted as a
    /// denial.
    SearchExpansion,
}

/// The questions that an endpoint may ask, prepared for the hot path.
///
/// In this order:
///
/// 1. A name that `egressDeny.toFQDNs` matches is denied, whatever its ports, unless a
///    ClusterNetworkPolicy of tier Admin accepts it.
/// 2. Where DNS rules speak of the resolver asked (its address or every trusted one, and its port),
///    they alone decide: neither the cluster domain nor reverse names are let through beside them,
///    as in Cilium.
/// 3. Otherwise the [`QuestionMode`] decides.
#[derive(Debug)]
pub struct Questions {
    denied: NameIndex<()>,
    /// Names that an Admin tier accepts, whatever is denied below it.
    accepted: NameIndex<()>,
    grants: Vec<Grant>,
    mode: QuestionMode,
    /// Names of `toFQDNs`; empty in mode `Any`, where nobody asks.
    selected: NameIndex<()>,
    cluster_domains: Box<[Name]>,
    /// `.suffix.`, longest first.
    search: Vec<String>,
}

#[derive(Debug)]
struct Grant {
    servers: DnsServers,
    port: u16,
    names: NameIndex<()>,
}

impl Questions {
    /// Prepares what governs an endpoint. `mode` counts where no policy says otherwise, and only
    /// where some policy is enforced (and not all are audited). `cluster_domains` are
    /// those of the cluster's own names; `search` are the suffixes of the endpoint's search list,
    /// longest first.
    pub fn new(policy: &EndpointPolicy, mode: QuestionMode, cluster_domains: &[Name], search: &[Name]) -> Self {
        let index = |patterns: &mut dyn Iterator<Item = &Pattern>| {
            let mut index = NameIndex::default();
            patterns.for_each(|pattern| index.insert(pattern, ()));
            index
        };
        let nothing = Tiers::default();
        let tiers = policy
            .programs
            .egress
            .as_ref()
            .map_or(&nothing, |program| &program.enforced);
        let names = |rules, action| index(&mut patterns(rules, action));
        let mode = match tiers.rules().next().is_some() || tiers.closed() {
            true => policy.questions.mode.unwrap_or(mode),
            false => QuestionMode::Any,
        };
        let grants = policy.questions.grants.iter().map(|grant| Grant {
            servers: grant.servers.clone(),
            port: grant.rule.port,
            names: index(&mut grant.rule.patterns.iter()),
        });
        Self {
            denied: names(&tiers.network, Action::Deny),
            accepted: names(&tiers.admin, Action::Allow),
            grants: grants.collect(),
            mode,
            selected: match mode {
                QuestionMode::Any => NameIndex::default(),
                QuestionMode::AllowedOnly => {
                    let network = patterns(&tiers.network, Action::Allow);
                    index(&mut patterns(&tiers.admin, Action::Allow).chain(network))
                }
            },
            cluster_domains: cluster_domains.into(),
            search: search
                .iter()
                .filter(|suffix| **suffix != Name::root())
                .map(|suffix| format!(".{}", suffix.as_str()))
                .collect(),
        }
    }

    /// Judges one question, asked of the resolver at `asked`. Does not allocate when it allows.
    pub fn judge(&self, asked: SocketAddr, name: &Name) -> QuestionVerdict {
        match self.judge_as_written(asked, name) {
            QuestionVerdict::Denied(QuestionDenial::NoDnsRule | QuestionDenial::NoSelector)
                if self.expands_what_may_be_asked(asked, name) =>
            {
                QuestionVerdict::Denied(QuestionDenial::SearchExpansion)
            }
            verdict => verdict,
        }
    }

    /// Whether an answer to `name` that begins with a CNAME to `target` counts for that as well.
    ///
    /// It does where `name` is a search expansion of this endpoint, and `target` the bare name or
    /// another expansion of it that may be asked: the resolver walked the search list in the
    /// client's place (CoreDNS with autopath). The expansions are names of the cluster domain, so
    /// no outsider makes their CNAMEs.
    pub fn counts_as(&self, asked: SocketAddr, name: &Name, target: &Name) -> bool {
        let is_candidate = |bare: &str| {
            let suffix = target.as_str().strip_prefix(bare);
            suffix.is_some_and(|suffix| suffix == "." || self.search.iter().any(|known| known == suffix))
        };
        self.search
            .iter()
            .filter_map(|suffix| name.as_str().strip_suffix(suffix.as_str()))
            .any(|bare| !bare.is_empty() && is_candidate(bare))
            && self.judge_as_written(asked, target) == QuestionVerdict::Allowed
    }

    fn judge_as_written(&self, asked: SocketAddr, name: &Name) -> QuestionVerdict {
        if self.denied.any_match(name) && !self.accepted.any_match(name) {
            return QuestionVerdict::Denied(QuestionDenial::DeniedName);
        }
        let mut ruled = false;
        for grant in self.grants.iter().filter(|grant| grant.speaks_of(asked)) {
            if grant.names.any_match(name) {
                return QuestionVerdict::Allowed;
            }
            ruled = true;
        }
        if ruled {
            return QuestionVerdict::Denied(QuestionDenial::NoDnsRule);
        }
        match self.mode {
            QuestionMode::Any => QuestionVerdict::Allowed,
            QuestionMode::AllowedOnly
                if self.selected.any_match(name)
                    || self.cluster_domains.iter().any(|domain| name.is_within(domain)) =>
            {
                QuestionVerdict::Allowed
            }
            QuestionMode::AllowedOnly => match name.reverse_address() {
                Some(address) => QuestionVerdict::AllowedIfLearned(address),
                None => QuestionVerdict::Denied(QuestionDenial::NoSelector),
            },
        }
    }

    /// Whether `name` is a name that may be asked with a search suffix after it. Only asked of
    /// denied names, and allocates.
    fn expands_what_may_be_asked(&self, asked: SocketAddr, name: &Name) -> bool {
        self.search
            .iter()
            .filter_map(|suffix| Name::parse(name.as_str().strip_suffix(suffix.as_str())?).ok())
            .any(|bare| self.judge_as_written(asked, &bare) == QuestionVerdict::Allowed)
    }
}

fn patterns(rules: &[Rule], action: Action) -> impl Iterator<Item = &Pattern> {
    rules
        .iter()
        .filter(move |rule| rule.action == action)
        .filter_map(|rule| match &rule.peer {
            Peer::Name(pattern) => Some(pattern),
            _ => None,
        })
}

impl Grant {
    fn speaks_of(&self, asked: SocketAddr) -> bool {
        self.port == asked.port()
            && match &self.servers {
                DnsServers::Trusted => true,
                DnsServers::Listed(addresses) => addresses.contains(&asked.ip().to_canonical()),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direction::PerDirection;
    use crate::dns_rules::{DnsGrant, DnsRule, QuestionRules};
    use crate::extensions::LeaseTerms;
    use crate::policy_id::{PolicyId, PolicyKind};
    use crate::ports::PortSet;
    use crate::program::{Origin, Program};

    const CLUSTER_DNS: &str = "10.96.0.10:53";

    fn rules(action: Action, patterns: &[&str]) -> Vec<Rule> {
        let names = patterns.iter().map(|text| Rule {
            action,
            peer: Peer::Name(Pattern::pattern(text).unwrap()),
            ports: PortSet::All,
            named: Vec::new(),
            through: None,
            lease: LeaseTerms::default(),
            origins: Vec::new(),
        });
        names.collect()
    }

    fn grant(servers: DnsServers, port: u16, patterns: &[&str]) -> DnsGrant {
        let patterns = patterns.iter().map(|text| Pattern::pattern(text).unwrap()).collect();
        DnsGrant {
            servers,
            rule: DnsRule { port, patterns },
        }
    }

    fn policy(allow: &[&str], deny: &[&str], grants: Vec<DnsGrant>) -> EndpointPolicy {
        let policy = PolicyId {
            kind: PolicyKind::CiliumNetworkPolicy,
            namespace: "n".into(),
            name: "p".into(),
        };
        let program = Program {
            enforced: Tiers {
                network: [rules(Action::Deny, deny), rules(Action::Allow, allow)].concat(),
                closed_by: vec![Origin {
                    policy,
                    rule: String::new(),
                }],
                ..Tiers::default()
            },
            ..Program::default()
        };
        EndpointPolicy {
            programs: PerDirection::of_egress(Some(program)),
            questions: QuestionRules { grants, mode: None },
        }
    }

    fn judge(policy: &EndpointPolicy, mode: QuestionMode, asked: &str, name: &str) -> QuestionVerdict {
        let search = ["default.svc.cluster.local", "cluster.local", "corp.example"].map(|s| Name::parse(s).unwrap());
        let questions = Questions::new(policy, mode, &[Name::parse("cluster.local").unwrap()], &search);
        questions.judge(asked.parse().unwrap(), &Name::parse(name).unwrap())
    }

    fn denied(why: QuestionDenial) -> QuestionVerdict {
        QuestionVerdict::Denied(why)
    }

    #[test]
    fn any_name_may_be_asked_where_nothing_rules_questions() {
        let policy = policy(&["a.example"], &[], vec![]);
        assert_eq!(
            judge(&policy, QuestionMode::Any, CLUSTER_DNS, "elsewhere.example"),
            QuestionVerdict::Allowed
        );
    }

    #[test]
    fn a_denied_name_is_denied_in_every_mode_and_whatever_the_rules_grant() {
        let policy = policy(&["*"], &["bad.example"], vec![grant(DnsServers::Trusted, 53, &["*"])]);
        for mode in [QuestionMode::Any, QuestionMode::AllowedOnly] {
            assert_eq!(
                judge(&policy, mode, CLUSTER_DNS, "BAD.example."),
                denied(QuestionDenial::DeniedName)
            );
            assert_eq!(
                judge(&policy, mode, CLUSTER_DNS, "good.example"),
                QuestionVerdict::Allowed
            );
        }
    }

    #[test]
    fn allowed_only_lets_through_selectors_the_cluster_domain_and_reverse_names_of_learned_addresses() {
        let policy = policy(&["*.example.com"], &[], vec![]);
        let judge = |name| judge(&policy, QuestionMode::AllowedOnly, CLUSTER_DNS, name);
        assert_eq!(judge("a.example.com"), QuestionVerdict::Allowed);
        assert_eq!(judge("kubernetes.default.svc.cluster.local"), QuestionVerdict::Allowed);
        let learned = QuestionVerdict::AllowedIfLearned("192.0.2.1".parse().unwrap());
        assert_eq!(judge("1.2.0.192.in-addr.arpa"), learned);
        assert_eq!(judge("example.com"), denied(QuestionDenial::NoSelector));
    }

    #[test]
    fn search_expansions_of_a_name_that_may_be_asked_are_told_apart_from_denials() {
        let policy = policy(&["*.example.com"], &["no.example.com"], vec![]);
        let judge = |name| judge(&policy, QuestionMode::AllowedOnly, CLUSTER_DNS, name);
        assert_eq!(
            judge("a.example.com.corp.example"),
            denied(QuestionDenial::SearchExpansion)
        );
        assert_eq!(
            judge("evil.example.net.corp.example"),
            denied(QuestionDenial::NoSelector)
        );
        assert_eq!(judge("no.example.com.corp.example"), denied(QuestionDenial::NoSelector));
        assert_eq!(judge("corp.example"), denied(QuestionDenial::NoSelector));
    }

    #[test]
    fn a_chain_from_a_search_expansion_to_its_bare_name_counts_as_that() {
        let policy = policy(&["a.example.com"], &["no.example.com"], vec![]);
        let search = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(|s| Name::parse(s).unwrap());
        let domain = Name::parse("cluster.local").unwrap();
        for mode in [QuestionMode::Any, QuestionMode::AllowedOnly] {
            let questions = Questions::new(&policy, mode, std::slice::from_ref(&domain), &search);
            let counts = |name, target| {
                let [name, target] = [name, target].map(|text| Name::parse(text).unwrap());
                questions.counts_as(CLUSTER_DNS.parse().unwrap(), &name, &target)
            };
            assert!(counts("a.example.com.shop.svc.cluster.local", "A.example.com"));
            assert!(counts("a.example.com.cluster.local", "a.example.com"));
            assert!(counts("db.data.shop.svc.cluster.local", "db.data.svc.cluster.local"));
            for (name, target, why) in [
                (
                    "a.example.com.other.svc.cluster.local",
                    "a.example.com",
                    "another namespace's",
                ),
                (
                    "b.example.com.shop.svc.cluster.local",
                    "a.example.com",
                    "of another name",
                ),
                (
                    "x.a.example.com.shop.svc.cluster.local",
                    "a.example.com",
                    "of a longer name",
                ),
                (
                    "a.example.com.shop.svc.cluster.local",
                    "a.example.com.evil.example",
                    "no suffix of the list",
                ),
                ("a.example.com.evil.example", "a.example.com", "no expansion"),
                ("no.example.com.shop.svc.cluster.local", "no.example.com", "denied"),
                ("shop.svc.cluster.local", "a.example.com", "a suffix alone"),
            ] {
                assert!(!counts(name, target), "{why}");
            }
        }
        let questions = Questions::new(
            &policy,
            QuestionMode::AllowedOnly,
            std::slice::from_ref(&domain),
            &search,
        );
        let [name, target] = ["b.example.shop.svc.cluster.local", "b.example"].map(|text| Name::parse(text).unwrap());
        let counts = questions.counts_as(CLUSTER_DNS.parse().unwrap(), &name, &target);
        assert!(!counts, "the bare name may not be asked");
    }

    #[test]
    fn dns_rules_alone_decide_for_the_resolvers_that_they_speak_of() {
        let listed = DnsServers::Listed(vec!["192.0.2.53".parse().unwrap()]);
        let policy = policy(&["a.example"], &[], vec![grant(listed, 53, &["b.example"])]);
        let judge = |asked, name| judge(&policy, QuestionMode::AllowedOnly, asked, name);
        assert_eq!(judge("192.0.2.53:53", "b.example"), QuestionVerdict::Allowed);
        assert_eq!(judge("[::ffff:192.0.2.53]:53", "b.example"), QuestionVerdict::Allowed);
        assert_eq!(judge("192.0.2.53:53", "a.example"), denied(QuestionDenial::NoDnsRule));
        assert_eq!(
            judge("192.0.2.53:53", "x.cluster.local"),
            denied(QuestionDenial::NoDnsRule)
        );
        assert_eq!(
            judge("192.0.2.53:53", "1.2.0.192.in-addr.arpa"),
            denied(QuestionDenial::NoDnsRule)
        );
        assert_eq!(
            judge("192.0.2.53:53", "b.example.corp.example"),
            denied(QuestionDenial::SearchExpansion)
        );
        // Another port or another resolver: the mode decides.
        assert_eq!(judge("192.0.2.53:5353", "a.example"), QuestionVerdict::Allowed);
        assert_eq!(judge(CLUSTER_DNS, "b.example"), denied(QuestionDenial::NoSelector));
    }

    #[test]
    fn grants_add_up_and_a_grant_without_names_denies_all() {
        let both = policy(
            &[],
            &[],
            vec![
                grant(
                    DnsServers::Listed(vec!["10.96.0.10".parse().unwrap()]),
                    53,
                    &["a.example"],
                ),
                grant(DnsServers::Trusted, 53, &["b.example"]),
            ],
        );
        for name in ["a.example", "b.example"] {
            assert_eq!(
                judge(&both, QuestionMode::Any, CLUSTER_DNS, name),
                QuestionVerdict::Allowed
            );
        }
        let none = policy(&[], &[], vec![grant(DnsServers::Trusted, 53, &[])]);
        assert_eq!(
            judge(&none, QuestionMode::Any, CLUSTER_DNS, "a.example"),
            denied(QuestionDenial::NoDnsRule)
        );
    }
}
