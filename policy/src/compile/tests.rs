use std::net::IpAddr;

use super::*;
use crate::document;
use crate::endpoint::EndpointId;
use crate::name_group::NameGroup;
use crate::ports::{PortRange, Protocol};
use crate::validate;

fn endpoint(namespace: &str, labels: &[(&str, &str)]) -> Endpoint {
    let mut labels: crate::labels::Labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    labels.insert("io.kubernetes.pod.namespace".into(), namespace.into());
    Endpoint {
        id: EndpointId {
            namespace: namespace.into(),
            name: "pod".into(),
        },
        labels,
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, 2])]),
        ports: Vec::new(),
    }
}

fn policy(name: &str, spec: &str) -> Policy {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: n}}\nspec:\n  endpointSelector: {{matchLabels: {{app: a}}}}\n{spec}"
    );
    let (documents, errors) = document::parse(&text);
    assert_eq!(errors, []);
    let (verdict, diagnostics) = validate::validate(&documents[0]);
    verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
}

fn governed_by(policies: &[Policy]) -> EndpointPolicy {
    compile(&endpoint("n", &[("app", "a")]), policies, &Inventory::default()).unwrap()
}

fn compiled(policies: &[Policy]) -> Program {
    governed_by(policies).programs.egress.unwrap()
}

fn selected(endpoint: &Endpoint, policies: &[Policy]) -> bool {
    compile(endpoint, policies, &Inventory::default()).is_some()
}

#[test]
fn an_endpoint_that_no_policy_selects_has_no_program() {
    let policies = [policy("p", "  egress: [{}]\n")];
    assert!(!selected(&endpoint("n", &[("app", "b")]), &policies));
    assert!(!selected(&endpoint("elsewhere", &[("app", "a")]), &policies));
    assert!(!selected(&endpoint("n", &[]), &[]));
}

#[test]
fn a_direction_that_no_policy_speaks_of_has_no_program() {
    for spec in ["  ingress: [{}]\n", "  ingress: [{}]\n  egress: []\n"] {
        let governed = governed_by(&[policy("p", spec)]);
        assert_eq!(governed.programs.egress, None);
        assert!(governed.programs.ingress.unwrap().enforced.closed());
        assert_eq!(governed.questions, QuestionRules::default());
    }
    let governed = governed_by(&[policy("p", "  egress: [{}]\n")]);
    assert!(governed.programs.egress.is_some() && governed.programs.ingress.is_none());
}

#[test]
fn each_direction_is_compiled_from_its_own_rules_and_what_is_the_same_has_the_same_id() {
    let of = |ingress: &str, egress: &str| {
        let ingress = format!("  ingress:\n  - {ingress}\n");
        let egress = format!("  egress:\n  - {egress}\n");
        governed_by(&[policy("p", &ingress), policy("q", &egress)]).programs
    };
    let programs = of("{fromEndpoints: [{matchLabels: {app: b}}]}", "{toCIDR: [192.0.2.0/24]}");
    assert_ne!(programs.egress, programs.ingress);
    let ports = "toPorts: [{ports: [{port: '443', protocol: TCP}]}]";
    let mirrored = of(
        &format!("{{fromEndpoints: [{{matchLabels: {{app: b}}}}], {ports}}}"),
        &format!("{{toEndpoints: [{{matchLabels: {{app: b}}}}], {ports}}}"),
    );
    // Sets are named by what they hold, so that both share them.
    assert_eq!(mirrored.egress.unwrap().id(), mirrored.ingress.unwrap().id());
}

