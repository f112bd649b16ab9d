use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use cluster::catalogue::Catalogue;
use dns_proxy::{EncryptedProtocol, EncryptedUpstream, ListenerKind};
use fqdn_cache::{LearnedAnswer, LeaseOwner};
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts};

use super::*;

const UPSTREAM: &str = "192.0.2.53:53";
const SECOND_UPSTREAM: &str = "[2001:db8::53]:53";

/// A policy's own resolver, with what it needs to be one.
const OWN_RESOLVER: &str =
    "{toCIDR: [203.0.113.53], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn settings() -> Settings {
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Ok("nameserver 192.0.2.53\nnameserver 2001:db8::53\n".into()),
    };
    let mut options = AgentOptions::default();
    options.objects.objects = Some("objects".into());
    resolve(options, &host).unwrap()
}

fn tproxy() -> Settings {
    Settings {
        interception: Interception::Tproxy {
            mark: NonZeroU32::MIN,
            routing_table: 7,
            port: 15_353,
        },
        ..settings()
    }
}

fn plan_with(objects: &[String], settings: &Settings) -> Plan {
    let text = Ok(objects.join("---\n"));
    let update = Catalogue::default().scan(BTreeMap::from([("objects.yaml".into(), text)]));
    let update = update.unwrap();
    let mut cluster = Cluster::default();
    for report in &update.reports {
        assert!(report.worst() < Some(policy::Severity::Error), "{report:?}");
    }
    for change in update.changes {
        cluster.apply(change);
    }
    Planner::default().plan(&cluster, settings, &BTreeSet::from([ip("10.0.0.254")]))
}

fn plan(objects: &[String]) -> Plan {
    plan_with(objects, &settings())
}

/// A pod in namespace `n` whose label `app` is its name.
fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: n, labels: {{app: {name}}}}}\nstatus: {{podIPs: [{{ip: '{address}'}}]}}\n"
    )
}

/// A policy of the same name for a pod; `rules` is the content of the list `egress`.
fn policy_of(pod: &str, rules: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {pod}, namespace: n}}\n\
         spec: {{endpointSelector: {{matchLabels: {{app: {pod}}}}}, egress: [{rules}]}}\n"
    )
}

fn names(names: &str) -> String {
    format!("{{toFQDNs: [{names}], toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}")
}

fn allow(pod: &str, allowed: &str) -> String {
    policy_of(pod, &names(&format!("{{matchName: {allowed}}}")))
}

/// What `address`, learned for `name` from `source` under this plan, opens or closes.
fn opened(plan: &Plan, learned: &str, address: &str, source: &str) -> Vec<ProgramId> {
    let mut programs = Vec::new();
    for matched in plan.matched_names(&name(learned), &[], false) {
        plan.elements(&matched, ip(address), plan.teacher(ip(source)), |element| {
            assert_eq!(element.key.address, ip(address));
            programs.push(element.set.program);
        });
    }
    programs
}

fn program(plan: &Plan, address: &str) -> ProgramId {
    plan.governed[&ip(address)].program
}

#[test]
fn endpoints_that_a_policy_selects_are_governed_and_others_left_alone() {
    let plan = plan(&[pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), allow("a", "a.example")]);
    assert_eq!(plan.governed.len(), 1);
    let governed = &plan.governed[&ip("10.0.0.1")];
    assert_eq!(governed.id.to_string(), "n/a");
    assert_eq!(
        plan.desired.dispatch.egress,
        BTreeMap::from([(ip("10.0.0.1"), governed.program)])
    );
    assert_eq!(plan.desired.intercepted, BTreeSet::from([ip("10.0.0.1")]));
    assert_eq!(
        plan.desired.programs[&governed.program]
            .enforced
            .classifier
            .default_verdict(),
        policy::Verdict::Deny
    );
    let rows: Vec<_> = plan
        .endpoints
        .iter()
        .map(|row| (row.endpoint.as_str(), row.egress.as_str(), row.policies.join(" ")))
        .collect();
    assert_eq!(
        rows,
        [
            ("n/a", "default-deny", "n/a".into()),
            ("n/b", "unselected", String::new())
        ]
    );
}

