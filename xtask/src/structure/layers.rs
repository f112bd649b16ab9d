//! Which crate may depend on which: the layers of ARCHITECTURE.md.

use super::workspace::WorkspaceCrate;

/// A crate, by its directory, and all that it may depend on within the workspace. From the ground
/// up.
#[rustfmt::skip]
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("names", &[]),
    ("api", &[]),
    ("state-dir", &[]),
    ("netns", &[]),
    ("policy", &["names"]),
    ("fqdn-cache", &["names", "clock"]),
    ("dns-proxy", &["names", "clock"]),
    ("l7-proxy", &["names", "clock"]),
    ("enforcer", &["policy", "names", "clock"]),
    ("events", &["policy", "names", "clock"]),
    ("hubble", &["api"]),
    ("supervisor", &["dns-proxy"]),
    ("cluster", &["policy", "names", "clock", "api", "state-dir"]),
    ("settings", &["enforcer", "dns-proxy", "fqdn-cache", "policy", "names", "state-dir"]),
    ("doctor", &["settings", "enforcer", "policy", "api"]),
    ("planner", &["settings", "cluster", "enforcer", "dns-proxy", "fqdn-cache", "policy", "names", "clock", "api"]),
    ("web", &["api"]),
    ("agent", &["planner", "events", "hubble", "web", "settings", "cluster", "supervisor", "enforcer", "dns-proxy", "l7-proxy", "fqdn-cache", "policy", "names", "clock", "api", "state-dir"]),
    ("sandbox", &["agent", "planner", "events", "hubble", "settings", "cluster", "enforcer", "dns-proxy", "fqdn-cache", "policy", "names", "clock", "api", "netns"]),
    ("cli", &["sandbox", "agent", "planner", "events", "hubble", "doctor", "settings", "cluster", "supervisor", "enforcer", "dns-proxy", "fqdn-cache", "policy", "names", "clock", "api", "netns", "state-dir"]),
];

/// Crates that nothing of the product is built from. They may depend on everything.
const TOOLS: &[&str] = &["demo", "integration", "xtask"];

/// The dependencies that the layers do not allow.
pub(crate) fn forbidden(crates: &[WorkspaceCrate]) -> Vec<String> {
    let mut findings = Vec::new();
    for member in crates.iter().filter(|member| !is_tool(&member.directory)) {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == member.directory) else {
            findings.push(format!("{} has no layer", member.directory));
            continue;
        };
        for dependency in &member.dependencies {
            if !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{} -> {dependency}", member.directory));
            }
        }
    }
    findings
}

/// Whether nothing of the product is built from the crate in this directory.
pub(crate) fn is_tool(directory: &str) -> bool {
    TOOLS
        .iter()
        .any(|tool| directory == *tool || directory.starts_with(&format!("{tool}/")))
}
