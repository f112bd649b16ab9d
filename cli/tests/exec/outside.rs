//! A program that serves, in a network of its own that the host routes to.

use std::process::{Child, Stdio};

use super::Host;

/// Ends when it is dropped.
pub(crate) struct OutsideServer {
    _network: netns::Namespace,
    process: Child,
}

impl OutsideServer {
    /// Starts a Python script that may serve on 203.0.112.80 and 203.0.112.81, and waits for its
    /// first line.
    pub(crate) fn start(host: &Host, script: &str) -> Self {
        let network = netns::Namespace::new().unwrap();
        let node = host.lab.node();
        node.connect("mirror", &network, "eth0").unwrap();
        node.add_address("mirror", "203.0.112.1/24".parse().unwrap()).unwrap();
        for address in ["203.0.112.80/24", "203.0.112.81/24"] {
            network.add_address("eth0", address.parse().unwrap()).unwrap();
        }
        network
            .add_route("0.0.0.0/0".parse().unwrap(), "203.0.112.1".parse().ok(), "eth0")
            .unwrap();
        let mut process = network
            .command("python3")
            .args(["-c", script])
            .current_dir(host.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        super::first_line(process.stdout.as_mut().unwrap());
        Self {
            _network: network,
            process,
        }
    }
}

impl Drop for OutsideServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
