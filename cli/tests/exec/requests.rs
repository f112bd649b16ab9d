//! Requests that are allowed one by one, in TLS that ends at the sandbox: `--inspect`.

use std::fs;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::outside::OutsideServer;
use super::{Host, stderr, stdout};

/// Two names on one address over TLS, and one of them in clear.
const SERVER: &str = r#"
import http.server, ssl, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        said = f"{self.command} {self.headers['Host']}{self.path} {len(body)}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    do_GET = do_POST = do_DELETE = answer
    def log_message(self, *_):
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
for port in [80, 443]:
    server = http.server.ThreadingHTTPServer(("203.0.112.80", port), Handler)
    if port == 443:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()
print("ready", flush=True)
"#;

struct Scene {
    host: Host,
    _server: OutsideServer,
}

impl Scene {
    /// The server shows a certificate for these names, by an authority that the host trusts.
    fn new(names: &[&str]) -> Self {
        let mut host = Host::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        host.file("trusted.pem", &authority.as_ref().pem());
        host.file("server.pem", &certificate.pem());
        host.file("server.key", &key.serialize_pem());
        host.lab
            .resolver()
            .set(&["api.example 60 A 203.0.112.80", "other.example 60 A 203.0.112.80"])
            .unwrap();
        let server = OutsideServer::start(&host, SERVER);
        host.links = host.lab.node().links().unwrap();
        Self { host, _server: server }
    }

    fn exec(&self, flags: &[&str], script: &str) -> Output {
        let trusted = self.host.folder.path().join("trusted.pem");
        let mut command = self.host.command(&[flags, &["--", "sh", "-c", script]].concat());
        command.env("SSL_CERT_FILE", trusted).output().unwrap()
    }
}

/// What curl says of a URL: the body, or its own exit code.
const ASK: &str = "ask() { curl -sS --max-time 10 \"$@\" || echo \"curl: $?\"; }\n";

#[test]
fn requests_in_tls_are_allowed_one_by_one() {
    let scene = Scene::new(&["api.example", "other.example"]);
    let script = format!(
        "{ASK}
         ask https://api.example/repos/a/b
         ask https://api.example/repos/a/b -d body
         ask https://api.example/users
         ask https://api.example/repos/a/b?page=2 https://api.example/users https://api.example/repos/c
         ask --connect-to other.example:443:api.example:443 https://other.example/repos/a
         ask --connect-to other.example:443:api.example:443 https://other.example/repos/a -k
         ask -H 'Host: other.example' https://api.example/repos/a"
    );
    let output = scene.exec(
        &[
            "--inspect",
            "--report",
            "refused.json",
            "--allow",
            "GET https://api.example/repos/**",
        ],
        &script,
    );
    let lines: Vec<String> = stdout(&output).lines().map(|line| line.trim_end().to_owned()).collect();
    assert_eq!(
        lines,
        [
            "GET api.example/repos/a/b 0",
            "Access denied",
            "Access denied",
            "GET api.example/repos/a/b?page=2 0",
            "Access denied",
            "GET api.example/repos/c 0",
            // 35: no TLS with another name that lives on the same address.
            "curl: 35",
            "curl: 35",
            "The request is for another host than the connection",
        ],
        "{output:?}"
    );
    assert!(
        stderr(&output).contains(
            "refused: POST https://api.example/repos/a/b; to allow it: --allow 'POST https://api.example/repos/a/b'"
        ),
        "{output:?}"
    );
    let report = fs::read_to_string(scene.host.folder.path().join("refused.json")).unwrap();
    assert!(report.contains("\"url\": \"https://api.example/users\""), "{report}");
    scene.host.assert_untouched();
}

#[test]
fn clients_of_several_languages_trust_the_authority_of_the_run() {
    let scene = Scene::new(&["api.example"]);
    let mut clients = vec![
        (
            "python3",
            "python3 -c 'import urllib.request as r; print(r.urlopen(\"https://api.example/a\").read().decode().strip())'",
        ),
        (
            "openssl",
            "printf 'GET /a HTTP/1.1\\r\\nHost: api.example\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error -servername api.example -connect api.example:443 2>/dev/null | tail -1",
        ),
        (
            "node",
            "node -e 'require(\"https\").get(\"https://api.example/a\", r => r.on(\"data\", d => process.stdout.write(d)))'",
        ),
        (
            "git",
            "GIT_CURL_VERBOSE=1 git ls-remote https://api.example/a 2>&1 | grep -o '200 OK' | head -1 | sed 's/.*/GET api.example\\/a 0/'",
        ),
    ];
    clients.retain(|(program, _)| Command::new(program).arg("--version").output().is_ok());
    for (program, command) in clients {
        let output = scene.exec(&["--inspect", "--allow", "https://api.example"], command);
        assert_eq!(
            stdout(&output).trim_end(),
            "GET api.example/a 0",
            "{program}: {output:?}"
        );
    }
}

#[test]
fn a_server_with_another_certificate_is_not_reached() {
    let scene = Scene::new(&["elsewhere.example"]);
    let output = scene.exec(
        &["--inspect", "--allow", "https://api.example"],
        "curl -sS --max-time 10 -o /dev/null -w '%{http_code}' https://api.example/a",
    );
    assert_eq!(stdout(&output), "502", "{output:?}");
}

#[test]
fn names_without_a_url_keep_their_own_tls_and_http_is_read_without_the_flag() {
    let scene = Scene::new(&["api.example", "other.example"]);
    let trusted = scene.host.folder.path().join("trusted.pem");
    let script = format!(
        "{ASK}
         ask --cacert {trusted} https://other.example/any
         ask http://api.example/users/7
         ask http://api.example/admin",
        trusted = trusted.display()
    );
    let flags = [
        "--allow",
        "other.example:443",
        "--allow",
        "GET http://api.example/users/*",
    ];
    let output = scene.exec(&flags, &script);
    let lines: Vec<String> = stdout(&output).lines().map(|line| line.trim_end().to_owned()).collect();
    assert_eq!(
        lines,
        ["GET other.example/any 0", "GET api.example/users/7 0", "Access denied"],
        "{output:?}"
    );
    let without = scene.exec(&["--allow", "https://api.example"], "echo ran");
    assert_eq!((without.status.code(), stdout(&without).as_str()), (Some(2), ""));
    assert!(stderr(&without).contains("add --inspect"), "{without:?}");
}