#[test]
fn a_ports_name_is_the_endpoints_own_at_ingress_and_its_peers_at_egress() {
    let policies = [policy(
        "p",
        "  ingress:\n  - toPorts: [{ports: [{port: web, protocol: TCP}, {port: '53', protocol: UDP}]}]\n  egress:\n  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: web, protocol: TCP}]}]\n",
    )];
    let with = |ports: &[(&str, Protocol, u16)]| {
        let mut endpoint = endpoint("n", &[("app", "a")]);
        endpoint.ports = ports
            .iter()
            .map(|(name, protocol, port)| ContainerPort {
                name: (*name).to_owned(),
                protocol: *protocol,
                port: *port,
            })
            .collect();
        compile(&endpoint, &policies, &Inventory::default()).unwrap().programs
    };
    let opened = |programs: &PerDirection<Option<Program>>| -> Vec<(Protocol, u16)> {
        let rules = &programs.ingress.as_ref().unwrap().enforced.network;
        assert!(rules.iter().all(|rule| rule.named.is_empty()));
        let asked = [Protocol::Tcp, Protocol::Udp].into_iter();
        let asked = asked.flat_map(|protocol| [53, 80, 8080].map(|port| (protocol, port)));
        let is_open =
            |(protocol, port): &(Protocol, u16)| rules.iter().any(|rule| rule.ports.contains(*protocol, *port));
        asked.filter(is_open).collect()
    };
    let (low, high) = (
        with(&[("web", Protocol::Tcp, 80), ("web", Protocol::Udp, 8080)]),
        with(&[("web", Protocol::Tcp, 8080)]),
    );
    assert_eq!(opened(&low), [(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
    assert_eq!(opened(&high), [(Protocol::Tcp, 8080), (Protocol::Udp, 53)]);
    assert_eq!(opened(&with(&[])), [(Protocol::Udp, 53)]);
    assert_eq!(low.egress, high.egress, "there it is each destination's");
    assert!(names_ports_of_subject(&policies[0].specs[0]));
    assert!(!names_ports_of_subject(
        &policy(
            "q",
            "  egress:\n  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: web}]}]\n"
        )
        .specs[0]
    ));
}

#[test]
fn an_empty_rule_closes_without_allowing_anything() {
    let program = compiled(&[policy("p", "  egress: [{}]\n")]);
    assert!(program.enforced.closed());
    assert_eq!(program.enforced.rules().count(), 0);
}

#[test]
fn one_policy_closes_even_if_another_would_leave_it_open() {
    let open = policy(
        "open",
        "  enableDefaultDeny: {egress: false}\n  egressDeny: [{toCIDR: [192.0.2.0/24]}]\n",
    );
    assert!(!compiled(std::slice::from_ref(&open)).enforced.closed());
    assert!(
        compiled(&[open, policy("closed", "  egress: [{}]\n")])
            .enforced
            .closed()
    );
}

#[test]
fn names_gather_the_ports_and_origins_of_every_rule_that_has_them() {
    let program = compiled(&[
        policy(
            "q",
            "  egress:\n  - toFQDNs: [{matchName: A.example.}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n",
        ),
        policy(
            "p",
            "  egress:\n  - {}\n  - toFQDNs: [{matchName: a.example}, {matchName: b.example}]\n    toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n",
        ),
    ]);
    let [a, b] = program.enforced.network.as_slice() else {
        panic!("{program:?}")
    };
    let name = |text| Peer::Name(Pattern::name(text).unwrap());
    assert_eq!((&a.peer, &b.peer), (&name("a.example"), &name("b.example")));
    let origins: Vec<_> = a.origins.iter().map(|o| format!("{} {}", o.policy, o.rule)).collect();
    assert_eq!(origins, ["n/p spec.egress[1]", "n/q spec.egress[0]"]);
    assert!(a.ports.contains(Protocol::Tcp, 443) && a.ports.contains(Protocol::Tcp, 80));
    assert!(!b.ports.contains(Protocol::Tcp, 443));
}

#[test]
fn a_name_that_no_port_is_opened_for_is_no_rule() {
    let kafka = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '9092', protocol: TCP}], rules: {kafka: [{}]}}]\n";
    assert_eq!(compiled(&[policy("p", kafka)]).enforced.network, []);
}

