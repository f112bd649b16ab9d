//! What a new connection through the node costs: a pod, the node that forwards, a server; without
//! rules, with kube-proxy's, and with Namegate beside them.

mod both_ends;
mod ends;
mod site;

use std::net::Ipv4Addr;
use std::time::Duration;

use both_ends::Receivers;
use ends::Ends;
use site::Site;

/// Slices follow one another on every node in turn, each some milliseconds long. A host that slows
/// a processor down does so for tenths of a second, and so for all nodes in a slice: the ratio is
/// the median of the slices' own. What disturbs one slice can only make it longer, so the cost is
/// what the fastest tenth of them took at most.
const SLICES: usize = 200;

/// What all are compared with: a node of a cluster tracks connections and has such rules anyway.
const KUBE_PROXY: &str = "kube-proxy";

/// What a new connection may cost on a node with Namegate, in those of a node with kube-proxy
/// alone.
const GOAL: f64 = 1.15;

/// What nodes are compared with that judge the receiver too.
const EGRESS_ALONE: &str = "egress alone";

/// What a new connection may cost where programs of both ends judge it, in those of egress alone.
const BOTH_ENDS_GOAL: f64 = 1.06;

/// The cost of one kind of new traffic on one node.
pub(crate) struct Row {
    /// What the node has.
    pub(crate) node: &'static str,
    /// What is new.
    pub(crate) new: &'static str,
    /// Microseconds for the whole way of one, undisturbed.
    pub(crate) cost: f64,
    /// The same in half of the slices, at most.
    pub(crate) median: f64,
    /// The node that it is compared with.
    pub(crate) base: &'static str,
    /// Beside that node, in the same slice: in half of the slices at most.
    pub(crate) ratio: f64,
    /// The most that the ratio may be.
    pub(crate) goal: Option<f64>,
}

/// The time of one, in each slice.
type Slices = Vec<Duration>;

pub(crate) fn run() -> Vec<Row> {
    let governed = [("dnat", "namegate, dnat"), ("tproxy", "namegate, tproxy")];
    let mut sites = vec![
        ("plain forwarding", Site::forwarding()),
        (KUBE_PROXY, Site::kube_proxy()),
    ];
    sites.extend(governed.map(|(interception, name)| (name, Site::governed(interception))));
    let sites: Vec<(&str, Ends)> = sites.iter().map(|(name, site)| (*name, Ends::new(&site.lab))).collect();

    let connections = measure(&sites, Ends::connect);
    let flows = measure(&sites, Ends::send);
    let is_governed = |node: &str| governed.iter().any(|(_, name)| *name == node);
    rows("connection", KUBE_PROXY, &connections, |node| {
        is_governed(node).then_some(GOAL)
    })
    .chain(rows("UDP flow", KUBE_PROXY, &flows, |_| None))
    .chain(both_ends())
    .collect()
}

/// Nodes whose programs judge the receiver or do not, beside one another.
fn both_ends() -> Vec<Row> {
    let receivers = [
        (EGRESS_ALONE, Receivers::Unasked),
        ("receiver not governed", Receivers::Ungoverned),
        ("receiver governed", Receivers::Governed),
    ];
    let sites = receivers.map(|(name, receivers)| (name, Site::of_both_ends(receivers)));
    let sites: Vec<(&str, Ends)> = sites.iter().map(|(name, site)| (*name, Ends::new(&site.lab))).collect();
    let connections = measure(&sites, Ends::connect);
    let flows = measure(&sites, Ends::send);
    let goal = |node: &str| (node != EGRESS_ALONE).then_some(BOTH_ENDS_GOAL);
    rows("connection", EGRESS_ALONE, &connections, goal)
        .chain(rows("UDP flow", EGRESS_ALONE, &flows, goal))
        .collect()
}

/// All sites, slice by slice.
fn measure(
    sites: &[(&'static str, Ends)],
    new: impl Fn(&Ends, &[Ipv4Addr]) -> Duration,
) -> Vec<(&'static str, Slices)> {
    let mut measured: Vec<(&str, Slices)> = sites.iter().map(|(name, _)| (*name, Vec::new())).collect();
    let addresses = site::addresses();
    for slice in addresses.chunks(addresses.len() / SLICES) {
        for ((_, ends), (_, times)) in sites.iter().zip(&mut measured) {
            times.push(new(ends, slice));
        }
    }
    measured
}

fn rows(
    new: &'static str,
    base: &'static str,
    measured: &[(&'static str, Slices)],
    goal: impl Fn(&str) -> Option<f64>,
) -> impl Iterator<Item = Row> {
    let (_, beside) = measured.iter().find(|(node, _)| *node == base).unwrap();
    measured.iter().map(move |(node, times)| {
        let micros = || times.iter().map(|time| time.as_secs_f64() * 1e6);
        let ratios = times
            .iter()
            .zip(beside)
            .map(|(time, beside)| time.div_duration_f64(*beside));
        Row {
            node,
            new,
            cost: quantile(micros(), 0.1),
            median: quantile(micros(), 0.5),
            base,
            ratio: quantile(ratios, 0.5),
            goal: goal(node),
        }
    })
}

/// This part of the figures is smaller.
fn quantile(figures: impl Iterator<Item = f64>, part: f64) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() as f64 * part) as usize]
}
