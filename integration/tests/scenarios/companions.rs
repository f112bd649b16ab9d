//! What others on the node do to an agent without meaning harm: signals, a second agent, `cleanup`,
//! a full disk.

use std::fs;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use namegate_integration::{Scenario, ip};
use rustix::process::{Pid, Signal, kill_process};

use super::plan;

fn signal(scenario: &Scenario, signal: Signal) {
    let pid = i32::try_from(scenario.agent().pid()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn wait_logged(scenario: &Scenario, text: &str) {
    scenario.wait_until(&format!("the log says {text:?}"), || {
        scenario.agent().log().iter().any(|line| line.contains(text))
    });
}

#[test]
fn signals_that_mean_something_else_elsewhere_do_not_end_the_agent() {
    for supervision in ["--supervise=false", "--supervise"] {
        let scenario = plan()
            .flags(supervision)
            .allow(0, &["a.example"])
            .records(&["a.example 60 A 198.51.100.1"])
            .start();
        for (name, number) in [
            ("SIGHUP", Signal::HUP),
            ("SIGUSR1", Signal::USR1),
            ("SIGUSR2", Signal::USR2),
        ] {
            signal(&scenario, number);
            wait_logged(&scenario, name);
        }
        assert_eq!(scenario.learn(0, "a.example"), ip("198.51.100.1"));
    }
}

#[test]
fn at_sighup_a_file_is_read_that_changed_without_an_event() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"])
        .build();
    // A link to elsewhere: nothing tells when what it leads to changes.
    let elsewhere = scenario.installation().scratch("elsewhere.yaml");
    fs::write(&elsewhere, namegate_integration::allow(0, &["a.example"])).unwrap();
    scenario.remove("allow-pod0.yaml");
    std::os::unix::fs::symlink(&elsewhere, scenario.installation().objects().join("allow-pod0.yaml")).unwrap();
    let mut scenario = scenario;
    scenario.start();
    assert!(scenario.ask(0, "b.example", RecordType::A).address().is_none());
    fs::write(&elsewhere, namegate_integration::allow(0, &["b.example"])).unwrap();
    let before = std::time::Instant::now();
    signal(&scenario, Signal::HUP);
    scenario.wait_until("the other name is allowed", || {
        scenario.ask(0, "b.example", RecordType::A).address().is_some()
    });
    // It would be read by itself after ten seconds.
    assert!(before.elapsed() < Duration::from_secs(9), "{:?}", before.elapsed());
}

#[test]
fn at_sighup_an_option_that_changed_is_in_force_and_a_broken_one_changes_nothing() {
    for supervision in ["--supervise=false", "--supervise"] {
        let mut scenario = plan()
            .flags(supervision)
            .allow(0, &["a.example"])
            .records(&["a.example 60 A 198.51.100.1"])
            .build();
        let config = scenario.installation().scratch("agent.yaml");
        let write = |text: &str| fs::write(&config, text).unwrap();
        write("dns-denied: nxdomain\n");
        scenario.add_flags(&format!("--config {}", config.display()));
        scenario.expect_errors("agent.yaml:1: there is no option `dns-denid`");
        scenario.start();
        let denied = |scenario: &Scenario| {
            let reply = scenario.try_ask(0, "b.example", RecordType::A);
            reply.map(|reply| reply.code())
        };
        assert_eq!(denied(&scenario).unwrap(), ResponseCode::NXDomain);
        let address = scenario.learn(0, "a.example");
        let process = scenario.agent().pid();

        write("dns-denid: refused\n");
        signal(&scenario, Signal::HUP);
        wait_logged(&scenario, "goes on as it was started");
        assert_eq!(denied(&scenario).unwrap(), ResponseCode::NXDomain);

        write("dns-denied: refused\n");
        signal(&scenario, Signal::HUP);
        // The old agent answers as it did, and the new one in its place otherwise. No lookup passes
        // by both: the resolver would say that there is no such name, with its own authority.
        scenario.wait_until("the option is in force", || {
            matches!(denied(&scenario), Ok(ResponseCode::Refused))
        });
        assert!(
            scenario.connect(0, address).is_connected(),
            "what was learned stays open"
        );
        assert_eq!(
            scenario.agent().pid(),
            process,
            "the service manager's process is the same"
        );
        // Lookups are answered before the agent says that it is ready.
        scenario.wait_until("the agent is ready", || {
            scenario.installation().status().is_ok_and(|status| status.ready)
        });
        let status = scenario.installation().status().unwrap();
        assert_eq!(
            status.supervisor.map_or(0, |supervisor| supervisor.deaths),
            0,
            "{supervision}"
        );
        assert_eq!(status.heartbeat_gaps, 0);
    }
}

#[test]
fn sigquit_ends_the_agent_in_order() {
    for supervision in ["--supervise=false", "--supervise"] {
        let mut scenario = plan()
            .flags(supervision)
            .allow(0, &["a.example"])
            .records(&["a.example 60 A 198.51.100.1"])
            .start();
        signal(&scenario, Signal::QUIT);
        wait_logged(&scenario, "SIGQUIT: stopping; the ruleset stays in force");
        // It has ended by itself: what SIGTERM finds is its exit code.
        scenario.terminate();
    }
}

#[test]
fn a_second_agent_is_refused_and_the_first_keeps_its_socket() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    let first = scenario.installation().status().unwrap().pid;
    let mut second = scenario.installation().start(["--upstream", "192.0.2.53"]).unwrap();
    let error = second.wait_ready().unwrap_err().to_string();
    assert!(
        error.contains(&format!("process {first}")) && error.contains("--take-over"),
        "{error}"
    );
    assert_eq!(scenario.installation().status().unwrap().pid, first);
    assert_eq!(scenario.learn(0, "a.example"), ip("198.51.100.1"));
}

