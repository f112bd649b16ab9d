//! Which node writes what all agents know, and when: rendezvous hashing.
//!
//! Every agent knows every node, and every agent puts the nodes of a policy in the same order, by a
//! hash of both (rendezvous hashing). The first in that order writes at once; each next one waits
//! longer, and writes only if by then nobody has. So one agent writes, the work is spread over the
//! nodes, and agents that are gone cost a delay and nothing else.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use siphasher::sip::SipHasher13;

/// How long the next in turn waits for the one before it: above what a write takes to come back
/// over the watch.
const EACH: Duration = Duration::from_secs(3);
/// From this place on everybody waits equally long: so many agents in a row are not gone unless
/// most are.
const LAST: usize = 20;
/// How wide the last are spread.
const SPREAD: Duration = Duration::from_secs(60);

/// The place of `node` among `nodes` for the object with this uid. A node that is not among them
/// comes last.
pub fn place(uid: &str, node: &str, nodes: &BTreeSet<String>) -> usize {
    if !nodes.contains(node) {
        return nodes.len();
    }
    let own = weight(uid, node);
    nodes.iter().filter(|other| weight(uid, other) > own).count()
}

/// How long whoever has this place waits; `chance` is from 0 to 1.
pub fn wait(place: usize, chance: f64) -> Duration {
    let spread = if place < LAST { EACH / 4 } else { SPREAD };
    EACH * u32::try_from(place.min(LAST)).unwrap_or(u32::MAX) + spread.mul_f64(chance.clamp(0.0, 1.0))
}

fn weight(uid: &str, node: &str) -> u64 {
    // Without a key: all agents must agree.
    let mut hasher = SipHasher13::new();
    (uid, node).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_place_of_its_own_and_the_first_places_are_spread() {
        let nodes: BTreeSet<String> = (0..50).map(|it| format!("node-{it}")).collect();
        let places: BTreeSet<usize> = nodes.iter().map(|node| place("uid", node, &nodes)).collect();
        assert_eq!(places, (0..50).collect());
        let first = |uid: &str| nodes.iter().find(|node| place(uid, node, &nodes) == 0);
        let firsts: BTreeSet<_> = (0..100).map(|uid| first(&uid.to_string())).collect();
        assert!(firsts.len() > 20, "{}", firsts.len());
        assert_eq!(place("uid", "unknown", &nodes), 50);
    }

    #[test]
    fn later_places_wait_longer() {
        assert!(wait(0, 1.0) < Duration::from_secs(1));
        assert!(wait(0, 1.0) < wait(1, 0.0));
        assert!(wait(5_000, 1.0) <= EACH * 20 + SPREAD);
    }
}