#[test]
fn endpoints_that_are_governed_alike_share_a_program_and_the_names_know_every_policy() {
    let plan = plan(&[
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        pod("c", "10.0.0.3"),
        allow("a", "a.example"),
        allow("b", "a.example"),
        allow("c", "c.example"),
    ]);
    assert_eq!(program(&plan, "10.0.0.1"), program(&plan, "10.0.0.2"));
    assert_ne!(program(&plan, "10.0.0.1"), program(&plan, "10.0.0.3"));
    assert_eq!(plan.desired.programs.len(), 2);
    let (patterns, policies) = plan.attribution(&name("a.example"));
    let patterns: Vec<_> = patterns.into_iter().map(ToString::to_string).collect();
    let policies: Vec<_> = policies.into_iter().map(ToString::to_string).collect();
    assert_eq!(
        (patterns, policies),
        (vec!["a.example".into()], vec!["n/a".into(), "n/b".into()])
    );
    assert!(plan.attribution(&name("z.example")).0.is_empty());
}

#[test]
fn every_selector_that_matches_a_name_is_attributed_and_opens_its_program() {
    let plan = plan(&[
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        allow("a", "x.example"),
        policy_of("b", &names("{matchPattern: '*.example'}, {matchName: example}")),
    ]);
    let (patterns, _) = plan.attribution(&name("x.example"));
    assert_eq!(patterns.len(), 2);
    let mut both = vec![program(&plan, "10.0.0.1"), program(&plan, "10.0.0.2")];
    both.sort();
    let mut opened_now = opened(&plan, "x.example", "198.51.100.1", "192.0.2.53");
    opened_now.sort();
    assert_eq!(opened_now, both);
    assert_eq!(
        opened(&plan, "y.example", "198.51.100.1", "192.0.2.53"),
        [program(&plan, "10.0.0.2")]
    );
}

#[test]
fn upstreams_dns_services_and_servers_of_dns_rules_are_known_resolvers() {
    let dns = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
        spec: {clusterIP: 10.96.0.10, ports: [{name: dns, port: 53, protocol: UDP}]}\n";
    let plan = plan(&[dns.into(), pod("a", "10.0.0.1"), policy_of("a", OWN_RESOLVER)]);
    let own = Teaches::Programs(BTreeSet::from([program(&plan, "10.0.0.1")]));
    for (asked, upstreams, teaches) in [
        (UPSTREAM, vec![UPSTREAM, SECOND_UPSTREAM], Teaches::Everyone),
        (SECOND_UPSTREAM, vec![SECOND_UPSTREAM, UPSTREAM], Teaches::Everyone),
        ("10.96.0.10:53", vec!["10.96.0.10:53"], Teaches::Everyone),
        ("203.0.113.53:53", vec!["203.0.113.53:53"], own),
    ] {
        let upstreams: Vec<SocketAddr> = upstreams.into_iter().map(at).collect();
        assert_eq!(
            plan.upstreams(at(asked)).as_deref(),
            Some(upstreams.as_slice()),
            "{asked}"
        );
        assert_eq!(plan.resolvers[&at(asked)].teaches, teaches, "{asked}");
    }
    assert_eq!(plan.resolvers.len(), 4);
    let bound: BTreeSet<SocketAddr> = plan.desired.resolvers.iter().map(|binding| binding.asked).collect();
    assert_eq!(bound, plan.resolvers.keys().copied().collect());
    assert_eq!(plan.upstreams(at("203.0.113.99:53")), None);
}