#[test]
fn cleanup_is_refused_while_an_agent_lives_wherever_that_has_its_run_directory() {
    let mut scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    let refused = |arguments: &[&str]| {
        let output = scenario.installation().namegate(arguments).unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let run = scenario.installation().scratch("run").to_str().unwrap().to_owned();
    assert!(refused(&["cleanup", "--run-dir", &run]).contains("an agent is running"));
    // Somebody has removed its socket.
    fs::remove_file(format!("{run}/namegate.sock")).unwrap();
    assert!(refused(&["cleanup", "--run-dir", &run]).contains("an agent is running"));
    let elsewhere = scenario
        .installation()
        .scratch("elsewhere")
        .to_str()
        .unwrap()
        .to_owned();
    assert!(refused(&["cleanup", "--run-dir", &elsewhere]).contains("heartbeat"));
    assert_eq!(
        scenario.learn(0, "a.example"),
        ip("198.51.100.1"),
        "the table is still there"
    );
    scenario.kill();
    // A crashed agent is told from a living one.
    scenario.cleanup();
    assert!(!scenario.nft("list tables").contains("namegate"));
}

#[test]
fn a_full_state_directory_is_in_the_status_and_the_metrics() {
    let scenario = plan()
        .flags("--grace 0s")
        .allow(0, &["a.example", "b.example"])
        .records(&["a.example 600 A 198.51.100.1", "b.example 1 A 198.51.100.2"])
        .build();
    // No file can be put where a directory is: to the agent as good as a full disk, and root is not
    // exempt.
    fs::create_dir_all(scenario.installation().scratch("state/ledger.json")).unwrap();
    let mut scenario = scenario;
    scenario.start();
    scenario.learn(0, "a.example");
    scenario.wait_until("the status tells", || {
        scenario
            .installation()
            .status()
            .unwrap()
            .state_troubles
            .iter()
            .any(|it| it.contains("ledger.json"))
    });
    assert!(scenario.agent().metric("namegate_unwritten_state_files").unwrap() >= 1.0);
    assert_eq!(scenario.agent().http("/readyz").unwrap().0, 200, "lookups go on");

    // The snapshot is tried again after 30 s. What is over takes no memory until then.
    let tries = || {
        scenario
            .log()
            .iter()
            .filter(|line| line.contains("snapshot cannot be written"))
            .count()
    };
    let tried = tries();
    scenario.learn(0, "b.example");
    let names = || scenario.installation().status().unwrap().names;
    scenario.wait_until("what is over is forgotten", || names() == 1);
    assert_eq!(tries(), tried, "without waiting for the next try");
}
