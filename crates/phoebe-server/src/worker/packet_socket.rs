//! A Unix `SOCK_SEQPACKET` pair: whole packets of JSON, descriptors beside them, and the peer's
//! death seen at once.
//!
//! It carries bytes and descriptors; what they mean is `phoebe_protocol::packet`'s.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use phoebe_protocol::packet::MAXIMUM_LENGTH;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::descriptor;

/// This process's end of a pair.
pub(crate) struct PacketSocket {
    socket: AsyncFd<OwnedFd>,
}

/// A new pair: our end, ready for the runtime, and the end for another process, as a plain blocking
/// descriptor.
pub(crate) fn pair() -> io::Result<(PacketSocket, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let socket = descriptor::watch(ours, Interest::READABLE | Interest::WRITABLE)?;
    Ok((PacketSocket { socket }, theirs))
}

impl PacketSocket {
    /// Sends one packet, with descriptors that the peer gets copies of.
    pub(crate) async fn send(
        &self,
        packet: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(packet)?;
        if bytes.len() > MAXIMUM_LENGTH {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "packet too long"));
        }
        self.socket
            .async_io(Interest::WRITABLE, |socket| {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty()
                    && !control.push(SendAncillaryMessage::ScmRights(descriptors))
                {
                    return Err(io::Error::other("more descriptors than a packet may carry"));
                }
                let flags = SendFlags::NOSIGNAL;
                sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
                Ok(())
            })
            .await
    }

    /// The next packet; `None` when the peer is gone.
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let mut buffer = vec![0; MAXIMUM_LENGTH];
        let length = self
            .socket
            .async_io(Interest::READABLE, |socket| {
                // No space for descriptors: the peer has none to give, and the kernel drops what it
                // sends anyway.
                let mut control = RecvAncillaryBuffer::default();
                let slices = &mut [IoSliceMut::new(&mut buffer)];
                let received = recvmsg(socket, slices, &mut control, RecvFlags::empty())?;
                Ok(received.bytes)
            })
            .await;
        match length {
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some(serde_json::from_slice(&buffer[..length])?)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}