#[test]
fn dns_rules_bind_to_single_addresses_or_to_every_trusted_resolver() {
    let dns = |peers: &str, name: &str| {
        format!(
            "  - {peers}\n    toPorts: [{{ports: [{{port: '53', protocol: UDP}}, {{port: '53', protocol: TCP}}], rules: {{dns: [{{matchName: {name}}}]}}}}]\n"
        )
    };
    let rules = [
        dns("toCIDR: [192.0.2.54/32, '2001:db8::53', 192.0.2.53]", "listed.example"),
        dns("toEndpoints: [{}]", "endpoints.example"),
        dns("toCIDR: [192.0.2.0/24]", "wide.example"),
        dns("toFQDNs: [{matchName: dns.example}]", "named.example"),
        dns("toCIDR: []", "nowhere.example"),
    ];
    let governed = governed_by(&[policy("p", &format!("  egress:\n{}", rules.concat()))]);
    let grants: Vec<_> = governed
        .questions
        .grants
        .iter()
        .map(|grant| {
            (
                grant.servers.clone(),
                grant.rule.port,
                format!("{:?}", grant.rule.patterns),
            )
        })
        .collect();
    let listed = ["192.0.2.53", "192.0.2.54", "2001:db8::53"]
        .map(|a| a.parse().unwrap())
        .to_vec();
    assert_eq!(
        grants,
        [
            (
                DnsServers::Trusted,
                53,
                "[endpoints.example, named.example, wide.example]".to_owned()
            ),
            (DnsServers::Listed(listed), 53, "[listed.example]".to_owned()),
        ]
    );
    assert_eq!(
        governed.programs.egress.unwrap().enforced.network,
        [],
        "no port 53 is opened: lookups are intercepted"
    );
}

#[test]
fn the_order_of_policies_does_not_show() {
    let policies = [
        policy("a", "  egress:\n  - toFQDNs: [{matchName: a.example}]\n"),
        policy(
            "b",
            "  egress:\n  - toFQDNs: [{matchPattern: '*.example'}, {matchName: a.example}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n",
        ),
        policy(
            "c",
            "  egress:\n  - toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]\n",
        ),
        policy(
            "d",
            "  egress:\n  - toCIDR: [10.0.0.0/7]\n    toPorts: [{ports: [{port: '53'}]}]\n",
        ),
        policy(
            "e",
            "  egressDeny:\n  - toEntities: [host]\n  egress:\n  - toEndpoints: [{}]\n    toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]\n",
        ),
    ];
    let expected = compiled(&policies);
    // Every permutation: digit by digit, in the factorial number system.
    for mut number in 0..120 {
        let mut left = policies.to_vec();
        let mut permuted = Vec::new();
        for size in (1..=policies.len()).rev() {
            permuted.push(left.remove(number % size));
            number /= size;
        }
        let program = compiled(&permuted);
        assert_eq!(program.id(), expected.id());
        assert_eq!(program, expected);
    }
}

fn audited(mut policy: Policy) -> Policy {
    policy.extensions.audit = true;
    policy
}

#[test]
fn an_audited_policy_enforces_nothing_and_says_what_it_would() {
    let alone = compiled(&[audited(policy("p", "  egress: [{}]\n"))]);
    assert_eq!(alone.enforced, Tiers::default());
    assert!(alone.audited.unwrap().closed());

    let dns = "  egress:\n  - toCIDR: [192.0.2.53]\n    toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchName: a.example}]}}]\n";
    let beside = governed_by(&[
        audited(policy("p", dns)),
        policy("q", "  egressDeny: [{toCIDR: [192.0.2.0/24]}]\n"),
    ]);
    assert_eq!(beside.questions.grants, [], "its DNS rules deny no question");
    let beside = beside.programs.egress.unwrap();
    assert_eq!(beside.enforced.network.len(), 1);
    assert!(beside.enforced.closed(), "by the other");
    assert!(beside.audited.is_some());
}

