//! Which part of the address space rules speak of, and where an address lies.

/// The part of the address space that a prefix speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Zone {
    /// All addresses, inside and outside the cluster.
    Anywhere,
    /// Outside the cluster: what CIDRs and `world` mean.
    World,
    /// Pods, services and nodes of the own cluster, and the nodes of others.
    Cluster,
    /// The addresses of this node.
    Host,
    /// Pods, services and nodes of every cluster.
    Mesh,
}

/// Where one address lies. Unlike [`Zone`]s, these do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressZone {
    /// Outside of every cluster.
    World,
    /// Inside a cluster, and not this node.
    Cluster,
    /// The addresses of this node.
    Host,
}

impl AddressZone {
    /// All of them.
    pub const ALL: [AddressZone; 3] = [AddressZone::World, AddressZone::Cluster, AddressZone::Host];

    /// Whether it is part of a zone. Of which cluster an address is, the zone alone does not tell
    /// ([`OtherClusters`](crate::OtherClusters)).
    pub fn is_in(self, zone: Zone) -> bool {
        match zone {
            Zone::Anywhere => true,
            Zone::World => self == AddressZone::World,
            Zone::Cluster | Zone::Mesh => self != AddressZone::World,
            Zone::Host => self == AddressZone::Host,
        }
    }
}
