//! The border between the proxy and the rest of the agent: [`Judge`], which the agent implements.

use std::net::SocketAddr;

use crate::edit::HeaderEdit;
use crate::event::PassageEvent;
use crate::head::request::RequestHead;
use crate::hello::ClientHello;
use crate::refusal::{Refusal, Unreadable};
use crate::termination::Termination;

/// What the rules of a connection can judge, and so what its first bytes may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// Its TLS server name alone (`serverNames`). What is no TLS is [`Unreadable::NotTls`].
    Hello,
    /// Each HTTP request in clear. TLS is [`Unreadable::NotHttp`].
    Http,
    /// Whichever it speaks: the first octet tells. So `verify-names` looks at the server name of
    /// TLS and at the Host of every request in clear.
    HelloOrHttp,
}

/// When the server is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialTime {
    /// When the first verdict allows something. The usual case: a server never hears of what is
    /// refused.
    WhenAllowed,
    /// Before anything is judged, since the rules speak of the backend and not of the address that
    /// was asked (a Service's). [`Judge::dialled`] is told when the connection stands.
    First,
}

/// What becomes of a connection before its first byte is read.
#[derive(Debug)]
pub enum ConnectionVerdict<C, P> {
    /// Its content is judged.
    Inspect {
        /// The connection as the judge knows it, passed to each later question.
        connection: C,
        /// What can be judged.
        inspection: Inspection,
        /// When to dial.
        dial: DialTime,
    },
    /// Everything in it passes: no rule of L7 restricts it, or not any more.
    Pass {
        /// The connection as the judge knows it.
        connection: C,
        /// The proof.
        judged: P,
    },
    /// It is reset.
    Refuse(Refusal),
}

/// The judge's decision on a TLS hello.
#[derive(Debug)]
pub enum HelloVerdict<P> {
    /// The connection passes, with everything that follows unread.
    Pass(P),
    /// The rules speak of the requests in it: TLS ends here, and each request is judged.
    Terminate(Termination),
}

/// What becomes of a connection whose backend is known now.
#[derive(Debug)]
pub enum BackendVerdict<P> {
    /// Its content is judged, and this is what can be.
    Inspect(Inspection),
    /// Everything in it passes, against this proof.
    Pass(P),
}

/// The judge's decision on one request.
#[derive(Debug)]
pub enum RequestVerdict<P> {
    /// The request goes on, with these edits of its header.
    Forward {
        /// The proof.
        judged: P,
        /// In order; usually empty. An edit of a field that decides framing or routing (`Host`,
        /// `Content-Length`, `Transfer-Encoding`, `Connection`, `Upgrade`, `Expect`, `TE`,
        /// `Trailer`) turns the verdict into a refusal: what was matched must be what is forwarded.
        edits: Vec<HeaderEdit>,
    },
    /// The request is answered with 403, and the connection goes on where that is safe.
    Deny(Refusal),
}

/// What the proxy asks the rest of the agent. Many threads call an implementation for every
/// connection and request, so its methods must be cheap and must not block.
///
/// Whatever a method refuses, the judge has recorded; what the proxy refuses by itself (limits,
/// requests that are not well-formed, servers that do not answer) comes through
/// [`observe`](Self::observe).
pub trait Judge: Send + Sync + 'static {
    /// A connection as the judge knows it: who, to whom, the rules found for it, the generation
    /// they are of, and whatever [`judge_again`](Self::judge_again) needs of what was last allowed.
    /// In HTTP/2, where many requests are under way at once, each has a clone of its own.
    type Connection: Clone + Send + 'static;
    /// Evidence that the rules let something pass. Only the decision core can make one, so no code
    /// path of the proxy can send a byte to a server that was not judged.
    type Judged: Send + 'static;

    /// Who connects from `source` to `asked`, the destination before the kernel redirected it, and
    /// what do the rules of both ends want to see of it?
    fn connection(&self, source: SocketAddr, asked: SocketAddr) -> ConnectionVerdict<Self::Connection, Self::Judged>;

    /// The connection to the server stands, from the client's own address and port and with the
    /// proxy's mark, and nothing was sent yet. Asked for [`DialTime::First`] only: the judge finds
    /// out the backend that the kernel has chosen.
    fn dialled(&self, connection: &mut Self::Connection) -> Result<BackendVerdict<Self::Judged>, Refusal>;

    /// May a connection with this hello pass, unread or request by request?
    fn hello(
        &self,
        connection: &mut Self::Connection,
        hello: &ClientHello,
    ) -> Result<HelloVerdict<Self::Judged>, Refusal>;

    /// May this request pass? Asked for each request, so a connection that lives on meets the
    /// rules of now.
    fn request(&self, connection: &mut Self::Connection, request: &RequestHead<'_>) -> RequestVerdict<Self::Judged>;

    /// The proxy cannot read what the client sends. Enforced rules refuse; where the rules are in
    /// mode audit it passes, unread from here to its end.
    fn unreadable(&self, connection: &mut Self::Connection, why: Unreadable) -> Result<Self::Judged, Refusal>;

    /// The number of the plan in force. When it changes, every open connection is judged again.
    fn generation(&self) -> u64;

    /// Do the rules of now still allow what was last allowed on this connection: the opaque
    /// passage after a hello or an upgrade, or the request that is under way? A refusal resets
    /// both ends.
    fn judge_again(&self, connection: &mut Self::Connection) -> Result<Self::Judged, Refusal>;

    /// Counts and records what happened. `connection` is `None` before the judge has made one.
    fn observe(&self, connection: Option<&mut Self::Connection>, event: PassageEvent<'_>);
}
