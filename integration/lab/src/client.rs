//! The client side of the lab: lookups, connections, datagrams. Everything happens in the network
//! namespace of the calling thread.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How long a lookup waits for its reply: longer than the agent waits for all its upstreams.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a connection attempt waits. A refusal takes a millisecond, so only packets that are
/// dropped silently take this long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How a lookup is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupTransport {
    /// Over UDP with EDNS and a payload of 1,232 bytes, as current stub resolvers do.
    Udp,
    /// Over UDP without EDNS, so that answers have at most 512 bytes.
    PlainUdp,
    /// Over a TCP connection of its own, with EDNS.
    Tcp,
}

/// The reply to a lookup.
#[derive(Debug, Clone)]
pub struct DnsReply {
    /// The whole message.
    pub message: Message,
    /// The time from the query to the reply.
    pub took: Duration,
}

/// How a connection attempt ended.
#[derive(Debug)]
pub enum ConnectAttempt {
    /// The connection is established.
    Connected(HttpConnection),
    /// Refused, with the errno.
    Refused(i32),
    /// Nothing came back within [`CONNECT_TIMEOUT`].
    TimedOut,
}

/// An established connection to an HTTP port.
#[derive(Debug)]
pub struct HttpConnection {
    stream: TcpStream,
}

/// A stub resolver that asks one server from one socket.
#[derive(Debug)]
pub struct StubResolver {
    socket: UdpSocket,
}

impl DnsReply {
    /// The response code of the header.
    pub fn code(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    /// The addresses of A and AAAA records, in order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.message
            .answers
            .iter()
            .filter_map(|record| record.data.ip_addr())
            .collect()
    }

    /// The first address.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses().first().copied()
    }

    /// The answer section.
    pub fn answers(&self) -> &[Record] {
        &self.message.answers
    }

    /// The names of the answer's aliases, in order.
    pub fn aliases(&self) -> Vec<String> {
        let target = |record: &Record| match &record.data {
            RData::CNAME(target) => Some(target.to_string()),
            _ => None,
        };
        self.message.answers.iter().filter_map(target).collect()
    }

    /// The Extended DNS Error (RFC 8914): its code and text.
    pub fn extended_error(&self) -> Option<(u16, String)> {
        const EDE: u16 = 15;
        match self.message.edns.as_ref()?.option(EdnsCode::Unknown(EDE))? {
            EdnsOption::Unknown(_, data) => {
                let (code, text) = data.split_first_chunk::<2>()?;
                Some((u16::from_be_bytes(*code), String::from_utf8_lossy(text).into_owned()))
            }
            _ => None,
        }
    }
}

impl ConnectAttempt {
    /// Whether the connection is established.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected(_))
    }

    /// Whether the connection was refused, and not dropped silently.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl StubResolver {
    /// A stub that asks `server`. The socket is connected: only answers from the asked address
    /// reach it, and refusals do.
    pub fn new(server: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((unspecified(server), 0))?;
        socket.connect(server)?;
        Ok(Self { socket })
    }

    /// Asks once, without retrying.
    pub fn ask(&self, name: &str, kind: RecordType, edns: bool) -> io::Result<DnsReply> {
        let started = Instant::now();
        let query = query(name, kind, edns)?;
        self.socket.send(&query.to_vec().map_err(io::Error::other)?)?;
        let mut buffer = [0; 65_535];
        loop {
            let left = patience::scaled(LOOKUP_TIMEOUT)
                .checked_sub(started.elapsed())
                .filter(|left| !left.is_zero());
            let left = left.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
            self.socket.set_read_timeout(Some(left))?;
            let length = self.socket.recv(&mut buffer)?;
            let message = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
            if message.metadata.id == query.metadata.id {
                return Ok(DnsReply {
                    message,
                    took: started.elapsed(),
                });
            }
        }
    }
}

impl HttpConnection {
    /// Gets `/` and returns the body. The connection can be used again.
    pub fn get(&mut self, host: &str) -> io::Result<String> {
        self.stream.set_read_timeout(Some(patience::scaled(CONNECT_TIMEOUT)))?;
        write!(self.stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut response = Vec::new();
        let mut chunk = [0; 1_024];
        loop {
            let length = self.stream.read(&mut chunk)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            response.extend_from_slice(&chunk[..length]);
            let text = String::from_utf8_lossy(&response);
            // The server's bodies are single lines.
            if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.ends_with('\n')) {
                return Ok(body.trim_end().to_owned());
            }
        }
    }
}

