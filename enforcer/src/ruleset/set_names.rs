//! The names of the table's sets and maps, but for the learned ones
//! ([`SetId`](crate::layout::SetId)).
//!
//! [`table_sets`](super::table_sets) fills them, and the frame's rules look things up in them.

use policy::Direction;

use crate::layout::IpFamily;
use crate::records::RecordedVerdict;

/// The links that lead to local pods.
pub(super) const POD_LINKS: &str = "pod-links";
/// The links among [`POD_LINKS`] that lead to governed pods.
pub(super) const GOVERNED_LINKS: &str = "governed-links";
/// The links among [`POD_LINKS`] that lead to several pods, with sources in [`link_networks`].
pub(super) const SHARED_LINKS: &str = "shared-links";

/// The map from addresses to the chains of their programs: from sources at egress, from
/// destinations at ingress.
pub(super) fn dispatch(direction: Direction, family: IpFamily) -> String {
    match direction {
        Direction::Egress => format!("dispatch{family}"),
        Direction::Ingress => format!("dispatch-in{family}"),
    }
}

/// The senders of recorded packets, each with the limit of its own.
pub(super) fn recorded(verdict: RecordedVerdict, family: IpFamily) -> String {
    match verdict {
        RecordedVerdict::Refused => format!("recorded-refused{family}"),
        RecordedVerdict::Audited => format!("recorded-audited{family}"),
    }
}

/// The map from addresses to the chains that hand connections over: of those programs that look
/// into some.
pub(super) fn handover(direction: Direction, family: IpFamily) -> String {
    match direction {
        Direction::Egress => format!("handover{family}"),
        Direction::Ingress => format!("handover-in{family}"),
    }
}

/// The addresses and ports of Services behind which some backend is looked into: by the sender's
/// program, or by its own.
pub(super) fn handover_services(direction: Direction, family: IpFamily) -> String {
    match direction {
        Direction::Egress => format!("handover-services{family}"),
        Direction::Ingress => format!("handover-services-in{family}"),
    }
}

/// The map from addresses to the chains that judge connections which are made in a client's place:
/// of the same programs.
pub(super) fn resumed(direction: Direction, family: IpFamily) -> String {
    match direction {
        Direction::Egress => format!("resumed{family}"),
        Direction::Ingress => format!("resumed-in{family}"),
    }
}

/// The map from the protocol to the address of the listener that connections are handed to.
pub(super) fn handover_address(family: IpFamily) -> String {
    format!("handover-address{family}")
}

/// The map from the protocol to the port of that listener.
pub(super) fn handover_port(family: IpFamily) -> String {
    format!("handover-port{family}")
}

/// The sources and destinations that are refused although no program governs them.
pub(super) fn unknown(family: IpFamily) -> String {
    format!("unknown{family}")
}

/// The pairs of a link and an address that is known to be behind it.
pub(super) fn link_sources(family: IpFamily) -> String {
    format!("link-sources{family}")
}

/// The networks in which unknown pods of shared links may have their addresses.
pub(super) fn link_networks(family: IpFamily) -> String {
    format!("link-networks{family}")
}

/// The servers whose answers the proxy accepts, by address and port.
pub(super) fn servers(family: IpFamily) -> String {
    format!("servers{family}")
}

/// Each governed address as a pair with itself, so that one lookup tells whether two addresses are
/// equal and governed.
pub(super) fn ends(family: IpFamily) -> String {
    format!("ends{family}")
}

/// The cluster's addresses, this node's own among them.
pub(super) fn cluster(family: IpFamily) -> String {
    format!("cluster{family}")
}

/// This node's own addresses.
pub(super) fn host(family: IpFamily) -> String {
    format!("host{family}")
}

/// The source addresses whose lookups are intercepted.
pub(super) fn pods(family: IpFamily) -> String {
    format!("pods{family}")
}

/// The known resolvers, by address and port.
pub(super) fn resolvers(family: IpFamily) -> String {
    format!("resolvers{family}")
}

/// The addresses of known resolvers, whatever their ports.
pub(super) fn resolver_hosts(family: IpFamily) -> String {
    format!("resolver-hosts{family}")
}

/// The proxy's listeners, by address and port.
pub(super) fn listeners(family: IpFamily) -> String {
    format!("listeners{family}")
}

/// The map from a resolver to the address of its listener.
pub(super) fn listener_address(family: IpFamily) -> String {
    format!("listener-address{family}")
}

/// The map from a resolver to the port of its listener.
pub(super) fn listener_port(family: IpFamily) -> String {
    format!("listener-port{family}")
}