#[test]
fn a_server_that_is_configured_teaches_everyone_whatever_policies_say_of_it() {
    let rule = OWN_RESOLVER.replace("203.0.113.53", "192.0.2.53");
    let plan = plan(&[pod("a", "10.0.0.1"), policy_of("a", &rule)]);
    assert_eq!(plan.resolvers[&at(UPSTREAM)].teaches, Teaches::Everyone);
}

#[test]
fn an_upstream_on_loopback_teaches_and_is_not_intercepted() {
    let mut settings = settings();
    settings.upstreams = vec![at("127.0.0.1:5353")];
    let plan = plan_with(&[pod("a", "10.0.0.1"), allow("a", "a.example")], &settings);
    assert_eq!(plan.desired.resolvers, []);
    assert_eq!(opened(&plan, "a.example", "198.51.100.1", "127.0.0.1").len(), 1);
}

#[test]
fn pods_ask_an_encrypted_upstream_as_a_plain_one() {
    let mut settings = settings();
    let encrypted = |address: &str| EncryptedUpstream {
        address: at(address),
        protocol: EncryptedProtocol::Tls,
        name: "dns.example".into(),
        authorities: Arc::default(),
    };
    settings.upstreams = [UPSTREAM, "198.51.100.53:853", "192.0.2.53:853"].map(at).to_vec();
    settings.encrypted = vec![encrypted("198.51.100.53:853"), encrypted("192.0.2.53:853")];
    let plan = plan_with(&[pod("a", "10.0.0.1"), allow("a", "a.example")], &settings);
    let bound: Vec<SocketAddr> = plan.desired.resolvers.iter().map(|binding| binding.asked).collect();
    assert_eq!(bound, [UPSTREAM, "198.51.100.53:53"].map(at));
    let first = |asked: &str| plan.upstreams(at(asked)).unwrap()[0];
    assert_eq!(first("198.51.100.53:53"), at("198.51.100.53:853"));
    assert_eq!(first(UPSTREAM), at(UPSTREAM), "it is configured as a plain one too");
    assert_eq!(opened(&plan, "a.example", "198.51.100.1", "198.51.100.53").len(), 1);
}

#[test]
fn a_policys_own_resolver_teaches_only_the_programs_of_its_endpoints() {
    let with_resolver = policy_of(
        "a",
        &format!(
            "{OWN_RESOLVER}, {}",
            names("{matchName: a.example}, {matchName: own.example}")
        ),
    );
    let objects = [
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        with_resolver,
        allow("b", "a.example"),
    ];
    let plan = plan(&objects);
    let (a, b) = (program(&plan, "10.0.0.1"), program(&plan, "10.0.0.2"));
    assert_ne!(a, b);
    assert_eq!(opened(&plan, "a.example", "198.51.100.1", "203.0.113.53"), [a]);
    let mut from_upstream = opened(&plan, "a.example", "198.51.100.1", "192.0.2.53");
    from_upstream.sort();
    assert_eq!(from_upstream, BTreeSet::from([a, b]).into_iter().collect::<Vec<_>>());
}

#[test]
fn equal_rules_with_another_resolver_beside_them_do_not_share_what_it_teaches() {
    let rules = names("{matchName: a.example}");
    let copied = policy_of("evil", &format!("{{toCIDR: [203.0.113.53]}}, {OWN_RESOLVER}, {rules}"));
    let shop = policy_of(
        "shop",
        &format!(
            "{{toCIDR: [203.0.113.53]}}, {{toCIDR: [203.0.113.53], toPorts: [{{ports: [{{port: '53'}}]}}]}}, {rules}"
        ),
    );
    let objects = [
        pod("evil", "10.0.0.1"),
        pod("shop", "10.0.0.2"),
        pod("other", "10.0.0.3"),
    ];
    let other = shop.replace("shop", "other");
    let all = plan(&[objects.as_slice(), &[copied, shop, other]].concat());
    let [evil, shop, other] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| program(&all, address));
    assert_ne!(evil, shop);
    assert_eq!(shop, other, "equal programs with equal teachers are one");
    assert_eq!(opened(&all, "a.example", "198.51.100.1", "203.0.113.53"), [evil]);
    let by_trusted: BTreeSet<_> = opened(&all, "a.example", "198.51.100.1", "192.0.2.53")
        .into_iter()
        .collect();
    assert_eq!(by_trusted, BTreeSet::from([evil, shop]));
}

