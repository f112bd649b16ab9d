//! Where addresses lie: the stage of a plan that knows only the networks of the cluster and the
//! addresses of this node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::index::Cluster;
use ipnet::IpNet;
use policy::address::{Teachable, ZoneMap};
use settings::{PrivateAddresses, Settings};

/// What lies around.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// What the cluster says of itself.
    told: Arc<[IpNet]>,
    own: BTreeSet<IpAddr>,
    /// What lies inside the cluster, aggregated.
    pub(super) networks: Arc<[IpNet]>,
    pub(super) places: Arc<ZoneMap>,
    pub(super) teachable: Arc<Teachable>,
}

impl Surroundings {
    /// Computes it anew if it follows from something else than `known`. The second value tells
    /// whether it does.
    pub(super) fn update(
        known: &mut Option<Arc<Self>>,
        cluster: &Cluster,
        settings: &Settings,
        own: &BTreeSet<IpAddr>,
    ) -> (Arc<Self>, bool) {
        let told = cluster.networks();
        if let Some(known) = known
            && Arc::ptr_eq(&known.told, &told)
            && known.own == *own
        {
            return (Arc::clone(known), false);
        }
        let now = Arc::new(Self::new(told, own, settings));
        (Arc::clone(known.insert(now)), true)
    }

    fn new(told: Arc<[IpNet]>, own: &BTreeSet<IpAddr>, settings: &Settings) -> Self {
        let networks: Vec<IpNet> = told.iter().chain(&settings.cluster_cidrs).copied().collect();
        let networks = IpNet::aggregate(&networks);
        let inside = networks.iter().copied().chain(own.iter().copied().map(IpNet::from));
        Self {
            places: Arc::new(ZoneMap::new(own.iter().copied(), networks.iter().copied())),
            teachable: Arc::new(teachable(settings, inside)),
            networks: networks.into(),
            own: own.clone(),
            told,
        }
    }
}

fn teachable(settings: &Settings, inside: impl IntoIterator<Item = IpNet>) -> Teachable {
    let teachable = Teachable::new(settings.rebind.clone(), inside);
    match settings.private_addresses {
        PrivateAddresses::Allow => teachable,
        PrivateAddresses::Deny => teachable.without_private(),
    }
}
