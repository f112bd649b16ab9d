//! A new agent beside the old one, which then ends: no connection that is looked into notices.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lab::process::succeed;
use namegate_integration::{Scenario, SetOnDrop, ip};
use netns::Namespace;

use super::plan;

const SERVER: &str = "198.51.100.7";
const PORT: u16 = 9090;
/// How many octets a transfer has, of which ten come at once.
const TRANSFER: usize = 400;
const PAUSE: Duration = Duration::from_millis(50);

/// Answers `/transfer` slowly, `/forever` without an end, and everything else at once, until the
/// test's process ends.
fn serve(at: &Namespace) {
    let listener = at.run(|| TcpListener::bind((ip("0.0.0.0"), PORT)).unwrap()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut field = String::new();
        while reader.read_line(&mut field)? > 2 {
            field.clear();
        }
        let octets = match request.split(' ').nth(1) {
            Some("/transfer") => TRANSFER,
            Some("/forever") => TRANSFER * 1000,
            _ => 0,
        };
        if octets == 0 {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            continue;
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {octets}\r\n\r\n")?;
        for _ in 0..octets / 10 {
            stream.write_all(&[b'x'; 10])?;
            thread::sleep(PAUSE);
        }
    }
}

/// A client that keeps its connection as long as the other side does.
struct KeepAlive {
    from: Namespace,
    connection: Option<BufReader<TcpStream>>,
    connects: u32,
}

impl KeepAlive {
    fn new(from: &Namespace) -> Self {
        Self {
            from: from.clone(),
            connection: None,
            connects: 0,
        }
    }

    /// The status and the length of the body.
    fn get(&mut self, path: &str) -> io::Result<(u16, usize)> {
        let mut reader = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.connects += 1;
                let to = SocketAddr::new(ip(SERVER), PORT);
                BufReader::new(self.from.run(|| TcpStream::connect(to))??)
            }
        };
        let limit = patience::scaled(Duration::from_secs(20));
        reader.get_ref().set_read_timeout(Some(limit))?;
        write!(reader.get_mut(), "GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")?;
        let (mut status, mut length, mut ends) = (None, 0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
                Some(("connection", value)) => ends = value == "close",
                Some(_) => {}
                None => status = line.split(' ').nth(1).and_then(|status| status.parse().ok()),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if !ends {
            self.connection = Some(reader);
        }
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, length))
    }
}

fn allow(paths: &[&str]) -> String {
    let rules: Vec<String> = paths.iter().map(|path| format!("{{path: '{path}'}}")).collect();
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  \
         endpointSelector: {{}}\n  egress:\n  - toCIDR: [{SERVER}/32]\n    \
         toPorts: [{{ports: [{{port: '{PORT}', protocol: TCP}}], rules: {{http: [{}]}}}}]\n",
        rules.join(", ")
    )
}

fn inspecting(paths: &[&str]) -> Scenario {
    let scenario = plan()
        .flags("--inspect on --inspect-drain 60s")
        .object("p.yaml", allow(paths))
        .build();
    serve(scenario.lab().internet().namespace());
    let mut scenario = scenario;
    scenario.start();
    scenario
}

#[test]
fn no_connection_is_lost_while_agents_follow_each_other() {
    let mut scenario = inspecting(&["/", "/transfer"]);
    let pods = [0, 1].map(|pod| scenario.pod(pod).namespace().clone());
    let over = AtomicBool::new(false);
    let (answered, connects) = (AtomicU32::new(0), AtomicU32::new(0));
    let lost = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (over, answered, connects, lost) = (&over, &answered, &connects, &lost);
        for pod in &pods {
            // One that keeps its connection, one that makes a new one each time.
            for keeps in [true, false] {
                scope.spawn(move || {
                    let mut client = KeepAlive::new(pod);
                    while !over.load(Ordering::Relaxed) {
                        match client.get("/") {
                            Ok((200, 2)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            other => lost.lock().unwrap().push(format!("keeps {keeps}: {other:?}")),
                        }
                        if !keeps {
                            client.connection = None;
                        }
                    }
                    if keeps {
                        connects.fetch_add(client.connects, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match KeepAlive::new(pod).get("/transfer") {
                        Ok((200, TRANSFER)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        other => lost.lock().unwrap().push(format!("transfer: {other:?}")),
                    }
                }
            });
        }
        let _end = SetOnDrop(over);
        for _ in 0..3 {
            scenario.upgrade();
        }
    });
    let lost = lost.into_inner().unwrap();
    let answered = answered.into_inner();
    assert!(lost.is_empty(), "{} of {answered}: {lost:?}", lost.len());
    assert!(
        connects.into_inner() >= 4,
        "the old agents' clients come to the new ones"
    );
}

#[test]
fn an_agent_that_is_followed_judges_what_it_still_has_by_the_policies_of_now() {
    let mut scenario = inspecting(&["/forever", "/"]);
    let pod = scenario.pod(0).namespace().clone();
    let transfer = thread::spawn(move || KeepAlive::new(&pod).get("/forever"));
    let open = || scenario.agent().metric("namegate_inspected_connections").unwrap();
    scenario.wait_until("the transfer has begun", || open() > 0.0);

    scenario.add_flags("--take-over");
    let mut new = scenario.start_second();
    new.wait_ready().unwrap();
    let old = scenario.agent().pid().to_string();
    succeed(Command::new("kill").args(["-TERM", &old])).unwrap();
    let has_said = |what| scenario.log().iter().any(|line| line.contains(what));
    scenario.wait_until("the old agent leaves", || has_said("go on until they end"));
    assert!(!transfer.is_finished());
    scenario.write("p.yaml", &allow(&["/"]));
    scenario.wait_until("the edit ends the transfer", || transfer.is_finished());
    assert!(transfer.join().unwrap().is_err());
    assert!(!has_said("--inspect-drain is over"));
    scenario.terminate();
    assert_eq!(KeepAlive::new(scenario.pod(0).namespace()).get("/").unwrap(), (200, 2));
}
