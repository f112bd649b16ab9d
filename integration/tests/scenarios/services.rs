//! Resolvers behind a Service, as in every cluster, and the search lists that come with it.

use std::process::Command;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::dns;
use lab::process::{find_program, succeed};
use namegate_integration::{Scenario, ip};

use super::plan;

const CLUSTER_IP: &str = "10.96.0.10";
const SEARCH: &str = "shop.svc.cluster.local svc.cluster.local cluster.local corp.example";
const RECORDS: [&str; 3] = [
    "api.example 60 A 198.51.100.7",
    "other.example 60 A 198.51.100.8",
    "db.shop.svc.cluster.local 60 A 10.96.7.7",
];

#[test]
fn lookups_to_a_cluster_ip_are_intercepted_and_answered_from_it_in_either_mode() {
    for mode in ["dnat", "tproxy"] {
        let scenario = behind_a_service(&format!("--intercept {mode}"));
        for over in [LookupTransport::Udp, LookupTransport::Tcp] {
            let ask = |name| {
                scenario
                    .pod(0)
                    .resolve(dns(ip(CLUSTER_IP)), name, RecordType::A, over)
                    .unwrap()
            };
            let reply = ask("api.example");
            assert_eq!(reply.addresses(), [ip("198.51.100.7")], "{mode} {over:?}");
            assert_eq!(ask("other.example").code(), ResponseCode::NXDomain, "{mode} {over:?}");
        }
        assert!(scenario.connect(0, ip("198.51.100.7")).is_connected(), "{mode}");
        assert!(scenario.connect(0, ip("198.51.100.8")).is_refused(), "{mode}");
        assert_eq!(scenario.lab().resolver().asked("other.example"), 0, "{mode}");
        // The pod that nobody governs goes through kube-proxy as ever.
        let reply = scenario
            .pod(1)
            .resolve(
                dns(ip(CLUSTER_IP)),
                "other.example",
                RecordType::A,
                LookupTransport::Udp,
            )
            .unwrap();
        assert_eq!(reply.addresses(), [ip("198.51.100.8")], "{mode}");
    }
}

#[test]
fn glibc_finds_names_through_a_search_list_with_ndots_5() {
    let scenario = behind_a_service("");
    let find = |name: &str| {
        let output = scenario
            .pod_command(0, CLUSTER_IP, SEARCH, "getent")
            .args(["ahostsv4", name])
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (found, text) = find("api.example");
    assert!(found && text.contains("198.51.100.7"), "{text}");
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    let (found, text) = find("db");
    assert!(
        found && text.contains("10.96.7.7"),
        "names of the cluster may be asked: {text}"
    );
    assert!(!find("other.example").0);
}

#[test]
fn musl_finds_names_through_a_search_list_with_ndots_5() {
    let Some(compiler) = find_program("musl-gcc") else {
        eprintln!("skipped: musl-gcc is not installed (package musl-tools)");
        return;
    };
    let scenario = behind_a_service("");
    let program = scenario.installation().scratch("resolve");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/resolve.c");
    succeed(
        Command::new(compiler)
            .arg("-static")
            .arg("-o")
            .arg(&program)
            .arg(source),
    )
    .unwrap();
    let program = program.to_str().unwrap();
    let find = |name: &str| {
        let output = scenario
            .pod_command(0, CLUSTER_IP, SEARCH, program)
            .arg(name)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    assert_eq!(find("api.example"), (true, "198.51.100.7\n".into()));
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    assert_eq!(find("db"), (true, "10.96.7.7\n".into()));
    assert!(!find("other.example").0);
}

/// A node where the resolver hides behind a ClusterIP, translated as kube-proxy does: for pods, and
/// for the node itself.
fn behind_a_service(flags: &str) -> Scenario {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\n\
         spec: {{clusterIP: {CLUSTER_IP}, clusterIPs: [{CLUSTER_IP}], ports: [{{port: 53, protocol: UDP, name: dns}}, {{port: 53, protocol: TCP, name: dns-tcp}}]}}\n"
    );
    let mut scenario = plan()
        .flags(flags)
        .upstreams(&[CLUSTER_IP])
        .allow(0, &["api.example"])
        .object("service.yaml", service)
        .records(&RECORDS)
        .build();
    scenario
        .lab()
        .node()
        .add_route("10.96.0.0/12".parse().unwrap(), None, "resolver")
        .unwrap();
    for (chain, hook) in [("pre", "prerouting"), ("out", "output")] {
        scenario.nft(&format!(
            "add table ip proxy; add chain ip proxy {chain} {{ type nat hook {hook} priority -100; }}"
        ));
        for protocol in ["udp", "tcp"] {
            scenario.nft(&format!(
                "add rule ip proxy {chain} ip daddr {CLUSTER_IP} {protocol} dport 53 dnat to {}",
                lab::RESOLVER
            ));
        }
    }
    scenario.start();
    scenario
}
