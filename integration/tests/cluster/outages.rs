//! An API server that goes away and comes back, and agents that do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use namegate_integration::cluster::TestCluster;
use namegate_integration::ip;
use rustix::process::{Pid, Signal, kill_process};

use super::{ALLOWED, denied, plan};

/// Longer than the longest pause of a watch that broke.
const RECOVERY: Duration = Duration::from_secs(120);

#[test]
fn the_api_server_is_killed_and_restarted_under_load() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    let lists = lists_of_policies(&cluster);
    cluster.under_traffic("API server killed", ALLOWED, denied(), |cluster| {
        // What was written meanwhile has left the API server's memory when it is back: its watches
        // cannot go on where they were (410).
        for round in 0..20 {
            cluster.control.apply(&format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c{round}, namespace: shop}}}}"
            ));
        }
        cluster.control.kill_api();
        cluster.wait_long("the agent notices", RECOVERY, || {
            cluster.agent().metric("namegate_broken_watches").unwrap() > 0.0
        });
        let (code, _) = cluster.agent().http("/healthz").unwrap();
        assert_eq!(code, 200, "life does not depend on the API server");
        assert_eq!(cluster.agent().http("/readyz").unwrap().0, 200);
        cluster.wait_long("the age is told", RECOVERY, || {
            cluster.agent().metric("namegate_objects_age_seconds").unwrap() >= 3.0
        });
        cluster.control.start_api();
        cluster.allow_names(1, &[ALLOWED]);
        let took = cluster.wait_long("what was applied since is in force", RECOVERY, || {
            cluster.connect(1, denied()).is_refused()
        });
        println!("in force {took:?} after the API server was back");
        cluster.wait_long("the watches work", RECOVERY, || {
            cluster.agent().metric("namegate_broken_watches").unwrap() == 0.0
        });
    });
    assert!(lists_of_policies(&cluster) > lists, "the list was read again");
}

#[test]
fn a_policy_is_in_force_soon_after_the_api_server_was_away_for_long() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.control.kill_api();
    // Time has to pass: pauses double while the API server is away.
    thread::sleep(Duration::from_secs(25));
    cluster.control.start_api();
    cluster.allow_names(0, &[ALLOWED]);
    let took = cluster.wait_long("the policy is in force", RECOVERY, || {
        cluster.connect(0, denied()).is_refused()
    });
    patience::assert_took("in force after the API server was back", took, Duration::from_secs(15));
    cluster.wait_long("every watch works", Duration::from_secs(120), || {
        cluster.agent().metric("namegate_broken_watches").unwrap() == 0.0
    });
}

#[test]
fn a_watch_that_is_cut_goes_on() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.under_traffic("watch cut", ALLOWED, denied(), |cluster| {
        for round in 0..3 {
            // Whatever the agent's watches acknowledge is answered with a reset, which they meet
            // when the API server next tells something.
            cluster.shell(
                "ports=$(ss -Htnp state established dport = :6443 | grep namegate | awk '{ sub(/.*:/, \"\", $3); print $3 }' | paste -sd,)
                 nft \"add table inet cut; add chain inet cut in { type filter hook input priority -10; }; \
                 add rule inet cut in tcp dport 6443 tcp sport { $ports } reject with tcp reset\"",
            );
            let label = format!("round={round}");
            let _ = cluster.control.try_kubectl(["label", "namespace", "shop", &label, "--overwrite", "--request-timeout=2s"]);
            cluster.nft("delete table inet cut");
            if round % 2 == 0 {
                cluster.allow_names(1, &[ALLOWED]);
                cluster.wait_long("it is closed", RECOVERY, || cluster.connect(1, denied()).is_refused());
            } else {
                cluster.delete("cnp", "allow-pod1");
                cluster.wait_long("it is open", RECOVERY, || cluster.connect(1, denied()).is_connected());
            }
        }
    });
}

