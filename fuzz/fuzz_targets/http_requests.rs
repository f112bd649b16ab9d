//! What a client sends leaves towards the server the same, however it is cut, and is read there as
//! what was judged: each head that leaves is one that a judge has seen.
#![no_main]

use std::cell::RefCell;
use std::net::SocketAddr;

use clock::Time;
use l7_proxy::{
    BackendVerdict, ClientHello, ConnectionVerdict, Conversation, DialTime, HelloVerdict, Inspection, Judge, PassageEvent, PassageLimits, Refusal,
    RequestHead, RequestVerdict, Unreadable,
};
use libfuzzer_sys::fuzz_target;

struct AllowsAll;

thread_local! {
    static JUDGED: RefCell<usize> = const { RefCell::new(0) };
}

impl Judge for AllowsAll {
    type Connection = ();
    type Judged = ();

    fn connection(&self, _: SocketAddr, _: SocketAddr) -> ConnectionVerdict<(), ()> {
        ConnectionVerdict::Refuse(Refusal::Destination)
    }

    fn dialled(&self, (): &mut ()) -> Result<BackendVerdict<()>, Refusal> {
        Ok(BackendVerdict::Inspect(Inspection::Http))
    }

    fn hello(&self, (): &mut (), _: &ClientHello) -> Result<HelloVerdict<()>, Refusal> {
        Err(Refusal::Name)
    }

    fn request(&self, (): &mut (), request: &RequestHead<'_>) -> RequestVerdict<()> {
        assert!(!request.path().contains("/../") && !request.path().contains('\\') || request.path().contains('?'));
        JUDGED.with_borrow_mut(|judged| *judged += 1);
        RequestVerdict::Forward { judged: (), edits: Vec::new() }
    }

    fn unreadable(&self, (): &mut (), why: Unreadable) -> Result<(), Refusal> {
        Err(why.into())
    }

    fn generation(&self) -> u64 {
        0
    }

    fn judge_again(&self, (): &mut ()) -> Result<(), Refusal> {
        Ok(())
    }

    fn observe(&self, _: Option<&mut ()>, _: PassageEvent<'_>) {}
}

/// What the server sees of what a client sends in these pieces, and how many requests were judged.
/// The server answers nothing.
fn seen<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, usize, Vec<u8>) {
    JUDGED.set(0);
    let now = Time::from_millis(1);
    let mut conversation = Conversation::inspect((), Inspection::Http, DialTime::WhenAllowed, PassageLimits::default(), now);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for piece in pieces {
        if let Some(space) = conversation.client_space() {
            let room = space.capacity() - space.len();
            space.extend_from_slice(piece);
            conversation.client_sent(piece.len(), room);
        }
        for _ in 0..2 {
            conversation.advance(&AllowsAll, now);
            if conversation.wants_dial() {
                conversation.connected(&AllowsAll, now);
            }
            let (to_server, to_client) = (conversation.for_server().concat(), conversation.for_client().concat());
            conversation.sent_to_server(to_server.len());
            conversation.sent_to_client(to_client.len());
            up.extend(to_server);
            down.extend(to_client);
        }
    }
    (up, JUDGED.take(), down)
}

fuzz_target!(|input: &[u8]| {
    // HTTP/2 has several requests in one connection, and frames of the proxy's own.
    if input.starts_with(b"PRI * HTTP/2.0\r\n") {
        return;
    }
    // How much leaves of a body that breaks depends on when that shows; heads do not.
    let (whole, judged, _) = seen(std::iter::once(input));
    let (cut, judged_cut, _) = seen(input.chunks(1));
    assert!(judged <= 1 && judged_cut <= 1);
    assert!(judged <= judged_cut);
    assert!(cut.starts_with(&whole) || judged == 0 || whole.starts_with(&cut));
    if judged == 1 {
        // It is read again as it was written, and is written the same.
        let (again, judged_again, _) = seen(std::iter::once(&whole[..]));
        assert_eq!((again.len(), judged_again), (whole.len(), 1));
        assert_eq!(again, whole);
    }
});
