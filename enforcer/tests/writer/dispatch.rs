//! Endpoints that come, go and change programs, by elements alone.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clock::now;
use enforcer::layout::IpFamily;
use enforcer::{DesiredState, Enforcer, LocalHost};

use crate::namespace::{inside, nft, run, seconds};
use crate::programs::{ONE, TWO, desired, group, whole};

/// Every chain with the handles of its rules: a rule that is written anew has another.
fn rules() -> String {
    let listing = run("nft", &["-a", "list", "table", "inet", "namegate"], "").unwrap();
    listing
        .lines()
        .filter(|line| line.contains("# handle") && !line.contains("map dispatch"))
        .collect()
}

fn dispatched() -> String {
    run("nft", &["list", "map", "inet", "namegate", "dispatch4"], "").unwrap()
}

#[test]
fn endpoints_come_go_and_move_without_a_rule_being_written() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let mut wanted = desired([ONE, TWO], 10);
        let ledger = || panic!("sets that stay need nothing of the ledger");
        enforcer.install(wanted.clone(), Vec::new).await.unwrap();
        let before = rules();
        let pod = |last: u8| IpAddr::from([10, 66, 0, last]);
        wanted.dispatch.egress.insert(pod(3), TWO);
        wanted.intercepted.insert(pod(3));
        enforcer.install(wanted.clone(), ledger).await.unwrap();
        assert!(dispatched().contains(&format!("10.66.0.3 : goto ep4-{TWO}")));
        wanted.dispatch.egress.insert(pod(3), ONE);
        enforcer.install(wanted.clone(), ledger).await.unwrap();
        assert!(dispatched().contains(&format!("10.66.0.3 : goto ep4-{ONE}")));
        wanted.dispatch.egress.remove(&pod(3));
        wanted.intercepted.clear();
        enforcer.install(wanted, ledger).await.unwrap();
        assert!(!dispatched().contains("10.66.0.3"));
        assert_eq!(rules(), before);
    });
}

#[test]
fn a_program_comes_and_goes_and_the_others_stay_untouched() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        let before = rules();
        enforcer.install(desired([ONE, TWO], 10), Vec::new).await.unwrap();
        let both = rules();
        assert!(both.contains(&format!("ep4-{TWO}")));
        enforcer.install(desired([ONE], 10), Vec::new).await.unwrap();
        assert_eq!(rules(), before);
    });
}

#[test]
fn zones_and_resolvers_follow_by_elements() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let mut wanted = desired([ONE], 10);
        wanted.cluster = vec![
            "10.0.0.0/24".parse().unwrap(),
            "10.0.1.0/24".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ];
        enforcer.install(wanted.clone(), Vec::new).await.unwrap();
        let before = rules();
        wanted.cluster = vec!["10.0.1.0/24".parse().unwrap(), "10.0.2.0/23".parse().unwrap()];
        wanted.host = ["10.9.0.1".parse().unwrap(), "255.255.255.255".parse().unwrap()].into();
        wanted.resolvers = vec![enforcer::ResolverBinding {
            asked: "10.96.0.10:53".parse().unwrap(),
            listener: "169.254.53.53:15400".parse().unwrap(),
        }];
        enforcer.install(wanted, Vec::new).await.unwrap();
        let set = |kind: &str, name: &str| run("nft", &["list", kind, "inet", "namegate", name], "").unwrap();
        let cluster = set("set", "cluster4");
        assert!(
            cluster.contains("10.0.1.0-10.0.3.255") && cluster.contains("10.9.0.1"),
            "{cluster}"
        );
        assert!(
            !cluster.contains("10.0.0.") && cluster.contains("255.255.255.255"),
            "{cluster}"
        );
        assert!(!set("set", "cluster6").contains("fd00"));
        assert!(set("map", "listener-port4").contains("10.96.0.10 . 53 : 15400"));
        assert!(set("map", "listener-address4").contains("10.96.0.10 . 53 : 169.254.53.53"));
        assert_eq!(rules(), before);
    });
}