#[test]
fn the_stricter_annotation_counts() {
    let mut strict = policy("p", "  egress: [{}]\n");
    strict.extensions.questions = Some(QuestionMode::AllowedOnly);
    strict.extensions.response = Some(DenyResponse::Drop);
    let mut lax = policy("q", "  egress: [{}]\n");
    lax.extensions.questions = Some(QuestionMode::Any);
    lax.extensions.response = Some(DenyResponse::Reject);
    let both = governed_by(&[lax, strict]);
    assert_eq!(both.questions.mode, Some(QuestionMode::AllowedOnly));
    assert_eq!(both.programs.egress.unwrap().response, Some(DenyResponse::Drop));
}

#[test]
fn an_admin_tier_is_ordered_by_priority_and_then_by_name() {
    let ordered = |name: &str, priority| {
        let mut policy = policy(name, "  egressDeny: [{toCIDR: [192.0.2.0/24]}]\n");
        policy.specs[0].tier = Tier::Admin { priority };
        policy.specs[0].directions.egress.closes = false;
        policy
    };
    let program = compiled(&[ordered("c", 5), ordered("b", 5), ordered("a", 7), ordered("d", 0)]);
    let order: Vec<_> = program
        .enforced
        .admin
        .iter()
        .map(|rule| rule.origins[0].policy.name.as_str())
        .collect();
    assert_eq!(order, ["d", "b", "c", "a"]);
}

/// The rules of tier Network: what each is through, with its ports.
fn network_of(policies: &[Policy]) -> Vec<(Option<String>, PortSet)> {
    let program = compiled(policies);
    let rules = program.enforced.network.into_iter();
    rules
        .map(|rule| (rule.through.map(|rules| rules.to_string()), rule.ports))
        .collect()
}

fn tcp(port: u16) -> PortSet {
    PortSet::from_ranges([PortRange::single(Protocol::Tcp, port)])
}

#[test]
fn what_is_looked_into_is_a_rule_behind_those_that_let_everything_through() {
    let http = |path: &str| {
        format!(
            "  egress:\n  - toCIDR: [192.0.2.1/32]\n    toPorts:\n    - ports: [{{port: '80', protocol: TCP}}]\n      rules: {{http: [{{method: GET, path: {path}}}]}}\n    - ports: [{{port: '443', protocol: TCP}}]\n"
        )
    };
    let one = [policy("p", &http("/users"))];
    assert_eq!(
        network_of(&one),
        [(None, tcp(443)), (Some("GET /users".to_owned()), tcp(80))]
    );
    let other = [policy("p", &http("/orders"))];
    assert_ne!(
        compiled(&one).id(),
        compiled(&other).id(),
        "what is asked is part of the program"
    );
    let plain = policy(
        "q",
        "  egress:\n  - toCIDR: [192.0.2.1/32]\n    toPorts: [{ports: [{port: '80', protocol: TCP}]}]\n",
    );
    let both = network_of(&[one[0].clone(), plain]);
    assert_eq!(both.len(), 2);
    assert_eq!(both[0].0, None, "an allowance of ports alone decides first");
}

#[test]
fn nothing_is_looked_into_where_everything_passes_anyway() {
    let http = "  egress:\n  - toCIDR: [192.0.2.1/32]\n    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]\n";
    let open = policy("p", &format!("  enableDefaultDeny: {{egress: false}}\n{http}"));
    assert_eq!(network_of(std::slice::from_ref(&open)), []);
    let closing = policy("q", "  egress: [{}]\n");
    assert_eq!(
        network_of(&[open, closing]).len(),
        1,
        "another policy closes the direction"
    );
}