#[test]
fn what_a_private_resolver_says_changes_no_lease_that_others_have() {
    let settings = settings();
    let objects = |with_own: bool| {
        let own = if with_own {
            format!("{OWN_RESOLVER}, ")
        } else {
            String::new()
        };
        [
            pod("a", "10.0.0.1"),
            pod("b", "10.0.0.2"),
            policy_of(
                "a",
                &format!("{own}{}", names("{matchName: x.example}, {matchName: a.example}")),
            ),
            allow("b", "x.example"),
        ]
    };
    let with_own = plan_with(&objects(true), &settings);
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let (now, seconds) = (Time::from_millis(0), Duration::from_secs);
    for (source, address, ttl) in [
        ("192.0.2.53", "198.51.100.1", 60),
        ("203.0.113.53", "198.51.100.1", 86_400),
        ("203.0.113.53", "198.51.100.2", 86_400),
    ] {
        let answer = LearnedAnswer {
            name: name("x.example"),
            addresses: vec![(ip(address), seconds(ttl))].into(),
            teacher: with_own.teacher(ip(source)),
            owner: LeaseOwner(1),
            terms: None,
        };
        ledger.learn(now, &answer);
    }
    let ends = |plan: &Plan, pod: &str| -> Vec<(IpAddr, Time)> {
        let elements = plan.all_elements(&ledger, now);
        let own = elements
            .into_iter()
            .filter(|(element, ..)| element.set.program == program(plan, pod));
        own.map(|(element, end, _)| (element.key.address, end)).collect()
    };
    let (short, long) = (
        now + settings.lease.lease(seconds(60)),
        now + settings.lease.lease(seconds(86_400)),
    );
    assert_eq!(
        ends(&with_own, "10.0.0.2"),
        [(ip("198.51.100.1"), short)],
        "not lengthened"
    );
    assert_eq!(
        ends(&with_own, "10.0.0.1"),
        [(ip("198.51.100.1"), long), (ip("198.51.100.2"), long)]
    );
    for settings in [settings.clone(), tproxy()] {
        let without = plan_with(&objects(false), &settings);
        for pod in ["10.0.0.1", "10.0.0.2"] {
            assert_eq!(
                ends(&without, pod),
                [(ip("198.51.100.1"), short)],
                "what it alone taught is closed, no more"
            );
        }
    }
}

#[test]
fn a_source_that_is_not_known_teaches_nobody_except_under_tproxy() {
    let objects = [pod("a", "10.0.0.1"), allow("a", "a.example")];
    assert!(opened(&plan(&objects), "a.example", "198.51.100.1", "203.0.113.99").is_empty());
    let tproxy = plan_with(&objects, &tproxy());
    assert_eq!(opened(&tproxy, "a.example", "198.51.100.1", "203.0.113.99").len(), 1);
    // A Service's backend is asked itself. Our own transparent port is not.
    assert_eq!(
        tproxy.upstreams(at("10.244.0.9:53")).as_deref(),
        Some(&[at("10.244.0.9:53")][..])
    );
    assert_eq!(tproxy.upstreams(at("10.0.0.254:15353")), None);
}

