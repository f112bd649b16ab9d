//! The pages of `--web`, in a real browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::explain::ExplainRequest;
use agent::http::{HttpAudience, HttpServer};
use agent::inspect::{Figures, Inspect};
use agent::metrics::Metrics;
use agent::suggestion::SuggestionRequest;
use api::{AgentStatus, AnsweredNameRow, EventEndRow, EventRow, ExplainAnswer, NameRow, Records, RuleRow};
use api::{SuggestionAnswer, examples};
use clock::WallTime;
use events::{Event, EventDetail, EventEnd, EventLog, EventSource, EventVerdict, FlowEvent, FlowNat, RingLimits};
use hickory_proto::rr::RecordType;
use hubble::ObservedNode;
use namegate_integration::browser::{Browser, find_browser};
use namegate_integration::{Scenario, SetOnDrop, ip};
use netns::Namespace;
use policy::Direction;

use super::plan;

const PAGES: [&str; 5] = ["/", "/web/names", "/web/policies", "/web/suggestion", "/web/agent"];

fn url(path: &str) -> String {
    format!("http://127.0.0.1:9464{path}")
}

/// An expression that says whether the table of events has this text.
fn shows(text: &str) -> String {
    format!("document.querySelector('#events tbody').innerText.includes({text:?})")
}

/// An answer to a request with this name of a host.
fn answer(scenario: &Scenario, path: &str, host: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect("127.0.0.1:9464").unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    scenario.lab().node().run(ask).unwrap()
}

#[test]
fn the_pages_show_what_happens_live_and_what_is_in_force() {
    let Some(program) = find_browser() else { return };
    let scenario = plan()
        .flags("--web")
        .allow(0, &["a.example", "*.unused.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    scenario.wait_until("packets are recorded", || {
        scenario.installation().status().unwrap().records.on
    });
    scenario.learn(0, "a.example");
    scenario.ask(0, "before.test", RecordType::A);

    let mut browser = Browser::start(&program, scenario.lab().node());
    browser.open(&url("/"));
    browser.wait("what is remembered is shown", &shows("before.test"));
    browser.wait(
        "the page is live",
        "document.querySelector('#state').textContent === 'Live.'",
    );
    scenario.ask(0, "live.test", RecordType::A);
    browser.wait("a refused lookup is shown", &shows("live.test"));
    let first = "document.querySelector('#events tbody tr').innerText.includes('live.test')";
    assert_eq!(browser.evaluate(first), true, "the latest stands first");
    // What is allowed is recorded because the page watches.
    scenario.wait_until("an allowed flow is shown", || {
        let a = scenario.learn(0, "a.example");
        assert!(scenario.connect(0, a).is_connected());
        browser.evaluate("document.querySelector('#events tr.allowed td:nth-child(2)') !== null") == true
    });

    // A filter, by the form.
    browser.evaluate(
        "document.querySelector('[name=type]').value = 'flow'; \
         document.querySelector('[name=verdict]').value = 'refused'; document.querySelector('form').submit()",
    );
    browser.wait(
        "the filter is applied",
        "location.search.includes('type=flow') && document.readyState === 'complete'",
    );
    browser.wait(
        "the page is live",
        "document.querySelector('#state').textContent === 'Live.'",
    );
    scenario.ask(0, "filtered.test", RecordType::A);
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());
    browser.wait("the refused flow is shown", &shows("198.51.100.2:443"));
    for other in ["filtered.test", "before.test", "allowed"] {
        assert_eq!(browser.evaluate(&shows(other)), false, "{other}");
    }

    // What other pages show.
    let text_of = |browser: &mut Browser, path: &str| {
        browser.open(&url(path));
        browser.evaluate("document.body.innerText").as_str().unwrap().to_owned()
    };
    let names = text_of(&mut browser, "/web/names?q=a.example");
    assert!(names.contains("shop/pod0") && names.contains("198.51.100.1"), "{names}");
    let pods = text_of(&mut browser, "/web/names?by=pods&q=pod0");
    assert!(pods.contains("a.example"), "{pods}");
    let policies = text_of(&mut browser, "/web/policies");
    assert!(
        policies.contains("shop/allow-pod0") && policies.contains("1 names"),
        "{policies}"
    );
    let rules = scenario
        .installation()
        .inspect("status", &["--rules", "-o", "json"])
        .unwrap();
    let rules: Vec<RuleRow> = serde_json::from_slice(&rules.stdout).unwrap();
    let known: Vec<_> = rules
        .iter()
        .map(|row| (row.policy.as_str(), row.names, row.is_unused()))
        .collect();
    assert_eq!(known, [("shop/allow-pod0", 1, false)]);
    let suggestion = text_of(&mut browser, "/web/suggestion?pod=shop/pod0&from=refused");
    assert!(suggestion.contains("matchName: \"live.test\""), "{suggestion}");
    let agent = text_of(&mut browser, "/web/agent");
    assert!(agent.contains("Nothing is wrong."), "{agent}");

    // Narrow and in the dark.
    browser.set_width(400);
    browser.set_dark();
    for page in PAGES {
        browser.open(&url(page));
        let width = browser
            .evaluate("document.documentElement.scrollWidth")
            .as_u64()
            .unwrap();
        assert!(width <= 400, "{page} is {width} pixels wide");
        let colours = browser.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color] \
             .map(colour => Math.max(...colour.match(/\\d+/g).map(Number)))",
        );
        let [ground, text] = [0, 1].map(|at| colours[at].as_u64().unwrap());
        assert!(ground < 64 && text > 192, "{page}: {colours}");
    }

    // Nothing inside a page runs, and no script of elsewhere.
    browser.open(&url("/"));
    let injected = "{ const script = document.createElement('script'); script.textContent = 'window.ran = true'; \
         document.body.append(script); window.ran === undefined }";
    assert_eq!(browser.evaluate(injected), true);
}

