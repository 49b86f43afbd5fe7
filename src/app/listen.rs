//! Listening sockets: where each listener is bound, on behalf of whom, and what to do when it cannot be.
//!
//! The first socket of an address is bound without SO_REUSEPORT, so that an address that is taken is an error
//! even when another pilotlight has it; the option is set afterwards, for the sockets of the other workers.

use crate::cli::run::RunArgs;
use proxy_config::model::{Bind, Listener};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections the kernel keeps for a worker that is busy.
const BACKLOG: i32 = 4096;

/// The sockets of one listener, one for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
    /// The port was changed because the one asked for may not be bound.
    pub(super) mapped: Option<(u16, u16)>,
}

/// Where a listener wants to be.
pub(super) fn wanted(bind: Bind, args: &RunArgs) -> SocketAddr {
    match bind {
        Bind::DefaultGateway => SocketAddr::new(args.alone.bind, args.alone.http_port),
        Bind::GatewayPort(port) => {
            let mapped = args.alone.port_map.iter().find(|map| map.from == port).map_or(port, |map| map.to);
            SocketAddr::new(args.alone.bind, mapped)
        }
        Bind::Mesh => args.alone.mesh,
        Bind::Address(address) => address,
    }
}

/// Where a listener would be bound: where it wants to be, or the place that stands in for a port which this
/// user may not bind.
pub(super) fn possible(bind: Bind, args: &RunArgs) -> SocketAddr {
    let address = wanted(bind, args);
    match (bind, unprivileged(address.port())) {
        (Bind::GatewayPort(_) | Bind::DefaultGateway, Some(other)) if is_denied(address) => {
            SocketAddr::new(address.ip(), other)
        }
        _ => address,
    }
}

fn is_denied(address: SocketAddr) -> bool {
    sockets(address, 1).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// What people call a listener.
pub(super) fn called(listener: &Listener) -> &str {
    if listener.bind == Bind::DefaultGateway { "gateway" } else { &listener.name }
}

/// Who asked for a listener, in words.
pub(super) fn why(listener: &Listener) -> String {
    let origins: Vec<String> = listener.origins.iter().map(ToString::to_string).collect();
    match listener.bind {
        Bind::DefaultGateway => "default gateway".to_owned(),
        Bind::Mesh => "--mesh".to_owned(),
        _ if origins.is_empty() => "the configuration".to_owned(),
        _ => origins.join(", "),
    }
}

/// Binds `count` sockets to the address that `listener` wants.
pub(super) fn bind(listener: &Listener, args: &RunArgs, count: usize) -> Result<Bound, String> {
    let address = wanted(listener.bind, args);
    let mut bound = sockets(address, count);
    let mut mapped = None;
    let asked_for = match listener.bind {
        Bind::GatewayPort(port) => Some(port),
        Bind::DefaultGateway => Some(args.alone.http_port),
        Bind::Mesh | Bind::Address(_) => None,
    };
    if let (Err(error), Some(port)) = (&bound, asked_for)
        && error.kind() == io::ErrorKind::PermissionDenied
        && let Some(other) = unprivileged(address.port())
    {
        bound = sockets(SocketAddr::new(address.ip(), other), count);
        mapped = Some((port, other));
    }
    let asked = mapped.map_or(address, |(_, to)| SocketAddr::new(address.ip(), to));
    let (address, sockets) = bound.map_err(|error| refused(asked, listener, &error))?;
    Ok(Bound { address, sockets, mapped })
}

/// Where ports go that an ordinary user may not bind.
fn unprivileged(port: u16) -> Option<u16> {
    match port {
        0 | 1024.. => None,
        80 => Some(8080),
        443 => Some(8443),
        port => Some(port + 8000),
    }
}

/// Two listeners want one address.
pub(super) fn conflict(address: SocketAddr, owner: &str, listener: &Listener) -> String {
    format!("{address} is {owner} already (wanted by {}, too); {}", why(listener), elsewhere(listener))
}

fn elsewhere(listener: &Listener) -> String {
    match listener.bind {
        Bind::DefaultGateway => "choose another with --http-port".to_owned(),
        Bind::Mesh => "choose another with --mesh".to_owned(),
        Bind::GatewayPort(port) => format!("map it with --port-map {port}:OTHER"),
        Bind::Address(_) => "choose another".to_owned(),
    }
}

fn refused(address: SocketAddr, listener: &Listener, error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => "is taken by another process".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be bound by this user".to_owned(),
        io::ErrorKind::AddrNotAvailable => "is not an address of this host".to_owned(),
        _ => format!("cannot be bound: {error}"),
    };
    let remedy = match error.kind() {
        io::ErrorKind::AddrNotAvailable if listener.bind != Bind::Mesh => {
            "choose another with --bind".to_owned()
        }
        _ => elsewhere(listener),
    };
    format!("{address} {what} (wanted by {}); {remedy}", why(listener))
}

fn sockets(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = socket(address)?;
    first.bind(&SockAddr::from(address))?;
    first.set_reuse_port(true)?;
    first.listen(BACKLOG)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let sibling = socket(address)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&SockAddr::from(address))?;
        sibling.listen(BACKLOG)?;
        sockets.push(sibling.into());
    }
    Ok((address, sockets))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a process before this one may still be in TIME_WAIT; a listener of one is still an error.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_an_error_even_when_the_other_would_share_it() {
        let (address, _held) = sockets("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(sockets(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn ports_an_ordinary_user_may_not_bind_go_where_people_look_for_them() {
        for (port, other) in
            [(80, Some(8080)), (443, Some(8443)), (81, Some(8081)), (8080, None), (0, None), (1024, None)]
        {
            assert_eq!(unprivileged(port), other);
        }
    }
}