#[test]
fn the_ledger_opens_what_the_plan_in_force_says_until_the_last_lease_ends() {
    let settings = settings();
    let objects = [
        pod("a", "10.0.0.1"),
        policy_of("a", &names("{matchName: a.example}, {matchName: b.example}")),
    ];
    let plan = plan_with(&objects, &settings);
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let now = Time::from_millis(0);
    let mut learn = |learned: &str, address: &str, seconds: u64, source: &str| {
        let answer = LearnedAnswer {
            name: name(learned),
            addresses: vec![(ip(address), Duration::from_secs(seconds))].into(),
            teacher: plan.teacher(ip(source)),
            owner: LeaseOwner(1),
            terms: None,
        };
        ledger.learn(now, &answer);
    };
    learn("a.example", "198.51.100.1", 60, "192.0.2.53");
    learn("b.example", "198.51.100.1", 600, "192.0.2.53");
    learn("a.example", "198.51.100.2", 60, "203.0.113.99");
    learn("b.example", "10.0.0.1", 60, "192.0.2.53");
    learn("z.example", "198.51.100.3", 60, "192.0.2.53");
    let elements: Vec<_> = plan
        .all_elements(&ledger, now)
        .into_iter()
        .map(|(element, end, _)| (element.key.address, element.key.port.map(|(_, port)| port), end))
        .collect();
    let end = now + settings.lease.lease(Duration::from_secs(600));
    assert_eq!(
        elements,
        [(ip("198.51.100.1"), Some(443), end)],
        "neither from a server that is not known, nor a pod's address, nor a name that nobody selects"
    );
}

#[test]
fn what_one_pod_has_learned_leaves_room_for_the_others_and_is_never_built_whole() {
    let settings = Settings {
        capacity: NonZeroU32::new(1_000).unwrap(),
        ..settings()
    };
    let allowed = names("{matchPattern: '*.example'}");
    let plan = plan_with(
        &[
            pod("a", "10.0.0.1"),
            policy_of("a", &allowed),
            pod("b", "10.0.0.2"),
            policy_of("b", &allowed),
        ],
        &settings,
    );
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    let now = Time::from_millis(0);
    for number in (0..50_000u32).chain(100_000..100_010) {
        let own = u32::from(number < 100_000);
        let answer = LearnedAnswer {
            name: name(&format!("n{number}.example")),
            addresses: vec![(
                IpAddr::from((number + (203 << 24)).to_be_bytes()),
                Duration::from_secs(60),
            )]
            .into(),
            teacher: plan.teacher(ip("192.0.2.53")),
            owner: LeaseOwner(own),
            terms: None,
        };
        ledger.learn(now, &answer);
    }
    let elements = plan.all_elements(&ledger, now);
    assert_eq!(elements.len(), 1_000);
    assert_eq!(elements.iter().filter(|(.., holder)| *holder == Holder(0)).count(), 10);
}

#[test]
fn the_chain_counts_only_where_the_configuration_says_so() {
    let objects = [pod("a", "10.0.0.1"), allow("a", "cdn.example")];
    let (question, chain) = (name("www.example"), [name("other.example"), name("cdn.example")]);
    assert!(plan(&objects).matched_names(&question, &chain, false).is_empty());
    let settings = Settings {
        matching: NameMatching::Chain,
        ..settings()
    };
    let matched = |plan: &Plan, question, chain| -> Vec<Name> {
        let matched = plan.matched_names(question, chain, false);
        matched.iter().map(|matched| matched.name.clone()).collect()
    };
    assert_eq!(matched(&plan_with(&objects, &settings), &question, &chain), chain[1..]);
    let direct = name("cdn.example");
    let alone = matched(&plan(&objects), &direct, &[]);
    assert_eq!(alone, [direct]);
}

