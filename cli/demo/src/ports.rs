//! Free ports on loopback, for servers that are started a little later.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::DemoError;

/// Below the ports that the kernel gives to outgoing connections (32768 on; ip(7)), so that none of those
/// takes a port between its choice here and its use.
const RANGE: std::ops::Range<u32> = 10_000..32_000;

/// How many were tried so far by this process.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// Addresses that were free a moment ago, and that this process gets only once.
///
/// # Errors
/// [`DemoError::Io`] if loopback has no port left.
pub fn free(count: usize) -> Result<Vec<SocketAddr>, DemoError> {
    (0..count).map(|_| one()).collect()
}

/// One such address.
///
/// # Errors
/// As [`free`].
pub fn one() -> Result<SocketAddr, DemoError> {
    let ports = RANGE.end - RANGE.start;
    // Processes that run beside each other begin at different places.
    let begin = std::process::id().wrapping_mul(2_654_435_761) % ports;
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
    for _ in 0..ports {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = RANGE.start + (begin + step) % ports;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap_or_default()));
        match TcpListener::bind(address) {
            Ok(_free) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(DemoError::io("no free port on 127.0.0.1")(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let mut ports = free(200).expect("loopback has ports");
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), 200);
    }
}
