//! Which resolvers are known, what they teach, and where they are asked.

use std::net::Ipv4Addr;

use dns_proxy::{EncryptedProtocol, EncryptedUpstream, ListenerKind};

use super::*;

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

fn binding_ports(asked: impl Iterator<Item = SocketAddr>) -> BTreeMap<SocketAddr, u16> {
    let bindings = crate::resolvers::bind(asked, Interception::Dnat);
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
        plan.listeners.iter().map(|it| it.kind).collect::<Vec<_>>()
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