/// An application may keep an NXDOMAIN for a name that the plan allows which is on its way to the
/// kernel.
#[test]
fn a_lookup_that_only_the_coming_plan_allows_is_judged_by_that() {
    use dns_proxy::QueryTarget;

    use crate::gate::ActivePlan;
    let objects = [pod("a", "10.0.0.1"), allow("a", "old.example")];
    let edited = [pod("a", "10.0.0.1"), allow("a", "new.example")];
    let mut in_force = ActivePlan {
        plan: Arc::new(plan(&objects)),
        generation: Default::default(),
        coming: None,
    };
    let asked = QueryTarget::Resolver(at(UPSTREAM));
    let coming_judges = |in_force: &ActivePlan, text| in_force.plan_for(ip("10.0.0.1"), asked, &name(text)).1;
    assert!(!coming_judges(&in_force, "new.example"));
    in_force.coming = Some(Arc::new(plan(&edited)));
    assert!(coming_judges(&in_force, "new.example"));
    assert!(
        !coming_judges(&in_force, "old.example"),
        "it is allowed until the rules change"
    );
    assert!(!coming_judges(&in_force, "neither.example"));
}

fn binding_ports(asked: impl Iterator<Item = SocketAddr>) -> BTreeMap<SocketAddr, u16> {
    let bindings = resolvers::bind(asked, Interception::Dnat);
    bindings
        .into_iter()
        .map(|binding| (binding.asked, binding.listener.port()))
        .collect()
}

#[test]
fn each_resolver_has_a_port_of_its_own_that_no_other_version_or_order_changes() {
    let asked = |count: u16| (0..count).map(|n| SocketAddr::new(Ipv4Addr::from(0xc000_0200 + u32::from(n)).into(), 53));
    assert_eq!(
        binding_ports([at(UPSTREAM), at(SECOND_UPSTREAM)].into_iter()),
        binding_ports([at(SECOND_UPSTREAM), at(UPSTREAM)].into_iter()),
    );
    // Pinned: an agent of another version that overlaps during an upgrade must agree.
    assert_eq!(binding_ports([at(UPSTREAM)].into_iter())[&at(UPSTREAM)], 16_128);
    // Collisions give the next port, and when all are taken the rest stays ordinary egress.
    for (count, bound) in [(300, 300), (1_100, 1_024)] {
        let ports = binding_ports(asked(count));
        let distinct: BTreeSet<u16> = ports.values().copied().collect();
        assert_eq!((ports.len(), distinct.len()), (bound, bound));
    }
}