#[test]
fn the_pages_are_for_those_who_ask_by_address_and_only_with_web() {
    let scenario = plan().flags("--web").allow(0, &["a.example"]).start();
    for page in PAGES.into_iter().chain(["/web/style.css", "/web/live.js"]) {
        let own = answer(&scenario, page, "localhost:9464");
        assert!(own.starts_with("HTTP/1.1 200"), "{page}: {own}");
        assert!(
            own.contains("content-security-policy: default-src 'none';"),
            "{page}: {own}"
        );
        // As a browser asks that was told another address of the name.
        let rebound = answer(&scenario, page, "evil.example:9464");
        assert!(
            rebound.starts_with("HTTP/1.1 421") && !rebound.contains("shop/pod0"),
            "{page}: {rebound}"
        );
    }
    let wrong = answer(&scenario, "/?pod=web", "127.0.0.1:9464");
    assert!(
        wrong.starts_with("HTTP/1.1 400") && wrong.contains("as in shop/web"),
        "{wrong}"
    );
    // Machines are served as ever.
    assert!(answer(&scenario, "/metrics", "evil.example").contains("namegate_ledger_names"));

    let without = plan().allow(0, &["a.example"]).start();
    assert!(answer(&without, "/", "localhost").contains("/metrics"));
    assert!(answer(&without, "/web/names", "localhost").starts_with("HTTP/1.1 404"));
}

/// An agent of a node where a great many things happen.
struct LoudNode {
    log: Arc<EventLog>,
}

impl Inspect for LoudNode {
    fn status(&self) -> AgentStatus {
        examples::status(None)
    }

    fn names(&self) -> Vec<NameRow> {
        Vec::new()
    }

    fn answered(&self) -> Vec<AnsweredNameRow> {
        Vec::new()
    }

    fn rules(&self) -> Vec<RuleRow> {
        Vec::new()
    }

    fn records(&self) -> Records {
        examples::records()
    }

    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    fn explain(&self, _: &ExplainRequest) -> Result<ExplainAnswer, String> {
        Err("nobody asks".into())
    }

