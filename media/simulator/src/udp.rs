//! The way to a client by UDP (RFC 3550 11): two ports here, two ports there. What the network does not take is
//! lost, as it is with a real camera.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use understudy_rtsp::packets::datagrams;

/// How often a pair of ports is looked for; another process may take one at any moment.
const ATTEMPTS: usize = 50;

/// Both sockets of one track.
#[derive(Debug)]
pub(crate) struct UdpWay {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// The port of `rtp`; `rtcp` has the next.
    pub(crate) port: u16,
}

impl UdpWay {
    /// Two ports in a row at `local`, for the client's two at `peer`.
    ///
    /// # Errors
    /// If there are none.
    pub(crate) fn open(local: IpAddr, peer: IpAddr, rtp: u16, rtcp: u16) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match pair(local) {
                Ok((own_rtp, own_rtcp, port)) => {
                    for (socket, theirs) in [(&own_rtp, rtp), (&own_rtcp, rtcp)] {
                        socket.set_nonblocking(true)?;
                        socket.connect(SocketAddr::new(peer, theirs))?;
                    }
                    return Ok(Self {
                        rtp: own_rtp,
                        rtcp: own_rtcp,
                        port,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends packets in their framing; this part of them is lost on the way.
    pub(crate) fn send(&self, framed: &[u8], lost: f64) {
        for packet in datagrams(framed) {
            if lost == 0.0 || rand::random::<f64>() >= lost {
                // Full buffers and clients that are gone: lost, like anything that UDP loses.
                let _ = self.rtp.send(packet);
            }
        }
    }

    /// Sends a report in its framing.
    pub(crate) fn report(&self, framed: &[u8]) {
        for packet in datagrams(framed) {
            let _ = self.rtcp.send(packet);
        }
    }
}

fn pair(local: IpAddr) -> io::Result<(UdpSocket, UdpSocket, u16)> {
    let rtp = UdpSocket::bind((local, 0))?;
    let port = rtp.local_addr()?.port();
    let next = port
        .checked_add(1)
        .filter(|_| port % 2 == 0)
        .ok_or(io::ErrorKind::AddrInUse)?;
    Ok((rtp, UdpSocket::bind((local, next))?, port))
}
