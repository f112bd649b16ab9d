//! What becomes of a connection that policies of several kinds speak of: docs/policies.md, "How
//! policies meet".

use policy::Protocol::Tcp;
use policy::explain::ExplainOutcome;

use crate::world::World;

const OUTSIDE: [u8; 4] = [198, 51, 100, 9];

fn cluster(tier: &str, egress: &str) -> String {
    format!(
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: cluster-{}}}\nspec: {{tier: {tier}, priority: 5, subject: {{namespaces: {{}}}}, egress: [{egress}]}}\n",
        tier.to_lowercase()
    )
}

fn network(egress: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: network, namespace: shop}}\nspec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{egress}]}}\n"
    )
}

fn cilium(spec: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: cilium, namespace: shop}}\nspec: {{endpointSelector: {{}}, {spec}}}\n"
    )
}

/// From shop/web to an address outside.
fn passes(policies: &[String]) -> bool {
    World::under(&policies.concat()).reaches("shop/web", OUTSIDE, (Tcp, 443))
}

fn all(action: &str) -> String {
    format!("{{action: {action}, to: [{{networks: [0.0.0.0/0, '::/0']}}]}}")
}

const NETWORK_ALLOWS: &str = "{to: [{ipBlock: {cidr: 198.51.100.0/24}}]}";
const CILIUM_ALLOWS: &str = "egress: [{toCIDR: [198.51.100.0/24]}]";
const CILIUM_DENIES: &str = "egressDeny: [{toCIDR: [198.51.100.0/24]}]";

#[test]
fn tier_admin_decides_before_everything() {
    for (action, expected) in [("Accept", true), ("Deny", false)] {
        let admin = cluster("Admin", &all(action));
        for other in [
            network(""),
            network("{}"),
            cilium(CILIUM_ALLOWS),
            cilium(CILIUM_DENIES),
            cluster("Baseline", &all("Deny")),
            cluster("Baseline", &all("Accept")),
        ] {
            assert_eq!(
                passes(&[admin.clone(), other.clone()]),
                expected,
                "{action} before {other}"
            );
        }
    }
}

#[test]
fn pass_leaves_it_to_the_tiers_after() {
    let pass = cluster("Admin", &format!("{}, {}", all("Pass"), all("Deny")));
    assert!(passes(std::slice::from_ref(&pass)));
    assert!(!passes(&[pass.clone(), network("")]));
    assert!(passes(&[pass.clone(), network("{}")]));
    assert!(!passes(&[pass.clone(), cluster("Baseline", &all("Deny"))]));
    assert!(passes(&[
        pass,
        cluster("Baseline", &format!("{}, {}", all("Pass"), all("Deny")))
    ]));
}

#[test]
fn network_policies_and_ciliums_add_up_and_any_denial_wins() {
    assert!(passes(&[network(""), cilium(CILIUM_ALLOWS)]));
    assert!(passes(&[network(NETWORK_ALLOWS), cilium("egress: [{}]")]));
    assert!(!passes(&[network(""), cilium("egress: [{}]")]));
    assert!(!passes(&[network("{}"), cilium(CILIUM_DENIES)]));
    assert!(!passes(&[
        network("{}"),
        cilium(&format!("enableDefaultDeny: {{egress: false}}, {CILIUM_DENIES}"))
    ]));
    assert!(passes(&[
        network("{}"),
        cilium("egressDeny: [{toCIDR: [192.0.2.0/24]}]")
    ]));
}

#[test]
fn where_something_closes_tier_baseline_is_never_asked() {
    let accepts = cluster("Baseline", &all("Accept"));
    let denies = cluster("Baseline", &all("Deny"));
    assert!(!passes(&[network(""), accepts.clone()]));
    assert!(!passes(&[cilium("egress: [{}]"), accepts.clone()]));
    assert!(passes(&[network(NETWORK_ALLOWS), denies.clone()]));
    assert!(passes(&[cilium(CILIUM_ALLOWS), denies.clone()]));
    assert!(!passes(std::slice::from_ref(&denies)));
    let silent = cilium("enableDefaultDeny: {egress: false}, egress: [{toCIDR: [192.0.2.0/24]}]");
    assert!(
        !passes(&[silent.clone(), denies]),
        "it closes nothing, and does not match"
    );
    assert!(passes(&[silent, accepts]));
}

#[test]
fn the_rest_is_let_through() {
    assert!(passes(&[]));
    assert!(passes(&[cluster(
        "Admin",
        "{action: Deny, to: [{networks: [192.0.2.0/24]}]}"
    )]));
    assert!(passes(&[cluster(
        "Baseline",
        "{action: Deny, to: [{networks: [192.0.2.0/24]}]}"
    )]));
}

#[test]
fn an_audited_policy_of_any_kind_only_records() {
    for policy in [cluster("Admin", &all("Deny")), network(""), cilium("egress: [{}]")] {
        let audited = policy.replace("metadata: {", "metadata: {annotations: {namegate.io/mode: audit}, ");
        let world = World::under(&audited);
        let explanation = world.explain("shop/web", Some(OUTSIDE.into()), None, (Tcp, 443));
        assert_eq!(explanation.outcome, ExplainOutcome::Audited, "{audited}");
        let beside = World::under(&[audited, cluster("Baseline", &all("Deny"))].concat());
        assert!(
            !beside.reaches("shop/web", OUTSIDE, (Tcp, 443)),
            "what is enforced drops"
        );
    }
}