/// Asks `server` for a name.
pub fn resolve(server: SocketAddr, name: &str, kind: RecordType, transport: LookupTransport) -> io::Result<DnsReply> {
    match transport {
        LookupTransport::Udp => StubResolver::new(server)?.ask(name, kind, true),
        LookupTransport::PlainUdp => StubResolver::new(server)?.ask(name, kind, false),
        LookupTransport::Tcp => resolve_tcp(server, name, kind),
    }
}

/// Connects over TCP.
pub fn connect(to: SocketAddr) -> io::Result<ConnectAttempt> {
    attempt(TcpStream::connect_timeout(&to, patience::scaled(CONNECT_TIMEOUT)))
}

/// Connects over TCP from one of the namespace's addresses.
pub fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<ConnectAttempt> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    let connected = socket.connect_timeout(&to.into(), patience::scaled(CONNECT_TIMEOUT));
    attempt(connected.map(|()| socket.into()))
}

fn attempt(connected: io::Result<TcpStream>) -> io::Result<ConnectAttempt> {
    let silent = |error: &io::Error| matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
    match connected {
        Ok(stream) => Ok(ConnectAttempt::Connected(HttpConnection { stream })),
        Err(error) if silent(&error) => Ok(ConnectAttempt::TimedOut),
        Err(error) => error.raw_os_error().map(ConnectAttempt::Refused).ok_or(error),
    }
}

/// Connects and gets `/`.
pub fn http_get(to: SocketAddr, host: &str) -> io::Result<String> {
    match connect(to)? {
        ConnectAttempt::Connected(mut connection) => connection.get(host),
        ConnectAttempt::Refused(errno) => Err(io::Error::from_raw_os_error(errno)),
        ConnectAttempt::TimedOut => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Makes one HTTP request on a connection of its own. Returns the status and the body.
pub fn http(to: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, patience::scaled(CONNECT_TIMEOUT))?;
    stream.set_read_timeout(Some(patience::scaled(CONNECT_TIMEOUT)))?;
    // HTTP/1.0: no chunks, and the end of the connection is the end of the body.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// Sends one datagram and waits for one in return. A refusal is an error with its errno.
pub fn exchange_udp(to: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((unspecified(to), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience::scaled(CONNECT_TIMEOUT)))?;
    socket.send(payload)?;
    let mut buffer = [0; 2_048];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Whether an IPv4 host answers one echo request (RFC 792).
pub fn ping(to: Ipv4Addr) -> io::Result<bool> {
    /// Type, code, checksum, identifier and sequence number.
    const REQUEST: [u8; 8] = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::ICMPV4),
    )?;
    socket.connect(&SocketAddr::from((to, 0)).into())?;
    socket.set_read_timeout(Some(patience::scaled(CONNECT_TIMEOUT)))?;
    socket.send(&REQUEST)?;
    let mut socket = socket;
    loop {
        let mut packet = [0; 128];
        let length = match socket.read(&mut packet) {
            Ok(length) => length,
            // No reply, or an ICMP error from a router on the way.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error().is_some() => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        // The packet begins with the IPv4 header, whose length is counted in words of four bytes.
        let header = usize::from(packet[0] & 0xf) * 4;
        match packet[..length].get(header) {
            Some(0) => return Ok(true),
            Some(3) => return Ok(false),
            _ => {}
        }
    }
}

fn resolve_tcp(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<DnsReply> {
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&server, patience::scaled(CONNECT_TIMEOUT))?;
    stream.set_read_timeout(Some(patience::scaled(LOOKUP_TIMEOUT)))?;
    let bytes = query(name, kind, true)?.to_vec().map_err(io::Error::other)?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    // Length and message in one write. A length that is sent alone is legal, and another test.
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    let message = Message::from_vec(&bytes).map_err(io::Error::other)?;
    Ok(DnsReply {
        message,
        took: started.elapsed(),
    })
}

fn query(name: &str, kind: RecordType, edns: bool) -> io::Result<Message> {
    // `from_ascii` keeps the case, as stub resolvers that randomize it need (DNS 0x20).
    let mut name = Name::from_ascii(name).map_err(io::Error::other)?;
    name.set_fqdn(true);
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, kind));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1_232);
        query.set_edns(edns);
    }
    Ok(query)
}

fn unspecified(peer: SocketAddr) -> IpAddr {
    match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}
