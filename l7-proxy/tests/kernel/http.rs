//! HTTP with real clients.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use super::lab::{Lab, LabJudge, OUTSIDE, http_origin};

#[test]
fn curl_sees_what_policy_says_and_the_server_sees_curl() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http_origin);
    for (host, pod, port) in [
        ("198.51.100.7", "10.71.0.2:40001", "40001"),
        ("[fd98::7]", "[fd71::2]:40002", "40002"),
    ] {
        let url = |path: &str| format!("http://{host}{path}");
        // The client's own address and port.
        let got = lab.curl(&["--local-port", port, &url("/allowed/a?b")]);
        assert_eq!(got, format!("GET /allowed/a?b HTTP/1.1 from {pod} with 0 200"));
        assert_eq!(lab.curl(&[&url("/secret")]), "Access denied\r\n 403");
        assert_eq!(
            lab.curl(&["--path-as-is", &url("/allowed/../secret")]),
            "Access denied\r\n 403"
        );
        // Of three requests on one connection the second is denied.
        let got = lab.curl(&["-o", "-", &url("/allowed/1"), &url("/secret"), &url("/allowed/2")]);
        let ports: Vec<&str> = got
            .split(" from ")
            .skip(1)
            .map(|rest| rest.split(" with").next().unwrap())
            .collect();
        assert_eq!(got.matches("403").count(), 1, "{got}");
        assert!(ports.len() == 2 && ports[0] == ports[1], "{got}");
    }
}

#[test]
fn bodies_pass_in_both_directions() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http_origin);
    let file = std::env::temp_dir().join(format!("l7-body-{}", std::process::id()));
    std::fs::write(&file, vec![b'y'; 10_000_000]).unwrap();
    let body = format!("@{}", file.display());
    let url = "http://198.51.100.7/allowed/up";
    // curl asks for 100 Continue.
    assert!(
        lab.curl(&["-H", "Expect: 100-continue", "--data-binary", &body, url])
            .ends_with(" with 10000000 200")
    );
    let chunked = lab.curl(&["-H", "Transfer-Encoding: chunked", "--data-binary", &body, url]);
    let octets: usize = chunked
        .rsplit("with ")
        .next()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(octets > 10_000_000 && chunked.ends_with(" 200"), "{chunked}");
    // A denied upload is answered, and not reset.
    assert_eq!(
        lab.curl(&["--data-binary", &body, "http://198.51.100.7/secret"]),
        "Access denied\r\n 403"
    );
    std::fs::remove_file(&file).unwrap();
    let got = lab.curl(&["http://198.51.100.7/allowed/large"]);
    assert_eq!(got.len(), 20_000_000 + " 200".len());
}

#[test]
fn pythons_client_keeps_its_connection() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http_origin);
    let script = "
import http.client
c = http.client.HTTPConnection('198.51.100.7', timeout=30)
seen = []
for path in ['/allowed/1', '/secret', '/allowed/2', '/allowed/large']:
    c.request('POST' if path.endswith('2') else 'GET', path, body=b'abc' if path.endswith('2') else None)
    r = c.getresponse(); seen.append((r.status, len(r.read())))
print(seen[0][0], seen[1], seen[2][0], seen[3])
";
    let output = lab.in_pod("python3", &["-c", script]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "200 (403, 15) 200 (200, 20000000)\n",
        "{output:?}"
    );
}

#[test]
fn a_websocket_is_opaque_behind_its_101() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http_origin);
    let mut client = lab.connect(OUTSIDE[0], 80).unwrap();
    client
        .write_all(b"GET /allowed HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    let mut head = [0; 4096];
    let mut came = 0;
    while !head[..came].ends_with(b"\r\n\r\n") {
        came += client.read(&mut head[came..]).unwrap();
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    // No HTTP at all.
    client.write_all(b"\x81\x05hello\n\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x81\x05hello\n\n");
}

#[test]
fn a_server_that_is_down_is_a_502() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    let got = lab.curl(&["http://198.51.100.7/allowed"]);
    assert!(got.ends_with(" 502"), "{got}");
    judge.noted("DialFailed(Refused)");
}
