//! The connection an instance begins with: whom it is for, and when it is closed.

use super::*;
use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};

/// A connection that does not block, and the end the instance has of it.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    let far = listener.accept().unwrap().0;
    far.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    (near, far)
}

fn is_closed(far: &mut TcpStream) -> bool {
    match far.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

impl World {
    /// An instance's port is open; the instance's end of the connection that found it so.
    fn connect(&mut self, instance: InstanceId) -> TcpStream {
        let (near, far) = connection();
        let address = near.peer_addr().unwrap();
        self.fleet.event(self.now, Event::Listening { instance, address, first: Some(near) });
        far
    }
}

#[test]
fn who_waited_for_an_instance_finds_a_connection_to_it() {
    let mut world = World::new(64, &[revision("hello", 1, 0)]);
    let mut ticket = world.wait("hello");
    world.hear();
    let mut far = world.connect(1);
    let slot = answer(&mut ticket).unwrap().unwrap();
    let first = slot.endpoint().take_first().expect("no connection");
    assert!(slot.endpoint().take_first().is_none(), "it is there twice");
    world.wind(SECOND);
    assert!(!is_closed(&mut far), "closed under who took it");
    drop(first);
    assert!(is_closed(&mut far));
}

#[test]
fn a_connection_that_nobody_waited_for_is_closed_at_once() {
    let mut kept = revision("hello", 1, 0);
    kept.scale.min = 1;
    let mut world = World::new(64, &[kept]);
    world.wind(SECOND);
    let mut far = world.connect(1);
    assert!(is_closed(&mut far));
}

#[test]
fn a_connection_that_nobody_takes_is_closed_soon() {
    let mut world = World::new(64, &[revision("hello", 1, 0)]);
    let ticket = world.wait("hello");
    world.hear();
    let mut far = world.connect(1);
    assert!(!is_closed(&mut far));
    drop(ticket);
    world.wind(3 * SECOND);
    assert!(world.stopped().is_empty(), "it is closed by the end of the instance only");
    assert!(is_closed(&mut far));
}

#[test]
fn what_is_asked_by_probes_first_gets_no_connection_before() {
    let mut probed = revision("hello", 1, 0);
    probed.probes.startup = Some(proxy_config::model::Probe::default());
    let mut world = World::new(64, &[probed]);
    let _ticket = world.wait("hello");
    world.hear();
    let mut far = world.connect(1);
    assert!(is_closed(&mut far));
}