    fn suggestion(&self, _: &SuggestionRequest) -> Result<SuggestionAnswer, String> {
        Err("nobody asks".into())
    }

    fn events(&self) -> Arc<EventLog> {
        Arc::clone(&self.log)
    }

    fn event_row(&self, number: u64, event: &Event) -> EventRow {
        let destination = event.destination.as_ref();
        EventRow {
            time: "2026-11-30T12:00:00.123Z".into(),
            sequence: number,
            kind: event.detail.kind().as_str().into(),
            verdict: event.verdict.as_str().into(),
            destination: destination.map(|end| EventEndRow {
                address: end.address,
                port: end.port,
                ..EventEndRow::default()
            }),
            policies: event.policies.clone(),
            ..EventRow::default()
        }
    }

    fn node(&self) -> String {
        "loud".into()
    }

    fn observed_node(&self) -> ObservedNode {
        ObservedNode::default()
    }

    fn policy_kind(&self, _: &str) -> Option<String> {
        None
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }
}

fn loud_event(port: u16) -> Event {
    Event {
        at: WallTime::from_millis(0),
        verdict: EventVerdict::Refused,
        direction: Some(Direction::Egress),
        source: None,
        destination: Some(EventEnd {
            address: Some(ip("198.51.100.2")),
            port: Some(port),
            ..EventEnd::default()
        }),
        policies: vec!["shop/web-egress".into()],
        rule: None,
        detail: EventDetail::Flow(FlowEvent {
            protocol: 6,
            icmp_type: None,
            nat: FlowNat::default(),
            totals: None,
        }),
    }
}

/// Ten thousand events a second, for as long as it takes to look.
#[test]
fn a_flood_of_events_does_not_freeze_the_page() {
    let Some(program) = find_browser() else { return };
    let log = Arc::new(EventLog::new(RingLimits {
        per_source: 16_384,
        rate: None,
        ..RingLimits::default()
    }));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = LoudNode { log: Arc::clone(&log) };
    let server = runtime.block_on(async {
        let address = "127.0.0.1:0".parse().unwrap();
        let audience = HttpAudience::MachinesAndPeople;
        HttpServer::start(address, audience, Arc::new(node), Arc::new(Metrics::new()), None).unwrap()
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let _end = SetOnDrop(&stop);
        threads.spawn(|| {
            let began = Instant::now();
            let mut recorded = 0;
            while !stop.load(Ordering::Relaxed) {
                let due = began.elapsed().as_millis() * 10;
                while recorded < due {
                    log.record(EventSource::Others, loud_event((recorded % 60_000) as u16));
                    recorded += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut browser = Browser::start(&program, &Namespace::current().unwrap());
        browser.open(&format!("http://{}/", server.address()));
        let seen = "Number((document.querySelector('#count').textContent.match(/^\\d+/) || [0])[0])";
        browser.wait("50,000 events have come", &format!("{seen} > 50000"));
        // It draws, and it listens.
        let began = Instant::now();
        let longest = browser.evaluate(
            "new Promise(done => { let last = performance.now(), longest = 0, frames = 0; \
             const frame = now => { longest = Math.max(longest, now - last); last = now; \
             if (++frames < 60) requestAnimationFrame(frame); else done(longest); }; requestAnimationFrame(frame); })",
        );
        let longest = Duration::from_secs_f64(longest.as_f64().unwrap() / 1_000.0);
        eprintln!("60 frames took {:?}, the longest {longest:?}", began.elapsed());
        // On a busy machine a page without events takes tenths of a second for one, too.
        patience::assert_took("a frame", longest, Duration::from_secs(5));
        assert_eq!(
            browser.evaluate("document.querySelectorAll('#events tbody tr').length"),
            200
        );
        browser.evaluate("document.querySelector('#pause').click()");
        let then = browser.evaluate(seen);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(browser.evaluate(seen), then, "it is paused");
    });
}