#[test]
fn verified_names_open_tcp_to_what_announces_them_and_no_quic() {
    let of = |mode: &str, ports: &str| {
        let mut policy = policy(
            "p",
            &format!("  egress:\n  - toFQDNs: [{{matchName: a.example}}]\n{ports}"),
        );
        policy.extensions.verify_names = match mode {
            "enforce" => Some(VerifyNames::Enforce),
            _ => Some(VerifyNames::Audit),
        };
        network_of(&[policy])
    };
    let verified = Some("the name that is announced is the one that led there".to_owned());
    let any = "    toPorts: [{ports: [{port: '443'}]}]\n";
    let single = |protocol| PortRange::single(protocol, 443);
    assert_eq!(
        of("enforce", any),
        [
            (None, PortSet::from_ranges([single(Protocol::Sctp)])),
            (verified.clone(), tcp(443))
        ]
    );
    assert_eq!(
        of("audit", any),
        [
            (
                None,
                PortSet::from_ranges([single(Protocol::Udp), single(Protocol::Sctp)])
            ),
            (verified.clone(), tcp(443))
        ]
    );
    let every = of("enforce", "");
    let [(None, others), (through, tcp)] = every.as_slice() else {
        panic!("{every:?}")
    };
    assert_eq!(
        (through, tcp),
        (&verified, &PortSet::from_ranges([PortRange::every(Protocol::Tcp)]))
    );
    for (protocol, port, open) in [
        (Protocol::Udp, 443, false),
        (Protocol::Udp, 53, true),
        (Protocol::Icmp, 8, true),
        (Protocol::Tcp, 80, false),
    ] {
        assert_eq!(others.contains(protocol, port), open, "{protocol} {port}");
    }
    let requests = "    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /a}]}}]\n";
    let [(Some(through), _)] = &of("enforce", requests)[..] else {
        panic!()
    };
    assert!(
        through.contains("any method /a") && through.contains("the name that is announced"),
        "{through}"
    );
}

/// The patterns of each group, and whether it is for all ports.
fn groups(policies: &[Policy]) -> Vec<(String, bool)> {
    let shown = |group: &NameGroup| {
        let patterns: Vec<_> = group.patterns.iter().map(Pattern::to_string).collect();
        (patterns.join(" "), group.ports == PortSet::All)
    };
    compiled(policies).enforced.name_groups.iter().map(shown).collect()
}

fn names_on_tls(name: &str, rules: &[&str]) -> Policy {
    let rule =
        |names: &&str| format!("  - toFQDNs: [{names}]\n    toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]\n");
    policy(
        name,
        &format!("  egress:\n{}", rules.iter().map(rule).collect::<String>()),
    )
}

#[test]
fn the_names_of_a_spec_on_the_same_ports_stand_together_whatever_else_governs() {
    let shared = policy(
        "shared",
        "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n  - toFQDNs: [{matchName: b.example}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n  - toFQDNs: [{matchName: c.example}]\n",
    );
    let own = names_on_tls("own", &["{matchName: b.example}, {matchName: d.example}"]);
    let of_shared = [
        ("a.example b.example".to_owned(), false),
        ("c.example".to_owned(), true),
    ];
    assert_eq!(groups(std::slice::from_ref(&shared)), of_shared);
    let both = groups(&[own, shared]);
    assert_eq!(both.len(), 3);
    assert!(of_shared.iter().all(|group| both.contains(group)), "{both:?}");
}

#[test]
fn a_wildcard_is_a_group_whatever_names_a_spec_lists_beside_it() {
    let patterns = |rules: &[&str]| -> Vec<String> {
        let groups = groups(&[names_on_tls("p", rules)]);
        groups.into_iter().map(|(patterns, _)| patterns).collect()
    };
    assert_eq!(
        patterns(&[
            "{matchPattern: '*.a.example'}, {matchName: own.example}",
            "{matchPattern: '*.b.example'}"
        ]),
        ["*.a.example", "*.b.example", "own.example"]
    );
    assert_eq!(
        patterns(&["{matchPattern: '*.a.example'}, {matchPattern: '*.b.example'}, {matchPattern: '*.c.example'}"]),
        ["*.a.example *.b.example *.c.example"],
        "a packet would pay for each"
    );
}

#[test]
fn names_that_no_port_is_opened_for_are_in_no_group() {
    let http = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]\n";
    assert_eq!(groups(&[policy("p", http)]), []);
}