#[test]
fn no_packet_meets_a_half_state_while_programs_change_places() {
    inside(|| async {
        run("ip", &["addr", "add", "10.99.0.0/16", "dev", "lo"], "").unwrap();
        run("ip", &["addr", "add", "10.66.0.1/32", "dev", "lo"], "").unwrap();
        let enforcer = Enforcer::start("namegate").unwrap();
        let install = |program| {
            let end = now() + seconds(60);
            let learned = move || vec![(whole(program, "10.99.0.1"), end)];
            enforcer.install(desired([program], 10), learned)
        };
        install(ONE).await.unwrap();
        // Nobody answers, so no flow is ever established and every packet is judged.
        let _allowed = UdpSocket::bind("10.99.0.1:443").unwrap();
        let denied = UdpSocket::bind("10.99.0.2:443").unwrap();
        denied.set_nonblocking(true).unwrap();
        for to in ["10.99.0.1:443", "10.99.0.2:443"] {
            let sender = Sender::new("10.66.0.1:0", to);
            for _ in 0..50 {
                install(TWO).await.unwrap();
                install(ONE).await.unwrap();
            }
            assert!(sender.stop() > 0);
            let [refused, _] = enforcer.refused_packets().unwrap().egress;
            assert_eq!(
                refused > 0,
                to.starts_with("10.99.0.2"),
                "{refused} packets to {to} were refused"
            );
        }
        assert!(denied.recv(&mut [0; 8]).is_err(), "what is denied never arrives");
    });
}

/// As the former test, for what an endpoint gets: here the programs judge by the source.
#[test]
fn no_packet_meets_a_half_state_while_the_receivers_programs_change_places() {
    inside(|| async {
        run("ip", &["addr", "add", "10.99.0.0/16", "dev", "lo"], "").unwrap();
        run("ip", &["addr", "add", "10.66.0.1/32", "dev", "lo"], "").unwrap();
        let enforcer = Enforcer::start("namegate").unwrap();
        let install = |program| {
            let end = now() + seconds(60);
            let learned = move || vec![(whole(program, "10.99.0.1"), end)];
            enforcer.install(receiving(program), learned)
        };
        install(ONE).await.unwrap();
        let receiver = UdpSocket::bind("10.66.0.1:443").unwrap();
        receiver.set_nonblocking(true).unwrap();
        for from in ["10.99.0.2:0", "10.99.0.1:0"] {
            let sender = Sender::new(from, "10.66.0.1:443");
            for _ in 0..50 {
                install(TWO).await.unwrap();
                install(ONE).await.unwrap();
            }
            assert!(sender.stop() > 0);
            let is_allowed = from.starts_with("10.99.0.1");
            let [refused, _] = enforcer.refused_packets().unwrap().ingress;
            assert_eq!(refused > 0, !is_allowed, "{refused} packets from {from} were refused");
            assert_eq!(receiver.recv(&mut [0; 8]).is_ok(), is_allowed, "from {from}");
            // The next turn counts from nothing.
            nft("reset counters table inet namegate");
        }
        let listing = run("nft", &["list", "table", "inet", "namegate"], "").unwrap();
        assert!(listing.contains(&format!("in4-{ONE}")) && !listing.contains(&format!("in4-{TWO}")));
    });
}

/// A program for what 10.66.0.1 gets, of this node too.
fn receiving(program: policy::ProgramId) -> DesiredState {
    let mut wanted = desired([program], 10);
    wanted.dispatch.ingress = std::mem::take(&mut wanted.dispatch.egress);
    wanted.local_host = LocalHost::Policy;
    wanted
}

/// Who receives what is no business of an agent's life: the next one finds it in force, closed or
/// open, and changes it by elements.
#[test]
fn the_next_agent_adopts_what_receivers_programs_look_up() {
    inside(|| async {
        run("ip", &["addr", "add", "10.99.0.0/16", "dev", "lo"], "").unwrap();
        run("ip", &["addr", "add", "10.66.0.1/32", "dev", "lo"], "").unwrap();
        let passes = |from: &str| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            // What the output hook refuses is an error to the sender.
            socket.send_to(b"?", "10.66.0.1:443").is_ok()
        };
        let mut wanted = receiving(ONE);
        wanted.members = [(ONE, [whole(ONE, "10.99.0.1")].into_iter().collect())].into();
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(wanted.clone(), Vec::new).await.unwrap();
        assert!(passes("10.99.0.1") && !passes("10.99.0.2"));
        let sets = || run("nft", &["-a", "list", "sets"], "").unwrap();
        let handle = |listing: &str| {
            let line = listing
                .lines()
                .find(|line| line.contains(&group(ONE, IpFamily::V4).to_string()));
            line.unwrap().to_owned()
        };
        let stood = handle(&sets());
        enforcer.shut_down().await;
        assert!(passes("10.99.0.1") && !passes("10.99.0.2"), "while no agent lives");

        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(wanted.clone(), Vec::new).await.unwrap();
        assert!(passes("10.99.0.1") && !passes("10.99.0.2"));
        assert_eq!(handle(&sets()), stood, "the set is the same");
        let before = rules();
        wanted.dispatch.ingress.insert([10, 66, 0, 9].into(), ONE);
        enforcer.install(wanted.clone(), Vec::new).await.unwrap();
        assert_eq!(rules(), before);
        // The settings of the next one let the node pass.
        wanted.local_host = LocalHost::Always;
        enforcer.shut_down().await;
        let enforcer = Enforcer::start("namegate").unwrap();
        enforcer.install(wanted, Vec::new).await.unwrap();
        assert!(passes("10.99.0.2"));
        assert!(!rules().contains("hook output"));
    });
}

