//! What connections and requests pass, of plans of objects in YAML.

use std::collections::BTreeMap;

use cluster::Cluster;
use cluster::catalogue::Catalogue;
use planner::Planner;
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts};

use super::*;

const WEB: &str = "10.0.0.2:40000";
const FRONTEND: &str = "10.0.0.3:40000";
const SERVICE: &str = "10.0.0.4:80";

fn plan(policies: &str) -> Plan {
    let pod = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: n, labels: {{app: {name}}}}}\nstatus: {{podIPs: [{{ip: {address}}}]}}\n---\n"
        )
    };
    let pods = [("web", "10.0.0.2"), ("frontend", "10.0.0.3"), ("myservice", "10.0.0.4")];
    let pods: String = pods.iter().map(|(name, address)| pod(name, address)).collect();
    let text = Ok(format!("{pods}{policies}"));
    let update = Catalogue::default().scan(BTreeMap::from([("objects.yaml".into(), text)]));
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Ok("nameserver 192.0.2.53\n".into()),
    };
    let mut options = AgentOptions::default();
    options.objects.objects = Some("objects".into());
    let settings = resolve(options, &host).unwrap();
    let mut cluster = Cluster::new(&settings.node);
    for change in update.unwrap().changes {
        cluster.apply(change);
    }
    Planner::default().plan(&cluster, &settings, &Arc::default())
}

fn policy(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: n, annotations: {{{annotations}}}}}\nspec: {spec}\n---\n"
    )
}

fn parties(source: &str, asked: &str) -> ConnectionParties {
    ConnectionParties {
        source: source.parse().unwrap(),
        asked: asked.parse().unwrap(),
    }
}

/// Two names hold this address.
const SHARED: &str = "203.0.113.7:443";

fn names_of(address: IpAddr, _: ProgramId) -> SmallVec<[Name; 2]> {
    let held: &[&str] = match address.to_string().as_str() {
        "203.0.113.7" => &["a.example", "b.example"],
        _ => &[],
    };
    held.iter().map(|name| Name::parse(name).unwrap()).collect()
}

fn rules(plan: &Plan, source: &str, asked: &str) -> ConnectionRules {
    match ConnectionRules::of(plan, parties(source, asked), names_of) {
        PartyVerdict::Inspected(rules) => rules,
        other => panic!("{other:?}"),
    }
}

fn hello(rules: &ConnectionRules, name: Option<&str>) -> Option<L7Denial> {
    let name = name.map(|name| Name::parse(name).unwrap());
    let announced = Announcement::Tls {
        server_name: name.as_ref(),
        is_encrypted: false,
    };
    rules.decide(announced, names_of).err()
}

fn request(rules: &ConnectionRules, method: &str, path: &str, host: &str) -> Option<L7Denial> {
    let read = HttpRequest {
        method: method.as_bytes(),
        path: path.as_bytes(),
        host: host.as_bytes(),
        headers: &[],
    };
    rules.decide(Announcement::Http(&read), names_of).err()
}

#[test]
fn names_that_share_an_address_are_told_apart() {
    let plan = plan(&policy(
        "p",
        "namegate.io/verify-names: enforce",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toFQDNs: [{matchName: a.example}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]}",
    ));
    let rules = rules(&plan, WEB, SHARED);
    assert!(rules.take_tls() && rules.take_http());
    assert_eq!(hello(&rules, Some("a.example")), None);
    assert_eq!(
        hello(&rules, Some("b.example")),
        Some(L7Denial::OtherName),
        "the rule does not select it"
    );
    assert_eq!(hello(&rules, Some("www.a.example")), Some(L7Denial::OtherName));
    assert_eq!(hello(&rules, None), Some(L7Denial::NoName));
    assert_eq!(request(&rules, "GET", "/", "a.example"), None);
    assert_eq!(request(&rules, "GET", "/", "b.example:443"), Some(L7Denial::OtherName));
    let nobody = |_: IpAddr, _: ProgramId| SmallVec::new();
    let a = Name::parse("a.example").unwrap();
    let announced = Announcement::Tls {
        server_name: Some(&a),
        is_encrypted: false,
    };
    assert_eq!(
        rules.decide(announced, nobody),
        Err(L7Denial::OtherName),
        "a lease that ended ends what it opened"
    );
}

