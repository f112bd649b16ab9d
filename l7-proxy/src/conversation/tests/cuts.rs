//! Whatever a client sends, and however it is cut into segments: the same is judged, and the same
//! leaves.

use proptest::prelude::*;

use super::talk::Talk;

/// Pieces of requests, well-formed and not.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET /allowed HTTP/1.1\r\n",
        "GET /secret HTTP/1.1\r\n",
        "POST /allowed/x?y HTTP/1.1\r\n",
        "GET /allowed HTTP/1.0\r\n",
        "HEAD /allowed/../secret HTTP/1.1\r\n",
        "CONNECT a:1 HTTP/1.1\r\n",
        "Host: a\r\n",
        "Host: a:1\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "X: y\r\n",
        "\r\n",
        "\n",
        "\r",
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        " ",
        "\0",
    ])
}

/// A whole request that is well-formed more often than not.
fn request() -> impl Strategy<Value = String> {
    let noise = prop::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat());
    let formed = (
        prop::sample::select(vec![
            "GET /allowed",
            "POST /allowed/1",
            "POST /secret",
            "HEAD /%61llowed",
        ]),
        prop::sample::select(vec![
            "\r\n",
            "Content-Length: 3\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        ]),
    )
        .prop_map(|(line, rest)| format!("{line} HTTP/1.1\r\nHost: a\r\n{rest}"));
    prop_oneof![3 => formed, 1 => noise]
}

/// What was judged, what the server saw and what the client saw, of a client that sends these
/// segments and a server that answers each request.
fn outcome<'a>(segments: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, String, Vec<u16>) {
    let talk = Talk::http();
    let (mut judged, mut seen, mut statuses) = (Vec::new(), String::new(), Vec::new());
    for segment in segments {
        talk.client(segment);
        for _ in 0..20 {
            judged.extend(talk.events().into_iter().filter(|event| is_request(event)));
            let more = talk.server_saw();
            statuses.extend(talk.statuses());
            if !talk.awaits_response() {
                seen.push_str(&more);
                break;
            }
            seen.push_str(&more);
            // Not 2xx, behind which CONNECT would pass unread.
            talk.server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    }
    (judged, seen, statuses)
}

/// Whether the judge has noted a request, whatever its method.
fn is_request(event: &str) -> bool {
    event.contains(" /") || event.starts_with("CONNECT ")
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        requests in prop::collection::vec(request(), 1..5),
        lengths in prop::collection::vec(1_usize..60, 1..5),
    ) {
        let input = requests.concat();
        let mut rest = input.as_bytes();
        let mut segments = Vec::new();
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (segment, more) = rest.split_at((*length).min(rest.len()));
            segments.push(segment);
            rest = more;
        }
        let (judged, seen, statuses) = outcome(std::iter::once(input.as_bytes()));
        let (judged_cut, seen_cut, statuses_cut) = outcome(segments.iter().copied());
        // A body that breaks later than its head left is a reset, where the whole was a 400.
        if statuses == statuses_cut {
            prop_assert_eq!(&judged, &judged_cut);
            prop_assert_eq!(&seen, &seen_cut);
        } else {
            prop_assert!(judged_cut.starts_with(&judged), "{:?} {:?}", judged, judged_cut);
            prop_assert!(seen_cut.starts_with(&seen), "{:?} {:?}", seen, seen_cut);
        }
        // Heads that left are heads that were judged and allowed, in their order.
        let allowed: Vec<&String> = judged
            .iter()
            .filter(|line| line.contains(" /allowed") || line.starts_with("CONNECT "))
            .collect();
        let left: Vec<&str> = seen.split("\r\n").filter(|line| line.contains(" HTTP/1.")).collect();
        prop_assert_eq!(allowed.len(), left.len(), "{:?} {:?}", allowed, left);
        for (judged, left) in allowed.iter().zip(&left) {
            // Of CONNECT the host, and no path.
            let target = judged.trim_end().rsplit(' ').next().unwrap();
            prop_assert!(left.contains(&format!(" {target} HTTP/1.")), "{} {}", judged, left);
        }
        // And what the server saw is read again as the same.
        if !seen.is_empty() {
            let (_, again, _) = outcome(std::iter::once(seen.as_bytes()));
            prop_assert_eq!(again, seen);
        }
    }
}
