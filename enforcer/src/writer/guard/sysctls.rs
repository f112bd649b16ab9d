//! Checks the sysctls that the ruleset relies on.
//!
//! The kernel notifies of most of them ([`RoutingWatch`](crate::routing::RoutingWatch)), and all
//! are read when it does. The others are read once a second, from files that stay open.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use clock::Time;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::audit::sysctls;
use crate::audit::{Damage, DamageKind, brief};
use crate::desired::{DesiredState, Interception};
use crate::writer::kernel::NfTables;
use crate::writer::kernel_writer::KernelWriter;
use crate::writer::table_guard::SysctlCheck;

/// How often those are read of which the kernel does not notify.
const EVERY: Duration = Duration::from_secs(1);

/// How often all are read although no change was notified.
const ANYWAY: Duration = Duration::from_secs(30);

/// The longest value: a number.
const VALUE: usize = 16;

impl KernelWriter<NfTables> {
    /// Checks whether somebody has changed sysctls. Sets back what is ours, and reports the rest.
    pub(super) fn check_sysctls(&mut self, now: Time) {
        let (Some(guard), Some(desired)) = (&mut self.guard, &self.installed) else {
            return;
        };
        let check = &mut guard.sysctls;
        // Whoever has switched off IPv6 on `lo` has taken its addresses too.
        let is_notified = match &mut guard.routing.watch {
            Some((_, watch)) => watch.take_sysctls_changed() || watch.is_routing_changed(),
            None => false,
        } || !guard.routing.damaged.is_empty();
        if now < check.next && !is_notified {
            return;
        }
        check.next = now + EVERY;
        let is_watched = guard.routing.watch.is_some();
        let are_all_due = now >= check.next_of_all || check.links != desired.pod_links.governed;
        match is_notified || are_all_due || !is_watched {
            true => {
                check.next_of_all = now + ANYWAY;
                check.links.clone_from(&desired.pod_links.governed);
                check.names = names(desired);
                let of_links = check.names.iter().map(|link| sysctls::reverse_path(link));
                check.values = read(sysctls::paths().map(str::to_owned).chain(of_links));
            }
            false => check.read_again(),
        }
        let changed = check.sysctls.changed(&check.values, &check.names);
        let values = &check.values;
        let mut restored = None;
        if desired.interception != Interception::Off
            && sysctls::is_loopback_without_ipv6(values)
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

impl SysctlCheck {
    /// Reads those again of which the kernel does not notify.
    fn read_again(&mut self) {
        for path in sysctls::WITHOUT_NOTIFICATION {
            let value = self.open.get(path).and_then(value_of).or_else(|| {
                // It was never there (no bridges), or it is another one now.
                self.open.remove(path);
                let opened = File::open(file(path)).ok()?;
                let value = value_of(&opened);
                self.open.insert(path, opened);
                value
            });
            match value {
                Some(value) => drop(self.values.insert(path.to_owned(), value)),
                None => drop(self.values.remove(path)),
            }
        }
    }
}

/// What the file of a sysctl holds now, without the line's end; `None` where it is gone.
fn value_of(file: &File) -> Option<String> {
    let mut text = [0; VALUE];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    Some(text.trim_end().to_owned())
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
