use std::io;

use clap::{Args, Command};

use super::*;

fn host() -> HostFacts {
    HostFacts {
        name: "node-1".into(),
        resolv_conf: Ok("# generated\nsearch example\nnameserver 192.0.2.53\nnameserver 2001:db8::53 # two\nnameserver fe80::1%eth0\n".into()),
    }
}

fn refused(options: AgentOptions) -> String {
    resolve(options, &host()).unwrap_err().to_string()
}

#[test]
fn encrypted_upstreams_are_checked_before_they_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let options = |upstreams: &[&str], authorities: &Path| AgentOptions {
        upstream: upstreams.iter().map(|text| text.parse().unwrap()).collect(),
        upstream_ca: Some(authorities.to_owned()),
        ..AgentOptions::default()
    };
    std::fs::write(&file, "no certificate\n").unwrap();
    let message = refused(options(&["tls://192.0.2.53"], &file));
    assert!(
        message.contains("--upstream-ca") && message.contains("no certificate in PEM"),
        "{message}"
    );
    assert!(
        resolve(options(&["192.0.2.53"], &file), &host()).is_ok(),
        "a plain one needs none"
    );
    let message = refused(options(&["tls://192.0.2.53", "quic://192.0.2.53"], &file));
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
    assert_eq!(settings.http, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(settings.state_dir.as_deref(), Some(Path::new("/var/lib/namegate")));
    assert_eq!(settings.run_dir.as_deref(), Some(Path::new("/run/namegate")));
    assert_eq!(settings.table, "namegate");
    assert_eq!(settings.fail_mode, FailMode::Open);
    assert_eq!(settings.interception, Interception::Dnat);
    assert_eq!(settings.refusal, DenyResponse::Reject);
    assert_eq!(settings.capacity.get(), 65_536);
    assert_eq!(settings.questions, QuestionMode::Any);
    let standalone = AgentOptions {
        objects: Some("/objects".into()),
        ..AgentOptions::default()
    };
    assert_eq!(
        resolve(standalone, &host()).unwrap().questions,
        QuestionMode::AllowedOnly
    );
    assert_eq!(settings.unknown_pods, UnknownPods::Allow);
    assert_eq!(settings.private_addresses, PrivateAddresses::Allow);
    assert_eq!(settings.matching, NameMatching::Question);
    assert_eq!(settings.denied, Rcode::NxDomain);
    assert_eq!(settings.encrypted_dns_discovery, EncryptedDnsDiscovery::Deny);
    assert_eq!(settings.lease, LeaseTiming::default());
    assert_eq!(settings.limits, LedgerLimits::default());
    assert_eq!(settings.cluster_domain.as_str(), "cluster.local.");
    assert_eq!(settings.cluster_dns, [("kube-system".into(), "kube-dns".into())]);
    assert_eq!(settings.commit_deadline, Duration::from_secs(1));
    assert_eq!(settings.records_group, Some(5371));
    assert_eq!(settings.cache, None);
}

#[test]
fn a_startup_taint_is_a_key_alone() {
    let taint = |key: &str| {
        resolve(
            AgentOptions {
                startup_taint: Some(key.into()),
                ..AgentOptions::default()
            },
            &host(),
        )
        .map(|it| it.startup_taint)
    };
    for key in ["namegate.io/agent-not-ready", "starting"] {
        assert_eq!(taint(key).unwrap().as_deref(), Some(key));
    }
    for key in ["", "a/b/c", "key=value", "key:NoSchedule", "x/"] {
        assert!(taint(key).is_err(), "{key}");
    }
}

#[test]
fn records_have_a_group_or_are_off() {
    for (given, group) in [(RecordsGroup::Off, None), (RecordsGroup::Group(7), Some(7))] {
        let options = AgentOptions {
            records_group: Some(given),
            ..AgentOptions::default()
        };
        assert_eq!(resolve(options, &host()).unwrap().records_group, group);
    }
}

#[test]
fn the_help_shows_the_defaults() {
    let help = AgentOptions::augment_args(Command::new("x").term_width(1_000))
        .render_long_help()
        .to_string();
    for (option, default) in [
        ("set-capacity", SET_CAPACITY.default.to_string()),
        ("max-names", MAX_NAMES.default.to_string()),
        ("max-addresses-per-name", MAX_ADDRESSES.default.to_string()),
        ("commit-deadline", COMMIT_DEADLINE.default.to_string()),
        ("min-ttl", MIN_TTL.default.to_string()),
        ("max-ttl", "24h".into()),
        ("grace", GRACE.default.to_string()),
        ("tproxy-mark", format!("{DEFAULT_TPROXY_MARK:#x}")),
        ("tproxy-table", TPROXY_TABLE.default.to_string()),
        ("tproxy-port", TPROXY_PORT.default.to_string()),
        ("table", DEFAULT_TABLE.into()),
        ("records-group", records::DEFAULT_GROUP.to_string()),
        ("http", DEFAULT_HTTP.into()),
        ("state-dir", DEFAULT_STATE_DIR.into()),
        ("run-dir", DEFAULT_RUN_DIR.into()),
        ("cluster-domain", DEFAULT_CLUSTER_DOMAIN.into()),
        (
            "cluster-dns",
            format!("{}/{}", DEFAULT_CLUSTER_DNS.0, DEFAULT_CLUSTER_DNS.1),
        ),
    ] {
        let (_, text) = help.split_once(&format!("--{option} ")).unwrap();
        let entry = text.split("\n      --").next().unwrap();
        assert!(entry.contains(&format!("[default: {default}]")), "{option}: {entry}");
    }
}