/// Sends datagrams as fast as it can.
struct Sender {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Sender {
    fn new(from: &'static str, to: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let socket = UdpSocket::bind(from).unwrap();
        let thread = std::thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Relaxed) {
                // What was refused comes back as an error of a later call.
                let _ = socket.send_to(b"?", to);
                sent += 1;
            }
            sent
        });
        Self { stop, thread }
    }

    /// How many were sent.
    fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// The map of the version before is a named one, which goes after the rules that look it up. An
/// anonymous one goes with its rule: the kernel hides its elements from a packet that is in the
/// rule just then, and the packet passes. So no version dispatches by one.
#[test]
fn a_table_of_the_version_before_is_taken_over_without_a_gap() {
    inside(|| async {
        run("ip", &["addr", "add", "10.99.0.0/16", "dev", "lo"], "").unwrap();
        run("ip", &["addr", "add", "10.66.0.1/32", "dev", "lo"], "").unwrap();
        nft("add table inet namegate
             add set inet namegate pods4 { type ipv4_addr; elements = { 10.66.0.1 } }
             add set inet namegate cluster4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.1.0.0/16 } }
             add set inet namegate allow4-00000000000000aa { type ipv4_addr . inet_proto . inet_service; flags timeout; size 20; }
             add set inet namegate allow4-00000000000000aa-g0 { type ipv4_addr; flags timeout; size 20; }
             add set inet namegate allow4-00000000000000aa-world { type ipv4_addr; flags interval; }
             add chain inet namegate refuse
             add rule inet namegate refuse drop
             add chain inet namegate ep4-00000000000000aa
             add rule inet namegate ep4-00000000000000aa ip daddr @allow4-00000000000000aa-g0 accept
             add rule inet namegate ep4-00000000000000aa goto refuse
             add chain inet namegate dispatch
             add map inet namegate sources4 { type ipv4_addr : verdict; elements = { 10.66.0.1 : goto ep4-00000000000000aa } }
             add rule inet namegate dispatch ip saddr vmap @sources4
             add chain inet namegate input { type filter hook input priority 0; }
             add rule inet namegate input jump dispatch
             add element inet namegate allow4-00000000000000aa-g0 { 10.99.0.1 timeout 1h }");
        let denied = UdpSocket::bind("10.99.0.2:443").unwrap();
        denied.set_nonblocking(true).unwrap();
        let sender = Sender::new("10.66.0.1:0", "10.99.0.2:443");
        let enforcer = Enforcer::start("namegate").unwrap();
        let end = now() + seconds(60);
        let element = whole(ONE, "10.99.0.1");
        enforcer
            .install(desired([ONE], 10), move || vec![(element, end)])
            .await
            .unwrap();
        assert!(sender.stop() > 0);
        assert!(denied.recv(&mut [0; 8]).is_err(), "no packet has passed meanwhile");
        let listing = run("nft", &["list", "table", "inet", "namegate"], "").unwrap();
        assert!(!listing.contains("00000000000000aa"), "{listing}");
        assert!(listing.contains(&group(ONE, IpFamily::V4).to_string()));
        assert!(!listing.contains("10.1.0.0/16"));
    });
}

#[test]
fn a_set_that_somebody_deleted_is_made_again_by_the_next_installation() {
    inside(|| async {
        let enforcer = Enforcer::start("namegate").unwrap();
        let wanted = desired([ONE], 10);
        enforcer.install(wanted.clone(), Vec::new).await.unwrap();
        nft("flush ruleset");
        let more = DesiredState {
            host: [IpAddr::from([10, 9, 9, 9])].into(),
            ..wanted
        };
        let generation = enforcer.install(more, Vec::new).await.unwrap();
        assert_eq!(enforcer.generation(), generation);
        assert!(dispatched().contains(&format!("goto ep4-{ONE}")));
        tokio::time::timeout(Duration::from_secs(10), enforcer.table_lost())
            .await
            .unwrap();
    });
}
