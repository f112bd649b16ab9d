//! Checks the sysctls that the ruleset relies on.
//!
//! The kernel notifies of few of them (`RTNLGRP_IPV4_NETCONF`), and reading a file below
//! `/proc/sys` takes some microseconds: so they are read once a second.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use clock::Time;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::audit::sysctls;
use crate::audit::{Damage, DamageKind, brief};
use crate::desired::{DesiredState, Interception};
use crate::writer::kernel::NfTables;
use crate::writer::kernel_writer::KernelWriter;

const EVERY: Duration = Duration::from_secs(1);

impl KernelWriter<NfTables> {
    /// Checks whether somebody has changed sysctls. Sets back what is ours, and reports the rest.
    pub(super) fn check_sysctls(&mut self, now: Time) {
        let (Some(guard), Some(desired)) = (&mut self.guard, &self.installed) else {
            return;
        };
        let is_due = now >= guard.sysctls.next || !guard.routing.damaged.is_empty();
        if !is_due {
            return;
        }
        let check = &mut guard.sysctls;
        check.next = now + EVERY;
        let links = names(desired);
        let of_links = links.iter().map(|link| sysctls::reverse_path(link));
        let values = read(sysctls::paths().map(str::to_owned).chain(of_links));
        let changed = check.sysctls.changed(&values, &links);
        let mut restored = None;
        if desired.interception != Interception::Off
            && sysctls::is_loopback_without_ipv6(&values)
            && guard.routing.has_ipv6()
        {
            match fs::write(file(sysctls::LOOPBACK_IPV6), "0") {
                Ok(()) => restored = Some(Damage::new(DamageKind::Sysctl, "IPv6 was switched off on lo")),
                Err(error) => {
                    let error = error.to_string();
                    if guard.sysctls.refused.as_ref() != Some(&error) {
                        tracing::warn!(error, "IPv6 was switched off on lo, and cannot be switched on again");
                    }
                    guard.sysctls.refused = Some(error);
                }
            }
        }
        self.report_settings(changed);
        if let Some(damage) = restored {
            self.report_repair(vec![damage], Some(now));
        }
    }

    fn report_settings(&self, changed: Vec<Damage>) {
        self.shared.integrity.send_if_modified(|integrity| {
            if integrity.settings == changed {
                return false;
            }
            let new: Vec<Damage> = changed
                .iter()
                .filter(|new| !integrity.settings.contains(new))
                .cloned()
                .collect();
            if !new.is_empty() {
                tracing::warn!(
                    changed = brief(&new),
                    "somebody has changed sysctls of this node that policy relies on; they are not ours to set back"
                );
            }
            if changed.is_empty() {
                tracing::info!("the sysctls of this node that policy relies on are as they were");
            }
            integrity.settings = changed;
            true
        });
    }
}

/// The names of the links that lead to governed pods.
fn names(desired: &DesiredState) -> Vec<String> {
    let governed = &desired.pod_links.governed;
    if governed.is_empty() {
        return Vec::new();
    }
    let Ok(any) = socket(AddressFamily::INET, SocketType::DGRAM, None) else {
        return Vec::new();
    };
    let name = |link: &u32| name_of(&any, *link);
    governed.iter().filter_map(name).collect()
}

/// The name of a link; `None` where it is gone.
fn name_of(any: &OwnedFd, link: u32) -> Option<String> {
    netdevice::index_to_name(any, link).ok()
}

/// The values of all files that can be read.
fn read(paths: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let value = |path: String| {
        let text = fs::read_to_string(file(&path)).ok()?;
        Some((path, text.trim_end().to_owned()))
    };
    paths.filter_map(value).collect()
}

/// The file of a sysctl in the network namespace of this thread.
fn file(path: &str) -> String {
    format!("/proc/sys/net/{path}")
}