#[test]
fn tproxy_takes_its_parameters() {
    let settings = resolve(
        AgentOptions {
            intercept: Some(InterceptionMode::Tproxy),
            tproxy_mark: Some(PacketMark(0x100)),
            ..AgentOptions::default()
        },
        &host(),
    )
    .unwrap();
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
fn without_a_resolver_it_says_what_to_do() {
    for resolv_conf in [Ok("search example\n".into()), Err(io::ErrorKind::NotFound.into())] {
        let host = HostFacts { resolv_conf, ..host() };
        let message = resolve(AgentOptions::default(), &host).unwrap_err().to_string();
        assert!(message.contains("--upstream IP"), "{message}");
    }
}

#[test]
fn asking_oneself_is_refused() {
    let listen = vec!["0.0.0.0".parse().unwrap()];
    let message = refused(AgentOptions {
        upstream: vec!["127.0.0.1".parse().unwrap()],
        listen: listen.clone(),
        ..AgentOptions::default()
    });
    assert!(message.contains("ask itself"), "{message}");
    // The resolv.conf that points at the agent itself leaves no resolver.
    let host = HostFacts {
        resolv_conf: Ok("nameserver 127.0.0.1\n".into()),
        ..host()
    };
    let options = AgentOptions {
        listen,
        ..AgentOptions::default()
    };
    assert!(matches!(resolve(options, &host), Err(RejectedOption::NoUpstream(_))));
}

#[test]
fn values_out_of_bounds_are_refused_with_bounds_and_reason() {
    let message = refused(AgentOptions {
        commit_deadline: Some(Duration::from_secs(60)),
        ..AgentOptions::default()
    });
    assert!(
        message.starts_with("--commit-deadline (or `commit-deadline` in the config file) cannot be 1m: it must lie between 10ms and 5s ("),
        "{message}"
    );
    for options in [
        AgentOptions {
            set_capacity: Some(0),
            ..AgentOptions::default()
        },
        AgentOptions {
            max_names: Some(0),
            ..AgentOptions::default()
        },
        AgentOptions {
            max_addresses_per_name: Some(usize::MAX),
            ..AgentOptions::default()
        },
        AgentOptions {
            max_ttl: Some(Duration::ZERO),
            ..AgentOptions::default()
        },
        AgentOptions {
            grace: Some(Duration::from_secs(1_000_000)),
            ..AgentOptions::default()
        },
        AgentOptions {
            min_ttl: Some(Duration::from_secs(60)),
            max_ttl: Some(Duration::from_secs(30)),
            ..AgentOptions::default()
        },
        AgentOptions {
            dns_cache_stale: Some(Duration::from_secs(864_000)),
            ..AgentOptions::default()
        },
        AgentOptions {
            table: Some("a b".into()),
            ..AgentOptions::default()
        },
        AgentOptions {
            table: Some(String::new()),
            ..AgentOptions::default()
        },
        AgentOptions {
            tproxy_mark: Some(PacketMark(0)),
            ..AgentOptions::default()
        },
        AgentOptions {
            tproxy_table: Some(254),
            ..AgentOptions::default()
        },
        AgentOptions {
            tproxy_port: Some(0),
            ..AgentOptions::default()
        },
        AgentOptions {
            cluster_domain: Some(".".into()),
            ..AgentOptions::default()
        },
        AgentOptions {
            cluster_domain: Some("a..b".into()),
            ..AgentOptions::default()
        },
        AgentOptions {
            upstream: vec!["0.0.0.0".parse().unwrap()],
            ..AgentOptions::default()
        },
        AgentOptions {
            upstream: vec!["192.0.2.1:0".parse().unwrap()],
            ..AgentOptions::default()
        },
        AgentOptions {
            listen: vec!["224.0.0.1".parse().unwrap()],
            ..AgentOptions::default()
        },
        AgentOptions {
            run_dir: Some("/".into()),
            ..AgentOptions::default()
        },
        AgentOptions {
            node: Some(" ".into()),
            ..AgentOptions::default()
        },
    ] {
        assert!(resolve(options.clone(), &host()).is_err(), "{options:?}");
    }
}
