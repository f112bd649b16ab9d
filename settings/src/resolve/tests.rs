use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use dns_proxy::Rcode;
use enforcer::FailMode;
use policy::DenyResponse;

use crate::{EncryptedDnsDiscovery, HttpAddress, NameMatching, OptionLayer, PrivateAddresses, UnknownPods, WebAddress};

use super::*;

fn host() -> HostFacts {
    HostFacts {
        name: "node-1".into(),
        resolv_conf: Ok("# generated\nsearch example\nnameserver 192.0.2.53\nnameserver 2001:db8::53 # two\nnameserver fe80::1%eth0\n".into()),
    }
}

/// The options of a command line; errors are what `namegate agent` says.
fn options(line: &[&str]) -> Result<AgentOptions, RejectedOption> {
    let command = OptionLayer::augment_args(Command::new("agent").no_binary_name(true));
    let said = command
        .try_get_matches_from(line)
        .and_then(|matches| OptionLayer::from_arg_matches(&matches));
    match said {
        Ok(said) => said.options(),
        Err(error) => Err(RejectedOption::of(&error).unwrap_or_else(|| panic!("{line:?}: {error}"))),
    }
}

fn resolved(line: &[&str]) -> Result<Settings, RejectedOption> {
    resolve(options(line)?, &host())
}

fn refused(line: &[&str]) -> String {
    resolved(line).unwrap_err().to_string()
}

#[test]
fn encrypted_upstreams_are_checked_before_they_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "no certificate\n").unwrap();
    let authorities = format!("--upstream-ca={}", file.display());
    let message = refused(&["--upstream=tls://192.0.2.53", &authorities]);
    assert!(
        message.contains("--upstream-ca") && message.contains("no certificate in PEM"),
        "{message}"
    );
    assert!(
        resolved(&["--upstream=192.0.2.53", &authorities]).is_ok(),
        "a plain one needs none"
    );
    let message = refused(&[
        "--upstream=tls://192.0.2.53",
        "--upstream=quic://192.0.2.53",
        &authorities,
    ]);
    assert!(message.contains("same address and port"), "{message}");
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = resolve(AgentOptions::default(), &host()).unwrap();
    assert_eq!(settings.node, "node-1");
    assert_eq!(
        settings.upstreams,
        ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()]
    );
    assert!(settings.listen.is_empty());
    assert_eq!(settings.process.http.address(), Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(settings.state_dir.as_deref(), Some(Path::new("/var/lib/namegate")));
    assert_eq!(settings.process.run_dir.as_deref(), Some(Path::new("/run/namegate")));
    assert_eq!(settings.table, "namegate");
    assert_eq!(settings.fail_mode, FailMode::Open);
    assert_eq!(settings.interception, Interception::Dnat);
    assert_eq!(settings.refusal, DenyResponse::Reject);
    assert_eq!(settings.capacity.get(), 65_536);
    assert_eq!(settings.questions, QuestionMode::Any);
    assert_eq!(
        resolved(&["--objects=/objects"]).unwrap().questions,
        QuestionMode::AllowedOnly
    );
    assert_eq!(settings.unknown_pods, UnknownPods::Allow);
    assert_eq!(settings.private_addresses, PrivateAddresses::Allow);
    assert_eq!(settings.matching, NameMatching::Question);
    assert_eq!(settings.lookups.dns_denied, Rcode::NxDomain);
    assert_eq!(settings.lookups.encrypted_dns_discovery, EncryptedDnsDiscovery::Deny);
    assert_eq!(settings.lease, LeaseTiming::default());
    assert_eq!(settings.limits, LedgerLimits::default());
    assert_eq!(settings.cluster_domain.as_str(), "cluster.local.");
    assert_eq!(settings.cluster_dns, [("kube-system".into(), "kube-dns".into())]);
    assert_eq!(settings.lookups.commit_deadline, Duration::from_secs(1));
    assert_eq!(settings.records_group, Some(5371));
    assert_eq!(settings.cache, None);
}

#[test]
fn a_startup_taint_is_a_key_alone() {
    let taint = |key: &str| resolved(&[&format!("--startup-taint={key}")]).map(|it| it.cluster.startup_taint);
    for key in ["namegate.io/agent-not-ready", "starting"] {
        assert_eq!(taint(key).unwrap().as_deref(), Some(key));
    }
    for key in ["", "a/b/c", "key=value", "key:NoSchedule", "x/"] {
        assert!(taint(key).is_err(), "{key}");
    }
}

