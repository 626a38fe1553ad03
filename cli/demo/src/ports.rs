//! Free ports on loopback.

use std::net::{SocketAddr, TcpListener};

use crate::DemoError;

/// Addresses that were free a moment ago, all different: their listeners are held until all are found.
///
/// # Errors
/// [`DemoError::Io`] if loopback has no port left.
pub fn free(count: usize) -> Result<Vec<SocketAddr>, DemoError> {
    let listeners = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(DemoError::io("no free port on 127.0.0.1"))?;
    listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()
        .map_err(DemoError::io("no free port on 127.0.0.1"))
}

/// One free address.
///
/// # Errors
/// As [`free`].
pub fn one() -> Result<SocketAddr, DemoError> {
    Ok(free(1)?[0])
}
