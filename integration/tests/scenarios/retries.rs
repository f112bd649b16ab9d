//! A first installation that the kernel refuses, and the next one that it does not.

use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use agent::app::Agent;
use cluster::directory::DirectorySource;
use hickory_proto::rr::RecordType;
use lab::client::StubResolver;
use lab::{RESOLVER, dns};
use settings::{AgentOptions, HostFacts, resolve::resolve};

use super::plan;

#[test]
fn lookups_on_a_flow_from_before_are_seen_after_an_installation_that_had_to_be_tried_twice() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"])
        .build();
    scenario.nft(
        "add table inet tracks; add chain inet tracks forward { type filter hook forward priority 0; }; \
         add rule inet tracks forward ct state established accept",
    );
    // The table belongs to a process, and goes with it.
    let mut nft = scenario.lab().node().command("nft");
    let mut owner = nft
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut script = owner.stdin.take().unwrap();
    script.write_all(b"add table inet namegate { flags owner; }\n").unwrap();
    scenario.wait_until("the table is somebody else's", || {
        scenario.nft("list tables").contains("inet namegate")
    });
    let pod = scenario.pod(0).namespace();
    let stub = pod.run(|| StubResolver::new(dns(RESOLVER))).unwrap().unwrap();
    let ask = |name| stub.ask(name, RecordType::A, true).unwrap();
    assert!(ask("b.example").address().is_some(), "the flow goes to the resolver");

    let mut options = AgentOptions::default();
    options.objects.objects = Some(scenario.installation().objects());
    options.resolvers.upstream = vec![RESOLVER.to_string().parse().unwrap()];
    options.process.state_dir = Some(scenario.installation().scratch("state"));
    options.process.run_dir = Some(scenario.installation().scratch("run"));
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Err(io::ErrorKind::NotFound.into()),
    };
    let settings = resolve(options, &host).unwrap();
    let source = DirectorySource {
        directory: scenario.installation().objects(),
        node: "here".into(),
        state_dir: None,
        reread: Default::default(),
    };
    // The process would end after the first failure; what is tested is the loop.
    let life = async {
        let agent = Agent::start(settings, source, None).await.unwrap();
        assert!(agent.ready().await.is_err(), "the kernel refuses");
        drop(script);
        owner.wait().unwrap();
        while agent.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The flow is the same, and yet it comes to the agent.
        let denied = tokio::task::block_in_place(|| ask("b.example"));
        assert!(denied.address().is_none(), "{denied:?}");
        agent.stop().await;
    };
    scenario
        .lab()
        .node()
        .run(|| tokio::runtime::Runtime::new().unwrap().block_on(life))
        .unwrap();
}
