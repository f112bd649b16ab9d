//! Behind address translation as kube-proxy does it: what the receiver's program sees, and that a
//! refusal reaches the client.

use policy::{ProgramId, Zone};

use crate::lab::{Lab, NODE_V4, OTHER_V4, Outcome, POD_V4};
use crate::programs::{Program, Rules, governs, prefix_rule};

use super::{SENDER, from, receiver, serve, tcp};

const SERVICE: &str = "10.96.0.1";
/// Of the node, towards the outside.
const NODE_OUTSIDE: &str = "10.77.0.1";

/// A Service on port 80, and a NodePort, of the pod. Whoever comes from outside, and the pod
/// itself, is masqueraded.
fn translate(lab: &Lab) {
    // What this node itself sends needs a route before its destination is translated.
    lab.node.ip(&["route", "add", "10.96.0.0/16", "via", "10.77.0.2"]);
    lab.nft(&format!(
        "table ip kube {{
             chain prerouting {{ type nat hook prerouting priority dstnat;
                 ip daddr {SERVICE} tcp dport 80 dnat to {POD_V4}:80
                 ip daddr {NODE_OUTSIDE} tcp dport 30080 dnat to {POD_V4}:80
             }}
             chain output {{ type nat hook output priority -100;
                 ip daddr {SERVICE} tcp dport 80 dnat to {POD_V4}:80
             }}
             chain postrouting {{ type nat hook postrouting priority srcnat;
                 ip saddr 10.77.0.2 ip daddr {POD_V4} masquerade
                 ip saddr {POD_V4} ip daddr {POD_V4} masquerade
             }}
         }}"
    ));
}

#[test]
fn the_program_sees_the_client_and_the_pod_and_a_refusal_reaches_the_client() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80]);
    translate(&lab);
    lab.install(&receiver([from("10.77.0.2/32", tcp(80))]), &[]);
    let tries = || {
        [
            lab.outside.tries(NODE_OUTSIDE, 30_080),
            lab.other.tries(SERVICE, 80),
            lab.node.tries(SERVICE, 80),
        ]
    };
    assert_eq!(
        tries(),
        [Outcome::Connected, Outcome::Refused, Outcome::Connected],
        "through the NodePort the node saw the client; the node itself passes"
    );
    let desired = receiver([from(&format!("{OTHER_V4}/32"), tcp(80))]);
    lab.install(&desired, &[]);
    assert_eq!(tries(), [Outcome::Refused, Outcome::Connected, Outcome::Connected]);
    assert_eq!(lab.counted("refused-in"), 2);
}

/// A pod that reaches itself through its Service is its own peer, at both ends.
#[test]
fn hairpins_are_decided_by_both_programs_of_the_pod() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80]);
    translate(&lab);
    let itself = format!("{POD_V4}/32");
    for (sends, gets) in [(true, true), (true, false), (false, true)] {
        let program = Program {
            closed: !sends,
            allow: Rules::default(),
            ..Program::default()
        };
        let sources = if gets { itself.as_str() } else { "10.66.7.0/24" };
        let desired = governs(receiver([from(sources, tcp(80))]), [POD_V4], SENDER, program);
        lab.install(&desired, &[]);
        let expected = match sends && gets {
            true => Outcome::Connected,
            false => Outcome::Refused,
        };
        assert_eq!(lab.pod.tries(SERVICE, 80), expected, "sends {sends}, gets {gets}");
        // Straight to its own address it never leaves the pod.
        assert_eq!(lab.pod.tries(POD_V4, 80), Outcome::Connected);
    }
}

/// What a Service on the host's network gets is the sender's to decide alone.
#[test]
fn this_nodes_own_addresses_are_judged_at_egress_only() {
    let Some(lab) = Lab::new() else { return };
    lab.node.echo((crate::lab::ip(NODE_V4), 80).into(), "node");
    let program = Program {
        closed: true,
        allow: Rules {
            prefixes: vec![prefix_rule(Zone::Anywhere, &format!("{NODE_V4}/32"), tcp(80))],
            names: vec![],
        },
        ..Program::default()
    };
    let desired = governs(receiver([]), [POD_V4], ProgramId(9), program);
    lab.install(&desired, &[]);
    assert_eq!(lab.pod.tries(NODE_V4, 80), Outcome::Connected);
    assert_eq!(lab.pod.tries(NODE_V4, 81), Outcome::Refused);
}
