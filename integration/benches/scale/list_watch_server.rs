//! A server that speaks what an agent speaks with an API server: streaming lists and watches in
//! JSON, over HTTP/1.1. The real one takes gigabytes and minutes for 150,000 pods, and here only
//! the agent is measured.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use netns::Namespace;
use serde_json::{Value, json};

use crate::objects::THIS_NODE;

/// The objects of one kind, each made when it is told.
pub(crate) type Listed = Box<dyn Iterator<Item = Value>>;

/// A server with the objects of one cluster. It ends with the process.
pub(crate) struct ListWatchServer {
    address: SocketAddr,
    shared: Arc<SharedObjects>,
}

struct SharedObjects {
    /// Those of a path's plural.
    objects: Box<dyn Fn(&str) -> Listed + Send + Sync>,
    /// The watches of other nodes' pods.
    watchers: Mutex<Vec<Sender<String>>>,
}

impl ListWatchServer {
    /// A server in a network namespace. `objects` gives those of a path's plural: `pods`.
    pub(crate) fn start(
        namespace: &Namespace,
        objects: impl Fn(&str) -> Listed + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:6443"))??;
        let address = listener.local_addr()?;
        let shared = Arc::new(SharedObjects {
            objects: Box::new(objects),
            watchers: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // A client that has gone away is no failure.
                thread::spawn(move || drop(shared.serve(&stream)));
            }
        });
        Ok(Self { address, shared })
    }

    /// A kubeconfig for it.
    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": server}}],
            "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        })
        .to_string()
    }

    /// Tells the watches of other nodes' pods that one has changed.
    pub(crate) fn modify(&self, pod: &Value) {
        let line = event("MODIFIED", pod);
        let mut watchers = self.shared.watchers.lock().unwrap();
        watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}

impl SharedObjects {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut request = String::new();
            if reader.read_line(&mut request)? == 0 {
                return Ok(());
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                if header.trim().is_empty() {
                    break;
                }
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
            }
            io::copy(&mut io::Read::take(&mut reader, length), &mut io::sink())?;
            let target = request.split(' ').nth(1).unwrap_or_default();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let plural = path.rsplit('/').next().unwrap_or_default();
            if !query.contains("watch=true") {
                let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}).to_string();
                write!(
                    &mut &*stream,
                    "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )?;
                continue;
            }
            return self.watch(stream, plural, query);
        }
    }

    fn watch(&self, stream: &TcpStream, plural: &str, query: &str) -> io::Result<()> {
        let of_others = query.contains("nodeName%21%3D") || query.contains("nodeName!=");
        let mut out = BufWriter::with_capacity(1 << 16, stream);
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let (sender, events): (Sender<String>, Receiver<String>) = channel();
        if of_others {
            self.watchers.lock().unwrap().push(sender.clone());
        }
        for object in (self.objects)(plural) {
            let is_local = object["spec"]["nodeName"] == THIS_NODE;
            if plural != "pods" || is_local != of_others {
                chunk(&mut out, &event("ADDED", &object))?;
            }
        }
        // Of a bookmark nobody asks the kind, but it has one.
        let end = json!({
            "apiVersion": "v1", "kind": plural,
            "metadata": {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}},
        });
        chunk(&mut out, &event("BOOKMARK", &end))?;
        out.flush()?;
        // Others have nothing to tell, and their connections stay.
        let _sender = (!of_others).then_some(sender);
        while let Ok(line) = events.recv() {
            chunk(&mut out, &line)?;
            for more in events.try_iter() {
                chunk(&mut out, &more)?;
            }
            out.flush()?;
        }
        Ok(())
    }
}

fn event(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn chunk(out: &mut impl Write, line: &str) -> io::Result<()> {
    write!(out, "{:x}\r\n{line}\r\n", line.len())
}