#[test]
fn an_agent_restarts_while_the_api_server_is_down() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.learn(0, ALLOWED);
    cluster.wait_saved(ALLOWED);
    cluster.wait_kept("allow-pod0");
    cluster.control.kill_api();
    for kill in [true, false] {
        if kill {
            cluster.kill();
        } else {
            cluster.terminate();
        }
        // The kernel goes on.
        assert!(cluster.connect(0, ip("198.51.100.1")).is_connected());
        assert!(cluster.connect(0, denied()).is_refused());
        cluster.start();
        assert!(cluster.installation().status().unwrap().source.unwrap().recalled);
        cluster.under_traffic("agent restarted without API server", ALLOWED, denied(), |_| {});
    }
    // After a boot the kernel is empty too.
    cluster.terminate();
    cluster.nft("delete table inet namegate");
    cluster.start();
    cluster.under_traffic("node booted without API server", ALLOWED, denied(), |_| {});
    cluster.control.start_api();
    cluster.allow_names(1, &[ALLOWED]);
    cluster.wait_long("the API server counts again", RECOVERY, || {
        cluster.connect(1, denied()).is_refused()
    });
    assert!(!cluster.installation().status().unwrap().source.unwrap().recalled);
}

#[test]
fn lookups_wait_for_the_next_agent_when_one_dies_under_its_supervisor() {
    let Some(mut cluster) = TestCluster::start(plan().flags("--supervise --fail-mode closed")) else {
        return;
    };
    cluster.expect_errors("the worker died");
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    let allowed = cluster.learn(0, ALLOWED);
    cluster.under_connections("agents killed", allowed, denied(), |cluster| {
        for _ in 0..3 {
            // Ready for longer than the supervisor asks for before it starts one without a pause.
            thread::sleep(Duration::from_millis(1_300));
            let worker = cluster.installation().status().unwrap().pid;
            let pid = Pid::from_raw(i32::try_from(worker).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            cluster.wait_until("it is gone", || {
                !fs::read_to_string(format!("/proc/{worker}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
            });
            let began = Instant::now();
            let reply = cluster.try_ask(0, ALLOWED, RecordType::A).unwrap();
            assert_eq!(reply.address(), Some(allowed));
            println!("a lookup was answered {:?} after an agent's death", began.elapsed());
        }
    });
    cluster.terminate();
}

#[test]
fn without_an_api_server_and_without_a_memory_the_agent_waits_and_touches_nothing() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.learn(0, ALLOWED);
    cluster.kill();
    cluster.control.kill_api();
    let state = cluster.installation().scratch("state");
    std::fs::remove_dir_all(&state).unwrap();
    cluster.start_unready();
    cluster.wait_until("the agent says what it waits for", || {
        cluster
            .agent()
            .http("/readyz")
            .is_ok_and(|(code, body)| code == 503 && body.contains("API server"))
    });
    assert_eq!(cluster.agent().http("/healthz").unwrap().0, 200);
    assert!(
        cluster.connect(0, ip("198.51.100.1")).is_connected(),
        "the old table stays"
    );
    assert!(cluster.connect(0, denied()).is_refused(), "the old table stays");
    cluster.control.start_api();
    cluster.wait_long("the agent is ready", RECOVERY, || {
        cluster.agent().http("/readyz").is_ok_and(|(code, _)| code == 200)
    });
    assert!(cluster.connect(0, denied()).is_refused());
}

#[test]
fn two_agents_overlap_in_an_upgrade() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.under_traffic("upgrades", ALLOWED, denied(), |cluster| {
        for _ in 0..3 {
            cluster.upgrade();
        }
    });
}

/// How often the agent has read the list of CiliumNetworkPolicies.
fn lists_of_policies(cluster: &TestCluster) -> usize {
    let log = cluster.control.audit_log();
    let is_list = |line: &&str| {
        line.contains("ciliumnetworkpolicies")
            && (line.contains("sendInitialEvents=true") || line.contains("\"verb\":\"list\""))
    };
    log.lines().filter(is_list).count()
}
