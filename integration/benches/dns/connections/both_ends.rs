//! What it adds that the receiver's program is asked behind the sender's: nodes with the same
//! egress program, beside which ingress is judged or is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use enforcer::layout::elements;
use enforcer::pod_links::PodLinks;
use enforcer::{
    DesiredState, Element, ElementSet, Enforcer, FailMode, Interception, KernelProgram, KernelTiers, LocalHost,
};
use policy::classifier::{AddressContext, Classifier};
use policy::labels::LabelSelector;
use policy::{
    Action, AddressZone, DenyResponse, LeaseTerms, ObjectSelector, Origin, Peer, PerDirection, PolicyId, PolicyKind,
    PortRange, PortSet, ProgramId, Protocol, Rule, Tiers,
};

use super::ends::PORT;
use super::site::{self, Site};

/// The program of every address: both ends may speak with the objects' addresses.
const SENDER: ProgramId = ProgramId(1);
const RECEIVER: ProgramId = ProgramId(2);
/// Pods of the node that are governed for what they get, and that nobody connects to.
const OTHERS: u8 = 110;

/// What is asked about the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receivers {
    /// Nothing: the chain that would ask is not called.
    Unasked,
    /// Whether a program governs it, and none does.
    Ungoverned,
    /// Its program, which finds the sender in a set.
    Governed,
}

impl Site {
    /// With kube-proxy's rules, the senders governed, and this asked about the receivers.
    pub(crate) fn of_both_ends(receivers: Receivers) -> Self {
        let site = Self::kube_proxy();
        let first = site.lab.pod(0).address4().to_bits();
        let pods = (first..first + u32::from(OTHERS)).map(Ipv4Addr::from_bits);
        let desired = desired(&pods.map(IpAddr::V4).collect::<Vec<_>>(), receivers);
        let install = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let enforcer = Enforcer::start("namegate").unwrap();
                enforcer.install(desired, Vec::new).await.unwrap();
                enforcer.shut_down().await;
            });
        };
        site.lab.node().run(install).unwrap();
        if receivers == Receivers::Unasked {
            leave_receivers_alone(&site);
        }
        site
    }
}

/// Deletes the rule that asks about the receiver.
fn leave_receivers_alone(site: &Site) {
    let nft = |arguments: &[&str]| {
        let output = site.lab.node().command("nft").args(arguments).output().unwrap();
        assert!(output.status.success(), "nft {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let forward = nft(&["-a", "list", "chain", "inet", "namegate", "forward"]);
    let rule = forward.lines().find(|line| line.contains("jump dispatch-in"));
    let (_, handle) = rule.unwrap().split_once("# handle ").unwrap();
    nft(&["delete", "rule", "inet", "namegate", "forward", "handle", handle]);
}

fn desired(pods: &[IpAddr], receivers: Receivers) -> DesiredState {
    let servers: Vec<IpAddr> = site::addresses().into_iter().map(IpAddr::V4).collect();
    let requirements = Vec::new();
    let pods_and_servers = Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }));
    let tiers = Tiers {
        network: vec![Rule {
            action: Action::Allow,
            peer: pods_and_servers,
            ports: PortSet::from_ranges([Protocol::Tcp, Protocol::Udp].map(|it| PortRange::single(it, PORT))),
            named: vec![],
            through: None,
            lease: LeaseTerms::default(),
            origins: vec![],
        }],
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    let classifier = Arc::new(Classifier::new(&tiers));
    let program = |id| {
        let enforced = KernelTiers {
            id,
            classifier: Arc::clone(&classifier),
        };
        let program = KernelProgram {
            enforced,
            audited: None,
            response: None,
        };
        (id, Arc::new(program))
    };
    let governed = match receivers {
        Receivers::Governed => &servers[..],
        Receivers::Unasked | Receivers::Ungoverned => pods,
    };
    let by = |addresses: &[IpAddr], id| -> BTreeMap<IpAddr, ProgramId> {
        addresses.iter().map(|address| (*address, id)).collect()
    };
    DesiredState {
        table: "namegate".to_owned(),
        programs: [program(SENDER), program(RECEIVER)].into(),
        members: [
            (SENDER, members(SENDER, &classifier, &servers)),
            (RECEIVER, members(RECEIVER, &classifier, pods)),
        ]
        .into(),
        dispatch: PerDirection {
            egress: by(pods, SENDER),
            ingress: by(governed, RECEIVER),
        },
        local_host: LocalHost::Always,
        intercepted: BTreeSet::new(),
        resolvers: Vec::new(),
        listening: Vec::new(),
        interception: Interception::Dnat,
        fail_mode: FailMode::Open,
        cluster: Vec::new(),
        host: BTreeSet::new(),
        pod_links: PodLinks::default(),
        servers: BTreeSet::new(),
        unknown: Vec::new(),
        refusal: DenyResponse::Reject,
        handover: None,
        inspected_services: PerDirection::default(),
        records: None,
        capacity: NonZeroU32::new(131_072).unwrap(),
    }
}

fn members(tiers: ProgramId, classifier: &Classifier, addresses: &[IpAddr]) -> ElementSet {
    let objects: Vec<_> = classifier
        .object_rules()
        .map(|(index, rule)| (index, rule.ports.clone()))
        .collect();
    let of = |address: &IpAddr| {
        let at = AddressContext {
            address: *address,
            zone: AddressZone::World,
            objects: &objects,
        };
        let entries = classifier.entries_for_objects(at);
        let of_entry = entries
            .iter()
            .flat_map(|entry| elements(tiers, classifier.layout(), at.address, entry));
        of_entry.collect::<Vec<Element>>()
    };
    addresses.iter().flat_map(of).collect()
}

fn origin() -> Origin {
    let policy = PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: "n".into(),
        name: "p".into(),
    };
    Origin {
        policy,
        rule: String::new(),
    }
}
