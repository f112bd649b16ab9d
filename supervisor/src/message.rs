//! The messages between supervisor and worker, in the form of sd_notify(3). Each is one packet of a
//! `SOCK_SEQPACKET` pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The size of the longest message: a name has at most 255 bytes (sd_pid_notify_with_fds(3)).
const MAX_LENGTH: usize = 512;

/// A received message.
#[derive(Debug)]
pub(crate) enum SupervisorMessage {
    /// Keep this descriptor under this name, in place of one that has the name already.
    Keep(String, OwnedFd),
    /// Close the descriptor of this name.
    Forget(String),
    /// The worker answers lookups.
    Ready,
    /// The worker ends, and wants another one in its place: its configuration has changed.
    Reloading,
}

/// Asks the supervisor to keep a duplicate of a descriptor ([`SupervisorMessage::Keep`]).
pub(crate) fn keep(socket: BorrowedFd<'_>, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send(socket, &format!("FDSTORE=1\nFDNAME={name}"), &[descriptor])
}

/// Asks the supervisor to close its duplicates of this name ([`SupervisorMessage::Forget`]).
pub(crate) fn forget(socket: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    send(socket, &format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
}

/// Tells the supervisor that the agent is ready ([`SupervisorMessage::Ready`]).
pub(crate) fn ready(socket: BorrowedFd<'_>) -> io::Result<()> {
    send(socket, "READY=1", &[])
}

/// Tells the supervisor that the worker ends to be started again
/// ([`SupervisorMessage::Reloading`]).
pub(crate) fn reloading(socket: BorrowedFd<'_>) -> io::Result<()> {
    send(socket, "RELOADING=1", &[])
}

fn send(socket: BorrowedFd<'_>, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Without NOSIGNAL, SIGPIPE would end this process when the other side is gone.
    sendmsg(
        socket,
        &[IoSlice::new(text.as_bytes())],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives the next message; `None` when the other side is gone.
///
/// # Errors
/// `InvalidData` when the message is not understood. The next message can be received after it.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<SupervisorMessage>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; MAX_LENGTH];
    let mut into = [IoSliceMut::new(&mut text)];
    let received = recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let read = std::str::from_utf8(&text[..received.bytes])
        .ok()
        .and_then(|text| read(text, descriptors.pop()));
    read.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn read(text: &str, descriptor: Option<OwnedFd>) -> Option<SupervisorMessage> {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(str::to_owned)
    };
    let says = |key: &str| value(key).is_some_and(|value| value == "1");
    match descriptor {
        Some(descriptor) if says("FDSTORE") => Some(SupervisorMessage::Keep(value("FDNAME")?, descriptor)),
        Some(_) => None,
        None if says("FDSTOREREMOVE") => value("FDNAME").map(SupervisorMessage::Forget),
        None if says("RELOADING") => Some(SupervisorMessage::Reloading),
        None => says("READY").then_some(SupervisorMessage::Ready),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap()
    }

    #[test]
    fn descriptors_come_with_their_names_and_in_order() {
        let (ours, theirs) = pair();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        keep(ours.as_fd(), "dns tcp", listener.as_fd()).unwrap();
        forget(ours.as_fd(), "dns udp").unwrap();
        ready(ours.as_fd()).unwrap();
        let Some(SupervisorMessage::Keep(name, descriptor)) = receive(&theirs).unwrap() else {
            panic!("no descriptor")
        };
        let same = std::net::TcpListener::from(descriptor);
        assert_eq!(
            (name.as_str(), same.local_addr().unwrap()),
            ("dns tcp", listener.local_addr().unwrap())
        );
        assert!(matches!(receive(&theirs).unwrap(), Some(SupervisorMessage::Forget(name)) if name == "dns udp"));
        assert!(matches!(receive(&theirs).unwrap(), Some(SupervisorMessage::Ready)));
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert!(receive(&theirs).unwrap().is_none(), "the other side is gone");
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let (ours, theirs) = pair();
        for text in ["", "FDSTORE=1", "READY=0", "\u{fffd}", &"x".repeat(2 * MAX_LENGTH)] {
            if !text.is_empty() {
                send(ours.as_fd(), text, &[]).unwrap();
                assert_eq!(
                    receive(&theirs).unwrap_err().kind(),
                    io::ErrorKind::InvalidData,
                    "{text}"
                );
            }
        }
        send(ours.as_fd(), "READY=1", &[ours.as_fd()]).unwrap();
        assert!(receive(&theirs).is_err(), "a descriptor that nobody asked to keep");
        ready(ours.as_fd()).unwrap();
        assert!(receive(&theirs).unwrap().is_some());
    }
}
