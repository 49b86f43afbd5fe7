//! A free port on the loopback address for a new instance.
//!
//! Chosen below the range from which the kernel takes source ports, where that leaves room: a port from
//! within it could be taken by any outgoing connection between the choice and the instance's own bind, and
//! a probe of it could even connect to itself.

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, getsockname, socket_with};
use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::OnceLock;

/// Below are the ports that well-known services use.
const LOWEST: u16 = 20_000;
const TRIES: usize = 64;

/// A port that nobody listens on and that is not in `taken`.
///
/// # Errors
/// No port could be bound at all.
pub(super) fn free(taken: &HashSet<u16>) -> io::Result<u16> {
    let below = lowest_source_port();
    if below > LOWEST + 1_000 {
        for _ in 0..TRIES {
            let port = fastrand::u16(LOWEST..below);
            if !taken.contains(&port) && bind(port).is_ok() {
                return Ok(port);
            }
        }
    }
    let mut last = bind(0)?;
    for _ in 0..TRIES {
        if !taken.contains(&last) {
            break;
        }
        last = bind(0)?;
    }
    Ok(last)
}

/// Whether nobody listens on a port.
pub(super) fn is_free(port: u16) -> bool {
    bind(port).is_ok()
}

/// Binds and lets go again. On every address: an instance may listen on more than the loopback one.
fn bind(port: u16) -> io::Result<u16> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As servers do it: connections of the one before that are not forgotten yet are no reason.
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    if port != 0 {
        return Ok(port);
    }
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok(address.port())
}

/// Read once: it hardly ever changes, and reading it takes longer than all the rest.
fn lowest_source_port() -> u16 {
    static LOWEST_SOURCE: OnceLock<u16> = OnceLock::new();
    *LOWEST_SOURCE.get_or_init(|| {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ_from_those_that_are_taken() {
        let mut taken = HashSet::new();
        for _ in 0..200 {
            let port = free(&taken).unwrap();
            assert!(taken.insert(port), "{port} twice");
            bind(port).unwrap();
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_given() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(bind(listener.local_addr().unwrap().port()).is_err());
    }
}
