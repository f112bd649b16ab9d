//! A second node behind the first: suites run two Pods with the same host port.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::Path;

use ipnet::IpNet;
use netns::Namespace;
use tempfile::TempDir;

use crate::control_plane::{API_PORT, ControlPlane};
use crate::fail;

use super::disk::{self, NodeIdentity};
use super::machine::Machine;

const NAME: &str = "node-2";
/// Its address, and that of the first node on the link between them.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 1);
/// What the controllers give to the node that registers second.
const PODS: &str = "10.244.1.0/24";

/// The node, until it is dropped. The first one is its way to all others.
#[derive(Debug)]
pub(super) struct SecondNode {
    // The machine ends before its disk.
    _machine: Machine,
    _directory: TempDir,
}

impl SecondNode {
    /// Starts it, and returns at once. The first node, whose address is `api`, has registered.
    /// `images` are the first node's.
    pub(super) fn start(first: &Namespace, control: &ControlPlane, api: Ipv4Addr, images: &Path) -> Self {
        let namespace = Namespace::new().unwrap_or_else(fail("the second node's namespace"));
        connect(first, &namespace).unwrap_or_else(fail("the link between the nodes"));
        let directory = tempfile::Builder::new()
            .prefix("namegate-node-")
            .tempdir()
            .unwrap_or_else(fail("the second node's disk"));
        // The control plane has a token for one kubelet, and on loopback it is the first node's.
        let kubeconfig = directory.path().join("kubeconfig");
        let admin = fs::read_to_string(control.admin_kubeconfig()).unwrap_or_else(fail("the kubeconfig"));
        let admin = admin.replace(
            &format!("https://127.0.0.1:{API_PORT}"),
            &format!("https://{api}:{API_PORT}"),
        );
        fs::write(&kubeconfig, admin).unwrap_or_else(fail("the kubeconfig"));
        let identity = NodeIdentity {
            name: NAME,
            address: ADDRESS,
            pods: PODS,
            kubelet: &kubeconfig,
            proxy: &kubeconfig,
        };
        disk::write(directory.path(), &identity);
        symlink(images, directory.path().join("images")).unwrap_or_else(fail("the images"));
        let mut machine = Machine::new(&namespace, directory.path());
        machine.start();
        Self {
            _machine: machine,
            _directory: directory,
        }
    }
}

/// Packets pass between the nodes as they are, as on one subnet.
fn connect(first: &Namespace, second: &Namespace) -> std::io::Result<()> {
    let net = |address: Ipv4Addr| IpNet::new_assert(IpAddr::V4(address), 24);
    first.connect("node2", second, "eth0")?;
    first.add_address("node2", net(GATEWAY))?;
    second.add_address("eth0", net(ADDRESS))?;
    let pods = PODS.parse().expect("a range");
    first.add_route(pods, Some(IpAddr::V4(ADDRESS)), "node2")?;
    second.add_route(IpNet::V4(ipnet::Ipv4Net::default()), Some(IpAddr::V4(GATEWAY)), "eth0")?;
    second.set_sysctl("ipv4/ip_forward", "1")
}
