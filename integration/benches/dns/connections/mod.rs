//! What a new connection through the node costs: a pod, the node that forwards, a server; without rules, with kube-proxy's, and with Namegate beside them.

mod ends;
mod site;

use std::net::Ipv4Addr;
use std::time::Duration;

use ends::Ends;
use site::Site;

/// Slices follow one another on every node in turn, so that whatever else the machine does falls upon all. Each is some milliseconds long. What disturbs
/// one can only make it longer, so the cost is what the fastest tenth of them took at most: on a machine that does nothing else it is the median less
/// a few per cent, and on a busy one the median says more of the others.
const SLICES: usize = 200;

/// What all are compared with: a node of a cluster tracks connections and has such rules anyway.
const KUBE_PROXY: &str = "kube-proxy";

/// What a new connection may cost on a node with Namegate, in those of a node with kube-proxy alone.
const GOAL: f64 = 1.15;

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
    /// The cost beside that with kube-proxy alone.
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
    rows("connection", &connections, |node| is_governed(node).then_some(GOAL))
        .chain(rows("UDP flow", &flows, |_| None))
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
    measured: &[(&'static str, Slices)],
    goal: impl Fn(&str) -> Option<f64>,
) -> impl Iterator<Item = Row> {
    let (_, base) = measured.iter().find(|(node, _)| *node == KUBE_PROXY).unwrap();
    let base = quantile(base, 0.1);
    measured.iter().map(move |(node, times)| {
        let cost = quantile(times, 0.1);
        Row {
            node,
            new,
            cost,
            median: quantile(times, 0.5),
            ratio: cost / base,
            goal: goal(node),
        }
    })
}

/// Microseconds that this part of the slices took at most.
fn quantile(times: &Slices, part: f64) -> f64 {
    let mut times = times.clone();
    times.sort_unstable();
    times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e6
}