#[test]
fn records_have_a_group_or_are_off() {
    for (given, group) in [("off", None), ("7", Some(7))] {
        let settings = resolved(&[&format!("--records-group={given}")]).unwrap();
        assert_eq!(settings.records_group, group);
        assert_eq!(settings.kernel.records_group.group(), group);
    }
}

#[test]
fn http_has_an_address_or_is_off() {
    for (given, address) in [("off", None), ("[::1]:80", Some("[::1]:80".parse().unwrap()))] {
        let settings = resolved(&[&format!("--http={given}")]).unwrap();
        assert_eq!(settings.process.http.address(), address);
        assert_ne!(
            settings.process.http,
            HttpAddress::At("127.0.0.1:9464".parse().unwrap())
        );
    }
}

#[test]
fn the_page_is_shown_on_loopback_alone_unless_told_otherwise() {
    for (given, address) in [
        (&[][..], None),
        (&["--web"], Some("127.0.0.1:9464")),
        (&["--web", "--http=[::1]:80"], Some("[::1]:80")),
        (&["--web=on", "--http=192.0.2.7:80"], Some("127.0.0.1:80")),
        (&["--web", "--http=0.0.0.0:80"], Some("127.0.0.1:80")),
        (&["--web", "--http=off"], Some("127.0.0.1:9464")),
        (&["--web=192.0.2.7:80", "--http=off"], Some("192.0.2.7:80")),
    ] {
        let process = resolved(given).unwrap().process;
        let expected = address.map(|address| address.parse().unwrap());
        assert_eq!(process.web.address(process.http), expected, "{given:?}");
    }
    assert!("everywhere".parse::<WebAddress>().is_err());
}

/// Each default is told once, after the help's sentence and before clap's list of values.
#[test]
fn the_help_shows_the_defaults() {
    let mut command = AgentOptions::augment_args(Command::new("x").term_width(1_000));
    let help = command.render_long_help().to_string();
    let entry = |option: &str| {
        let (_, text) = help.split_once(&format!("--{option}")).unwrap();
        text.split("\n      --").next().unwrap().to_owned()
    };
    let mut shown = 0;
    for option in command.get_arguments() {
        let long = option.get_long().unwrap_or_default();
        for default in option.get_default_values() {
            let entry = entry(long);
            let told = format!("[default: {}]", default.to_string_lossy());
            assert_eq!(entry.matches("[default: ").count(), 1, "{entry}");
            assert!(entry.contains(&told), "{entry}");
            shown += 1;
        }
    }
    assert!(shown > 20);
    for (option, default) in [
        ("grace <", "30s"),
        ("max-ttl <", "24h"),
        ("records-group <", "5371"),
        ("http <", "127.0.0.1:9464"),
        ("cluster-dns <", "kube-system/kube-dns"),
        ("tproxy-mark <", "0x1000"),
    ] {
        assert!(entry(option).contains(&format!("[default: {default}]")), "{option}");
    }
}

#[test]
fn tproxy_takes_its_parameters() {
    let settings = resolved(&["--intercept=tproxy", "--tproxy-mark=0x100"]).unwrap();
    assert_eq!(
        settings.interception,
        Interception::Tproxy {
            mark: NonZeroU32::new(0x100).unwrap(),
            routing_table: 5353,
            port: 15353
        }
    );
}

#[test]
fn a_mark_may_be_written_in_hexadecimal() {
    for text in ["0x200000", "0X200000", "2097152"] {
        let options = options(&[&format!("--tproxy-mark={text}")]).unwrap();
        assert_eq!(options.interception.tproxy_mark.get(), 0x20_0000);
    }
    let command = OptionLayer::augment_args(Command::new("agent").no_binary_name(true));
    assert!(command.try_get_matches_from(["--tproxy-mark=0x1ffffffff"]).is_err());
}

#[test]
fn without_a_resolver_it_says_what_to_do() {
    for resolv_conf in [Ok("search example\n".into()), Err(io::ErrorKind::NotFound.into())] {
        let host = HostFacts { resolv_conf, ..host() };
        let message = resolve(AgentOptions::default(), &host).unwrap_err().to_string();
        assert!(message.contains("--upstream IP"), "{message}");
    }
}

