//! What a node's disk holds before its first start: its settings, and folders that are empty.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use lab::RESOLVER;

use crate::fail;

use super::machine;

/// Who a node is.
#[derive(Debug)]
pub(super) struct NodeIdentity<'a> {
    /// The Node's name.
    pub(super) name: &'a str,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// The range of its Pods' addresses.
    pub(super) pods: &'a str,
    /// The kubeconfig of its kubelet.
    pub(super) kubelet: &'a Path,
    /// The kubeconfig of its kube-proxy.
    pub(super) proxy: &'a Path,
}

/// Writes it into `directory`, which exists.
pub(super) fn write(directory: &Path, node: &NodeIdentity<'_>) {
    for folder in ["lib", "log", "etc"] {
        fs::create_dir(directory.join(folder)).unwrap_or_else(fail("the node's disk"));
    }
    let write = |file: &str, text: &str| fs::write(directory.join("etc").join(file), text).unwrap_or_else(fail(file));
    let settings = fs::read_dir(machine::scripts().join("etc")).unwrap_or_else(fail("integration/node/etc"));
    for file in settings.flatten() {
        let text = fs::read_to_string(file.path()).unwrap_or_else(fail("integration/node/etc"));
        let text = text
            .replace("KUBECONFIG", &node.proxy.display().to_string())
            .replace("POD-RANGE", node.pods);
        write(&file.file_name().to_string_lossy(), &text);
    }
    let kubelet = fs::read_to_string(node.kubelet).unwrap_or_else(fail("the kubelet's kubeconfig"));
    write("node.kubeconfig", &kubelet);
    write("hostname", node.name);
    write("address", &node.address.to_string());
    write("hosts", "127.0.0.1 localhost\n");
    write("resolv.conf", &format!("nameserver {RESOLVER}\n"));
}