#[test]
fn listeners_follow_the_mode_of_interception() {
    let objects = [pod("a", "10.0.0.1"), allow("a", "a.example")];
    let kinds = |settings: &Settings| {
        let plan = plan_with(&objects, settings);
        plan.listeners.into_iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    let mut with_listener = settings();
    with_listener.listen = vec![at("10.0.0.254:53")];
    assert_eq!(
        kinds(&with_listener),
        [
            ListenerKind::Plain,
            ListenerKind::Dnat(at(UPSTREAM)),
            ListenerKind::Dnat(at(SECOND_UPSTREAM)),
        ]
    );
    assert_eq!(kinds(&tproxy()), [ListenerKind::Tproxy; 2], "one for each family");
    with_listener.interception = Interception::Off;
    assert_eq!(kinds(&with_listener), [ListenerKind::Plain]);
}

#[test]
fn an_address_that_pods_with_different_policies_claim_is_closed() {
    let contested = |others: &[String]| {
        let objects = [pod("a", "10.0.0.1"), pod("b", "10.0.0.1"), allow("a", "a.example")];
        plan(&[&objects, others].concat())
    };
    // The other one is not selected, or differently, or may do the same and ask more.
    let asks_more = "{toEndpoints: [{}], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}";
    for others in [
        vec![],
        vec![allow("b", "b.example")],
        vec![
            allow("b", "a.example"),
            policy_of("b", asks_more).replace("name: b,", "name: more,"),
        ],
    ] {
        let plan = contested(&others);
        let governed = &plan.governed[&ip("10.0.0.1")];
        assert!(governed.questions.is_none());
        let program = &plan.desired.programs[&governed.program];
        assert_eq!(**program, KernelProgram::new(&address_conflicts::refuse_all()));
        assert_eq!(plan.desired.dispatch.egress[&ip("10.0.0.1")], governed.program);
        assert!(plan.desired.intercepted.contains(&ip("10.0.0.1")));
        assert!(plan.endpoints.iter().all(|row| row.egress == "contested"));
        assert_eq!(
            plan.conflicts[0].to_string(),
            "10.0.0.1 is claimed by n/a and n/b, whose policies differ: NOTHING is let through from it"
        );
    }
    let alike = contested(&[allow("b", "a.example")]);
    assert_eq!(alike.governed[&ip("10.0.0.1")].id.to_string(), "n/a");
    assert!(!alike.conflicts[0].closed);
    assert!(alike.endpoints.iter().all(|row| row.egress == "default-deny"));
}

#[test]
fn only_the_contested_address_of_a_pod_is_closed() {
    let dual = pod("a", "10.0.0.1").replace("[{ip: '10.0.0.1'}]", "[{ip: '10.0.0.1'}, {ip: '2001:db8:1::1'}]");
    let plan = plan(&[dual, pod("b", "10.0.0.1"), allow("a", "a.example")]);
    assert!(plan.governed[&ip("10.0.0.1")].questions.is_none());
    assert!(plan.governed[&ip("2001:db8:1::1")].questions.is_some());
    assert_ne!(program(&plan, "10.0.0.1"), program(&plan, "2001:db8:1::1"));
}

#[test]
fn a_contest_is_reported_at_each_pod() {
    use cluster::{ReadReport, ReportState};
    let conflicts = plan(&[pod("a", "10.0.0.1"), pod("b", "10.0.0.1"), allow("a", "a.example")]).conflicts;
    let said = |object: &str, state| ReadReport::new(None, object.into(), state, Vec::new());
    let mut reports = vec![
        said("Pod n/a", ReportState::Accepted),
        said("Pod n/c", ReportState::Accepted),
        // A second definition, which does not count.
        said("Pod n/b", ReportState::Rejected),
        said("Pod n/b", ReportState::KeptLastGood),
    ];
    report(&conflicts, &mut reports);
    let shown: Vec<_> = reports
        .iter()
        .map(|it| (it.object.as_str(), it.state.as_str(), it.diagnostics.len()))
        .collect();
    assert_eq!(
        shown,
        [
            ("Pod n/a", "partial", 1),
            ("Pod n/c", "accepted", 0),
            ("Pod n/b", "rejected", 0),
            ("Pod n/b", "kept-last-good", 1),
        ]
    );
    // A source that reports nothing of its Pods.
    let mut reports = Vec::new();
    report(&conflicts, &mut reports);
    assert_eq!(reports.len(), 2);
}

#[test]
fn a_deleted_policy_that_leaves_a_pod_open_is_told_with_the_pods_name() {
    let pods = pod("a", "10.0.0.1") + "---\n" + &pod("b", "10.0.0.2");
    let (of_a, of_b) = (allow("a", "x.example"), allow("b", "x.example"));
    let also_of_b = policy_of("b", "{}").replace("name: b, namespace", "name: other, namespace");
    let told = |before: &[String], now: &[String]| -> Vec<String> {
        let opened = super::opened_pods::opened(&plan(before), &plan(now));
        opened.iter().map(ToString::to_string).collect()
    };
    let all = [pods.clone(), of_a.clone(), of_b.clone(), also_of_b.clone()];
    assert_eq!(
        told(&all, &[pods.clone(), of_b.clone()]),
        ["CiliumNetworkPolicy n/a is deleted, and no policy restricts n/a any more: egress is OPEN"]
    );
    assert_eq!(
        told(&all, &[pods.clone(), of_a.clone(), also_of_b]),
        [""; 0],
        "another one closes it"
    );
    assert_eq!(told(&[pods.clone(), of_a.clone()], &all), [""; 0]);
    // With its pod.
    assert_eq!(told(&[pod("a", "10.0.0.1"), of_a], &[pod("b", "10.0.0.2")]), [""; 0]);
}