#[test]
fn asking_oneself_is_refused() {
    let message = refused(&["--upstream=127.0.0.1", "--listen=0.0.0.0"]);
    assert!(message.contains("ask itself"), "{message}");
    // The resolv.conf that points at the agent itself leaves no resolver.
    let host = HostFacts {
        resolv_conf: Ok("nameserver 127.0.0.1\n".into()),
        ..host()
    };
    let options = options(&["--listen=0.0.0.0"]).unwrap();
    assert!(matches!(resolve(options, &host), Err(RejectedOption::NoUpstream(_))));
}

#[test]
fn values_out_of_bounds_are_refused_with_bounds_and_reason() {
    let message = refused(&["--commit-deadline=60s"]);
    assert!(
        message.starts_with("--commit-deadline (or `commit-deadline` in the config file) cannot be 1m: it must lie between 10ms and 5s ("),
        "{message}"
    );
    for line in [
        "--set-capacity=0",
        "--max-names=0",
        "--workers=0",
        "--workers=65",
        "--max-addresses-per-name=18446744073709551615",
        "--max-ttl=0s",
        "--grace=1000000s",
        "--min-ttl=60s --max-ttl=30s",
        "--dns-cache-stale=864000s",
        "--table=a,b",
        "--table=",
        "--tproxy-mark=0",
        "--tproxy-table=254",
        "--tproxy-table=0",
        "--tproxy-port=0",
        "--cluster-domain=.",
        "--cluster-domain=a..b",
        "--upstream=0.0.0.0",
        "--upstream=192.0.2.1:0",
        "--listen=224.0.0.1",
        "--run-dir=/",
        "--state-dir=/",
        "--node=",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        assert!(resolved(&words).is_err(), "{line}");
    }
    assert!(resolved(&["--table=a b"]).is_err());
    assert!(resolved(&["--node= "]).is_err());
}

/// The command line may say something else than a file that was not changed with it.
#[test]
fn a_value_out_of_bounds_in_the_file_is_refused_unless_a_flag_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    std::fs::write(&path, "commit-deadline: 1m\n").unwrap();
    let merged = |line: &[&str]| {
        let command = OptionLayer::augment_args(Command::new("agent").no_binary_name(true));
        let matches = command.try_get_matches_from(line).unwrap();
        crate::merge(OptionLayer::from_arg_matches(&matches).unwrap(), Some(&path))
    };
    assert_eq!(
        merged(&[]).unwrap_err().to_string(),
        refused(&["--commit-deadline=60s"])
    );
    let options = merged(&["--commit-deadline=2s"]).unwrap();
    assert_eq!(options.lookups.commit_deadline, Duration::from_secs(2));
}

#[test]
fn other_clusters_have_names_of_their_own() {
    let settings = resolved(&[
        "--upstream=192.0.2.53",
        "--cluster=west=/o/west",
        "--cluster-kubeconfig=north=/k/north",
        "--cluster-name=east",
    ])
    .unwrap();
    let names: Vec<&str> = settings.other_clusters.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((settings.cluster_name.as_str(), names), ("east", vec!["north", "west"]));
    let domains: Vec<String> = settings.cluster_domains().iter().map(ToString::to_string).collect();
    assert_eq!(domains, ["cluster.local", "clusterset.local"]);
    let alone = resolved(&["--upstream=192.0.2.53"]).unwrap();
    assert_eq!(
        (alone.cluster_name.as_str(), alone.cluster_domains().len()),
        ("default", 1)
    );
    for (line, said) in [
        (&["--cluster=default=/o"][..], "this is the name of this cluster"),
        (
            &["--cluster=west=/o", "--cluster-kubeconfig=west=/k"],
            "there is a cluster of this name",
        ),
        (&["--cluster=/o"], "write the cluster's name and a path"),
        (&["--cluster=a_b=/o"], "lower-case"),
        (&["--cluster-name=-a"], "lower-case"),
    ] {
        let message = refused(&[&["--upstream=192.0.2.53"], line].concat());
        assert!(message.contains(said), "{line:?}: {message}");
    }
}
