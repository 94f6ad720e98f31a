//! Questions to route netlink (rtnetlink(7)) and their answers.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Bytes of a netlink message's header (`struct nlmsghdr`): none is shorter.
const HEADER: usize = 16;

/// A route netlink socket in the network namespace of the thread that opened it, for one question at
/// a time.
#[derive(Debug)]
pub struct Questions {
    socket: Socket,
    sequence: u32,
}

impl Questions {
    /// Opens one.
    ///
    /// # Errors
    /// When the kernel has no route netlink.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request with these flags, and collects its answers up to the last one or the
    /// acknowledgement.
    ///
    /// # Errors
    /// What the kernel answers instead, and answers that cannot be read.
    pub fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags | if flags == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = vec![];
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            if self.read(&bytes, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads one datagram of answers; whether it was the last.
    fn read(&self, bytes: &[u8], into: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4).max(HEADER);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => {
                    let code = error.code.map(|code| code.get().abs());
                    return code.map_or(Ok(true), |code| Err(io::Error::from_raw_os_error(code)));
                }
                NetlinkPayload::InnerMessage(inner) => into.push(inner),
                _ => {}
            }
        }
        Ok(false)
    }
}
