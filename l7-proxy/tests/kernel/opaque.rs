//! TLS with real clients, and what passes unread.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::lab::{Lab, LabJudge, OUTSIDE, echo};

/// What a client of OpenSSL sends first, for `allowed.example`.
fn hello(name: &str) -> Vec<u8> {
    let mut list = vec![0];
    push(&mut list, name.as_bytes());
    let mut extension = Vec::new();
    push(&mut extension, &list);
    let mut extensions = vec![0, 0];
    push(&mut extensions, &extension);
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    push(&mut body, &extensions);
    let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    message[0] = 1;
    message.extend(body);
    let mut record = vec![22, 3, 1];
    push(&mut record, &message);
    record
}

fn push(to: &mut Vec<u8>, content: &[u8]) {
    to.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
    to.extend(content);
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn openssl_reaches_the_name_that_is_allowed_and_no_other() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    let place = std::env::temp_dir().join(format!("l7-tls-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let file = |name: &str| place.join(name).display().to_string();
    let made = lab.in_pod(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=allowed.example",
            "-keyout",
            &file("key"),
            "-out",
            &file("cert"),
        ],
    );
    assert!(made.status.success(), "{made:?}");
    let server = lab
        .outside
        .command("openssl")
        .args([
            "s_server",
            "-accept",
            "443",
            "-www",
            "-quiet",
            "-key",
            &file("key"),
            "-cert",
            &file("cert"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _server = KilledOnDrop(server);
    let connects = |name: &str, address: &str| {
        let name = match name {
            "" => vec!["-noservername"],
            name => vec!["-servername", name],
        };
        let to = match address.contains(':') {
            true => format!("[{address}]:443"),
            false => format!("{address}:443"),
        };
        let output = lab.in_pod("openssl", &[&["s_client", "-connect", &to], &name[..]].concat());
        String::from_utf8_lossy(&output.stdout).contains("CN = allowed.example")
    };
    let starts = patience::wait(Duration::from_secs(10), Duration::from_millis(50), || {
        connects("allowed.example", OUTSIDE[0])
    });
    assert!(starts.is_some(), "{:?}", judge.events.lock().unwrap());
    assert!(connects("allowed.example", OUTSIDE[1]));
    for address in OUTSIDE {
        assert!(!connects("other.example", address));
        assert!(!connects("", address));
    }
    // HTTP/1.1 over TLS, many octets, by another client.
    let got = lab.curl(&[
        "-k",
        "--resolve",
        "allowed.example:443:198.51.100.7",
        "https://allowed.example/",
    ]);
    assert!(got.ends_with(" 200"), "{got}");
    let got = lab.curl(&[
        "-k",
        "--resolve",
        "other.example:443:198.51.100.7",
        "https://other.example/",
    ]);
    assert!(got.contains("reset") || got.contains("SSL"), "{got}");
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn megabytes_pass_both_ways_at_once_and_each_end_by_itself() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(443, echo);
    for address in OUTSIDE {
        let mut client = lab.connect(address, 443).unwrap();
        let first = hello("allowed.example");
        // Octet by octet.
        client.set_nodelay(true).unwrap();
        for octet in &first {
            client.write_all(&[*octet]).unwrap();
        }
        let sent: Vec<u8> = (0..30_000_000_u32)
            .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut writer = client.try_clone().unwrap();
        let to_send = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&to_send).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut came = Vec::new();
        client.read_to_end(&mut came).unwrap();
        writing.join().unwrap();
        assert_eq!(came.len(), first.len() + sent.len());
        assert!(came.starts_with(&first) && came.ends_with(&sent));
    }
    judge.noted(&format!("to_server: {}", hello("allowed.example").len() + 30_000_000));
}

#[test]
fn a_reset_is_passed_on_in_both_directions() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    // Ends with octets unread, which is a reset.
    lab.serve(443, |mut stream: TcpStream| {
        let mut one = [0];
        let _ = stream.read(&mut one);
        thread::sleep(Duration::from_millis(50));
    });
    let mut client = lab.connect(OUTSIDE[0], 443).unwrap();
    client.write_all(&hello("allowed.example")).unwrap();
    let error = client.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // A server that is not there.
    drop(client);
    let lab = Lab::new().unwrap();
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    let mut client = lab.connect(OUTSIDE[0], 443).unwrap();
    client.write_all(&hello("allowed.example")).unwrap();
    let error = client.read(&mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

pub(super) fn open_tunnel(lab: &Lab) -> TcpStream {
    let mut client = lab.connect(OUTSIDE[0], 443).unwrap();
    let hello = hello("allowed.example");
    client.write_all(&hello).unwrap();
    client.read_exact(&mut vec![0; hello.len()]).unwrap();
    client
}
