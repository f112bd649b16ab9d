//! What turns objects into other objects, and gives Pods a node: kube-controller-manager and
//! kube-scheduler beside a control plane.

use std::process::Child;

use crate::control_plane::ControlPlane;

/// The ranges from which nodes get theirs: the first node gets 10.244.0.0/24.
const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// The two processes, until they are dropped.
#[derive(Debug)]
pub(super) struct Controllers(Vec<Child>);

impl Controllers {
    /// Starts both as administrators of `control`. They work as soon as they have read everything.
    pub(super) fn start(control: &ControlPlane) -> Self {
        let own = [
            format!("--kubeconfig={}", control.admin_kubeconfig().display()),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ];
        let mut controllers = own.to_vec();
        controllers.extend([
            format!(
                "--service-account-private-key-file={}",
                control.path("service-accounts.key").display()
            ),
            format!("--root-ca-file={}", control.path("serving.crt").display()),
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
        ]);
        Self(vec![
            control.serve("serve-controllers", &controllers),
            control.serve("serve-scheduler", &own),
        ])
    }
}

impl Drop for Controllers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Fails only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