#[test]
fn what_no_rule_leads_to_is_refused_and_what_everything_may_go_to_passes() {
    let plan = plan(&policy(
        "p",
        "",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toFQDNs: [{matchName: a.example}], toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: [a.example]}, {ports: [{port: '80', protocol: TCP}]}]}]}",
    ));
    let of = |source, asked| ConnectionRules::of(&plan, parties(source, asked), names_of);
    assert!(matches!(of(WEB, "203.0.113.8:443"), PartyVerdict::Denied));
    assert!(matches!(of(WEB, "203.0.113.7:80"), PartyVerdict::Allowed));
    assert!(matches!(of(FRONTEND, SHARED), PartyVerdict::Ungoverned));
    let rules = rules(&plan, WEB, SHARED);
    assert!(rules.take_tls() && !rules.take_http());
    assert_eq!(hello(&rules, Some("a.example")), None);
    assert_eq!(hello(&rules, Some("b.example")), Some(L7Denial::ServerName));
}

const ALLOW_FRONTEND_HTTP: &str = "{endpointSelector: {matchLabels: {app: myservice}}, ingress: [{fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET, path: /users}]}}]}]}";

#[test]
fn only_the_frontend_gets_users_and_nothing_else() {
    let plan = plan(&policy("allow-frontend-http", "", ALLOW_FRONTEND_HTTP));
    let rules = rules(&plan, FRONTEND, SERVICE);
    assert!(!rules.take_tls() && rules.take_http());
    assert_eq!(request(&rules, "GET", "/users", "myservice"), None);
    for (method, path) in [
        ("POST", "/users"),
        ("HEAD", "/users"),
        ("GET", "/users/1"),
        ("GET", "/users?x=1"),
        ("GET", "/"),
    ] {
        assert_eq!(
            request(&rules, method, path, "myservice"),
            Some(L7Denial::Request),
            "{method} {path}"
        );
    }
    assert_eq!(hello(&rules, Some("myservice")), Some(L7Denial::NotHttp));
    for (source, asked) in [(WEB, SERVICE), (FRONTEND, "10.0.0.4:81")] {
        let verdict = ConnectionRules::of(&plan, parties(source, asked), names_of);
        assert!(matches!(verdict, PartyVerdict::Denied), "{source} {asked}");
    }
}

#[test]
fn both_ends_must_let_a_request_through() {
    let sender = "{endpointSelector: {matchLabels: {app: frontend}}, egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: 'GET|POST', headerMatches: [{name: X-From, value: frontend, mismatch: REPLACE}]}]}}]}]}";
    let both = policy("allow-frontend-http", "", ALLOW_FRONTEND_HTTP) + &policy("sender", "", sender);
    let plan_of_both = plan(&both);
    let rules_of_both = rules(&plan_of_both, FRONTEND, SERVICE);
    assert_eq!(request(&rules_of_both, "GET", "/users", "x"), None);
    assert_eq!(request(&rules_of_both, "POST", "/users", "x"), Some(L7Denial::Request));
    let read = HttpRequest {
        method: b"GET",
        path: b"/users",
        host: b"x",
        headers: &[],
    };
    let passing = rules_of_both.decide(Announcement::Http(&read), names_of).unwrap();
    assert_eq!(
        passing.changes.into_iter().map(edit).collect::<Vec<_>>(),
        [HeaderEdit::Set {
            name: "x-from".into(),
            value: b"frontend".as_slice().into()
        }]
    );
    let closed = "{endpointSelector: {matchLabels: {app: frontend}}, egress: [{}]}";
    let plan = plan(&(policy("allow-frontend-http", "", ALLOW_FRONTEND_HTTP) + &policy("sender", "", closed)));
    let verdict = ConnectionRules::of(&plan, parties(FRONTEND, SERVICE), names_of);
    assert!(matches!(verdict, PartyVerdict::Denied));
}

#[test]
fn an_audited_name_is_recorded_and_passes() {
    let plan = plan(&policy(
        "p",
        "namegate.io/verify-names: audit",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toFQDNs: [{matchName: a.example}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]}",
    ));
    let rules = rules(&plan, WEB, SHARED);
    for name in [Some("a.example"), Some("b.example"), None] {
        assert_eq!(hello(&rules, name), None, "{name:?}");
    }
    let passing = rules.decide(Announcement::Other, names_of).unwrap();
    assert_eq!((passing.changes, passing.audited.is_some()), (Vec::new(), true));
}
