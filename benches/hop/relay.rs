//! The least a hop can cost: bytes moved between two TCP connections by one thread and epoll.
//!
//! A connection upstream for each one downstream, one read and one write for each event, no look at what passes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Bytes moved at a time.
const PIECE: usize = 16 * 1024;
/// What the listener is known by in epoll; a side of a pipe is its index.
const LISTENER: u64 = u64::MAX;

/// One end of a pipe. Its peer is at the index beside it: 0 with 1, 2 with 3.
struct Side {
    stream: TcpStream,
    /// Bytes for this side that its socket did not take.
    waiting: Vec<u8>,
    /// Whether this side has said that it sends no more.
    ended: bool,
}

struct Relay {
    epoll: OwnedFd,
    to: SocketAddr,
    sides: Vec<Option<Side>>,
    free: Vec<usize>,
    piece: Vec<u8>,
}

/// Serves until the process is ended.
pub fn serve(to: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    crate::process::announce(listener.local_addr()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut relay = Relay { epoll, to, sides: Vec::new(), free: Vec::new(), piece: vec![0; PIECE] };
    let mut events: Vec<Event> = Vec::with_capacity(256);
    let mut closed = Vec::new();
    loop {
        events.clear();
        epoll::wait(&relay.epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            if event.data.u64() == LISTENER {
                relay.accept(&listener)?;
                continue;
            }
            // Indices come from `accept`.
            let at = event.data.u64() as usize;
            if relay.serve_side(at, event.flags).is_err() {
                relay.sides[at] = None;
                relay.sides[at ^ 1] = None;
                closed.push(at & !1);
            }
        }
        // Not before: an event of the same batch may still name them.
        relay.free.append(&mut closed);
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        let downstream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.sides.extend([None, None]);
            self.sides.len() - 2
        });
        for (at, stream) in [(at, downstream), (at + 1, TcpStream::connect(self.to)?)] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&self.epoll, &stream, EventData::new_u64(at as u64), EventFlags::IN)?;
            self.sides[at] = Some(Side { stream, waiting: Vec::new(), ended: false });
        }
        Ok(())
    }

    /// Serves one event; an error ends the pipe.
    fn serve_side(&mut self, at: usize, flags: EventFlags) -> io::Result<()> {
        let (low, high) = self.sides.split_at_mut(at | 1);
        let (Some(even), Some(odd)) = (&mut low[at & !1], &mut high[0]) else { return Ok(()) };
        let (side, peer) = if at & 1 == 0 { (even, odd) } else { (odd, even) };
        if flags.contains(EventFlags::OUT) {
            let written = side.stream.write(&side.waiting)?;
            side.waiting.drain(..written);
            if side.waiting.is_empty() {
                listen(&self.epoll, at, side, EventFlags::IN)?;
                listen(&self.epoll, at ^ 1, peer, EventFlags::IN)?;
            }
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) || !peer.waiting.is_empty() {
            return Ok(());
        }
        let count = match side.stream.read(&mut self.piece) {
            Ok(0) if peer.ended => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => {
                side.ended = true;
                peer.stream.shutdown(Shutdown::Write)?;
                return listen(&self.epoll, at, side, EventFlags::empty());
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let written = match peer.stream.write(&self.piece[..count]) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if written < count {
            peer.waiting.extend_from_slice(&self.piece[written..count]);
            listen(&self.epoll, at ^ 1, peer, EventFlags::OUT)?;
            listen(&self.epoll, at, side, EventFlags::empty())?;
        }
        Ok(())
    }
}

fn listen(epoll: &OwnedFd, at: usize, side: &Side, flags: EventFlags) -> io::Result<()> {
    let flags = if side.ended { flags - EventFlags::IN } else { flags };
    Ok(epoll::modify(epoll, &side.stream, EventData::new_u64(at as u64), flags)?)
}
