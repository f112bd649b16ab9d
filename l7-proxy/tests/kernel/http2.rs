//! HTTP/2 with prior knowledge, asked by curl.

use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};

use super::lab::{Lab, LabJudge, OUTSIDE};

/// An origin of HTTP/2: says who asks and for what, and how long the body was.
fn http2_origin(stream: TcpStream) {
    let peer = stream.peer_addr().unwrap();
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        // A body is read while the connection is driven, so each request has a task of its own.
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::task::spawn_local(async move {
                        let line = format!("{} {}", request.method(), request.uri().path());
                        let (mut body, mut length) = (request.into_body(), 0);
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            length += data.len();
                        }
                        let said = Bytes::from(format!("{line} from {peer} with {length}"));
                        if let Ok(mut send) = respond.send_response(Response::new(()), false) {
                            let _ = send.send_data(said, true);
                        }
                    });
                }
            })
            .await;
    });
}

#[test]
fn each_request_of_a_connection_is_judged() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http2_origin);
    // One connection each: curl 7.88 cannot ask again on one that it has by prior knowledge.
    for (address, client) in [("198.51.100.7", "10.71.0.2:"), ("[fd98::7]", "[fd71::2]:")] {
        let ask = |path: &str| lab.curl(&["--http2-prior-knowledge", &format!("http://{address}{path}")]);
        let allowed = ask("/allowed/1");
        assert!(
            allowed.starts_with(&format!("GET /allowed/1 from {client}")),
            "{allowed}"
        );
        assert_eq!(ask("/secret"), "Access denied\r\n 403");
    }
}

#[test]
fn many_connections_at_once_are_judged() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http2_origin);
    let said = lab.curl(&[
        "--http2-prior-knowledge",
        "--parallel",
        "--parallel-immediate",
        "http://198.51.100.7/allowed/[1-20]",
        "http://198.51.100.7/secret/[1-20]",
    ]);
    assert_eq!(said.matches(" 200").count(), 20, "{said}");
    assert_eq!(said.matches(" 403").count(), 20, "{said}");
}

#[test]
fn streams_of_one_connection_are_judged_beside_each_other() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http2_origin);
    let stream = lab.connect(OUTSIDE[0], 80).unwrap();
    let port = stream.local_addr().unwrap().port();
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let answers = tokio::task::LocalSet::new().block_on(&runtime, async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(connection);
        let mut requests = requests.ready().await.unwrap();
        let asked: Vec<_> = (0..40)
            .map(|number| {
                let path = ["allowed", "secret"][number % 2];
                let request = Request::get(format!("http://a/{path}/{number}")).body(()).unwrap();
                requests.send_request(request, true).unwrap().0
            })
            .collect();
        let mut answers = Vec::new();
        for response in asked {
            let response = response.await.unwrap();
            let (status, mut body, mut text) = (response.status().as_u16(), response.into_body(), Vec::new());
            while let Some(Ok(data)) = body.data().await {
                text.extend_from_slice(&data);
            }
            answers.push((status, String::from_utf8(text).unwrap()));
        }
        answers
    });
    let client = format!("from 10.71.0.2:{port} ");
    for (number, (status, text)) in answers.into_iter().enumerate() {
        match number % 2 {
            0 => assert!(status == 200 && text.contains(&client), "{status} {text}"),
            _ => assert_eq!((status, text.trim_end()), (403, "Access denied")),
        }
    }
}

#[test]
fn bodies_pass_with_their_windows() {
    let Some(lab) = Lab::new() else { return };
    let judge = Arc::new(LabJudge::default());
    let _proxy = lab.proxy(&judge);
    lab.serve(80, http2_origin);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("body");
    std::fs::write(&file, vec![b'x'; 5_000_000]).unwrap();
    let body = format!("@{}", file.display());
    let said = lab.curl(&[
        "--http2-prior-knowledge",
        "--data-binary",
        &body,
        "http://198.51.100.7/allowed",
    ]);
    assert!(said.contains("with 5000000") && said.ends_with(" 200"), "{said}");
}
