//! Pods whose objects come late, in whatever order.

use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::plan;

/// An application may keep an NXDOMAIN for as long as it lives.
#[test]
fn an_allowed_name_is_never_nxdomain_while_a_pods_object_comes_and_goes() {
    for (mode, pods_before) in [("dnat", true), ("dnat", false), ("tproxy", false)] {
        let flags = format!("--unknown-pods deny --node here --intercept {mode}");
        let mut scenario = plan().flags(&flags).records(&["api.example 60 A 198.51.100.7"]).build();
        let address = scenario.pod(1).address4();
        let neighbour = scenario.pod(0).address4();
        let pod = |name, app| pod_at(name, app, address);
        scenario.write("node.yaml", &node(address));
        scenario.write(
            "policies.yaml",
            &(policy("new", "api.example") + &policy("old", "old.example")),
        );
        // Its address was another Pod's, whose object is still there for a while; or nobody's.
        let before = match pods_before {
            true => pod("old", "old"),
            false => pod_at("neighbour", "none", neighbour),
        };
        scenario.write("pods.yaml", &before);
        scenario.start();
        scenario.expect_errors("is claimed by shop/new and shop/old");
        for _ in 0..4 {
            scenario.write("pods.yaml", &(before.clone() + &pod("new", "new")));
            // The old Pod's object alone judges for it until the new one's is known.
            let mut codes = Vec::new();
            scenario.wait_until("the new Pod's lookup is answered, or too early", || {
                codes.push(scenario.ask(1, "api.example", RecordType::A).code());
                let last = codes[codes.len() - 1];
                last == if pods_before {
                    ResponseCode::ServFail
                } else {
                    ResponseCode::NoError
                }
            });
            scenario.write("pods.yaml", &pod("new", "new"));
            scenario.wait_until("the new Pod's lookup is answered", || {
                codes.push(scenario.ask(1, "api.example", RecordType::A).code());
                codes[codes.len() - 1] == ResponseCode::NoError
            });
            let first = codes.iter().position(|code| *code != ResponseCode::NXDomain);
            let known = &codes[first.unwrap_or_default()..];
            assert!(!known.contains(&ResponseCode::NXDomain), "{mode}: {codes:?}");
            assert!(pods_before || first == Some(0), "{mode}: {codes:?}");
            scenario.write("pods.yaml", &before);
            scenario.wait_until("its object is forgotten", || {
                scenario.ask(1, "api.example", RecordType::A).code() != ResponseCode::NoError
            });
        }
    }
}

/// Before the Pod's object it is too early to say, and without the policy everything may be asked.
#[test]
fn an_allowed_name_is_never_nxdomain_whether_the_pod_or_its_policy_comes_first() {
    for mode in ["dnat", "tproxy"] {
        let flags = format!("--unknown-pods deny --node here --intercept {mode}");
        let mut scenario = plan().flags(&flags).records(&["api.example 60 A 198.51.100.7"]).build();
        let address = scenario.pod(1).address4();
        let pods_before = pod_at("neighbour", "none", scenario.pod(0).address4());
        let policies_before = policy("old", "old.example");
        scenario.write("node.yaml", &node(address));
        scenario.write("pods.yaml", &pods_before);
        scenario.write("policies.yaml", &policies_before);
        scenario.start();
        for round in 0..4 {
            let mut arrivals = [
                ("pods.yaml", pods_before.clone() + &pod_at("new", "new", address)),
                ("policies.yaml", policies_before.clone() + &policy("new", "api.example")),
            ];
            if round % 2 == 1 {
                arrivals.reverse();
            }
            let mut codes = Vec::new();
            for (file, text) in arrivals {
                scenario.write(file, &text);
                for _ in 0..20 {
                    codes.push(scenario.ask(1, "api.example", RecordType::A).code());
                }
            }
            scenario.wait_until("both are known", || {
                codes.push(scenario.ask(1, "api.example", RecordType::A).code());
                scenario.ask(1, "other.example", RecordType::A).code() == ResponseCode::NXDomain
                    && codes.ends_with(&[ResponseCode::NoError])
            });
            assert!(!codes.contains(&ResponseCode::NXDomain), "{mode}: {codes:?}");
            scenario.write("pods.yaml", &pods_before);
            scenario.wait_until("its object is forgotten", || {
                scenario.ask(1, "api.example", RecordType::A).code() == ResponseCode::ServFail
            });
            scenario.write("policies.yaml", &policies_before);
        }
    }
}

fn node(pods: Ipv4Addr) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: here}}\nspec: {{podCIDRs: [{pods}/32]}}\n")
}

fn pod_at(name: &str, app: &str, address: Ipv4Addr) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\n\
         spec: {{containers: []}}\nstatus: {{podIPs: [{{ip: {address}}}]}}\n---\n"
    )
}

fn policy(app: &str, name: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {app}, namespace: shop}}\n\
         spec: {{endpointSelector: {{matchLabels: {{app: {app}}}}}, egress: [{{toFQDNs: [{{matchName: {name}}}]}}]}}\n---\n"
    )
}
