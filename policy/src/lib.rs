//! What a policy means.
//!
//! This crate is pure: it reads no file, opens no socket and asks no clock. It turns the policy
//! objects that people write into one [`Program`] per endpoint, and answers what that program says
//! about a name.
//!
//! The way through it, in reading order:
//!
//! 1. [`document`]: YAML text → objects with the lines they came from.
//! 2. [`mod@validate`]: a document of any of the kinds (`cilium`, `network_policy`,
//!    `cluster_network_policy`) → a [`Policy`], with every problem named, or what stands in for one
//!    that is refused.
//! 3. [`Policy`]: a validated policy, in this project's own terms.
//! 4. [`endpoint`]: who a policy may select, and [`labels`] to select them by.
//! 5. [`compile`]: all policies of one endpoint → one [`Program`], with an [`Inventory`] of the
//!    objects that rules may speak of.
//!    [`membership`]: which addresses these objects have, kept up as they change.
//!    [`classifier`]: its tiers → verdicts, in the form in which the kernel looks them up.
//! 6. [`question`]: may this endpoint ask this name?
//! 7. [`explain`]: which rule decides, and what nearly would have.
//! 8. [`lint`]: what is valid but probably not meant.
//! 9. [`crd`]: the kinds as the API server is told of them. [`last_applied`]: what was lost on the
//!    way there.
//!
//! From a text to a verdict:
//!
//! ```
//! use std::net::IpAddr;
//!
//! use policy::classifier::{AddressContext, Classifier};
//! use policy::compile::compile;
//! use policy::{AddressZone, Endpoint, EndpointId, Inventory, Protocol, Verdict};
//! use policy::{document, endpoint, validate};
//!
//! let text = "
//! apiVersion: cilium.io/v2
//! kind: CiliumNetworkPolicy
//! metadata: {name: api-only, namespace: shop}
//! spec:
//!   endpointSelector: {}
//!   egress:
//!   - toFQDNs: [{matchPattern: '*.example.com'}]
//!     toPorts: [{ports: [{port: '443', protocol: TCP}]}]
//! ";
//! let (documents, errors) = document::parse(text);
//! assert!(errors.is_empty());
//! let (validation, _diagnostics) = validate::validate(&documents[0]);
//! let policy = validation.accepted().unwrap();
//!
//! let none = Default::default();
//! let endpoint = Endpoint {
//!     id: EndpointId { namespace: "shop".into(), name: "web".into() },
//!     labels: endpoint::labels(&none, "shop", &none, "default", "default"),
//!     addresses: [IpAddr::from([10, 0, 0, 7])].into(),
//!     ports: Vec::new(),
//! };
//! let governed = compile(&endpoint, [&policy], &Inventory::default()).unwrap();
//! let program = governed.programs.egress.unwrap();
//!
//! // A name that the rule matches resolved to this address.
//! let classifier = Classifier::new(&program.enforced);
//! let address = IpAddr::from([192, 0, 2, 1]);
//! let at = AddressContext { address, zone: AddressZone::World, objects: &[] };
//! let (rule, _pattern) = classifier.name_rules().next().unwrap();
//! let entries = classifier.entries_for_name(rule, at);
//! let verdict = |port| {
//!     classifier.verdict(address, at.zone, entries.iter(), Some((Protocol::Tcp, port)))
//! };
//! assert_eq!(verdict(443), Verdict::Allow);
//! assert_eq!(verdict(80), Verdict::Deny);
//! ```

pub mod address;
pub mod cidr_group;
pub mod classifier;
pub mod compile;
pub mod crd;
pub mod diagnostic;
pub mod document;
pub mod encrypted_dns;
pub mod endpoint;
pub mod explain;
pub mod inventory;
pub mod l7;
pub mod label_index;
pub mod labels;
pub mod last_applied;
pub mod lint;
pub mod membership;
pub mod port_map;
pub mod question;
pub mod special_keys;
pub mod validate;

#[cfg(test)]
mod arbitrary_json;
mod cilium;
mod cluster_network_policy;
mod diagnostic_report;
mod direction;
mod dns_rules;
mod extensions;
mod ignore;
mod name_group;
mod network_policy;
mod other_clusters;
mod peer_selector;
mod pod_addresses;
mod pod_index;
mod policy;
mod policy_id;
mod ports;
mod prefix;
mod program;
mod selector;
mod selector_table;
mod service_index;
mod service_names;
mod shape;

mod spelling;
mod stand_in;
mod wrong_direction;
mod zone;

pub use cidr_group::CidrGroup;
pub use diagnostic::{Diagnostic, Severity};
pub use direction::{Direction, PerDirection};
pub use dns_rules::{DnsGrant, DnsRule, DnsServers, QuestionMode, QuestionRules};
pub use endpoint::{Endpoint, EndpointId};
pub use extensions::{DenyResponse, Extensions, LeaseTerms};
pub use inventory::Inventory;
pub use name_group::NameGroup;
pub use other_clusters::OtherClusters;
pub use peer_selector::{CidrGroupSelector, NamedPort, ObjectSelector, PeerSelector, ServiceSelector};
pub use policy::{Action, DirectionSpec, InspectedPorts, Policy, PolicyRule, PolicySpec, SubjectKind, Tier};
pub use policy_id::{PolicyId, PolicyKind};
pub use ports::{PortRange, PortSet, Protocol};
pub use program::{EndpointPolicy, Origin, Peer, Program, ProgramId, Rule, Tiers, Verdict};
pub use zone::{AddressZone, Zone};
