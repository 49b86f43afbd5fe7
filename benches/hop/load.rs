//! The load: a closed loop over keep-alive connections, one request under way on each, driven by epoll.
//!
//! It waits for one answer before it sends the next, so latency is that of a busy proxy and not of a schedule.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::policy;

/// What is sent; a head of the size a small client sends.
static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let head = "GET /hello/world HTTP/1.1\r\nhost: hop.test\r\nuser-agent: hop/1\r\n\
        accept: application/json, */*\r\naccept-encoding: gzip\r\n";
    match policy::token() {
        Some(token) => format!("{head}authorization: Bearer {token}\r\n\r\n").into_bytes(),
        None => format!("{head}\r\n").into_bytes(),
    }
});
/// The largest answer; larger ones fail the load.
const BUFFER: usize = 16 * 1024;
/// How long no answer at all may come.
const SILENCE: Duration = Duration::from_secs(30);

/// What one load took.
#[derive(Debug, Default)]
pub struct Taken {
    /// From the first request to the last answer.
    pub time: Duration,
    /// Of each request, in nanoseconds, in ascending order.
    pub latencies: Vec<u64>,
}

impl Taken {
    /// The latency that so many percent of the requests kept.
    pub fn percentile(&self, percent: f64) -> Duration {
        let at = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        let at = at.clamp(1, self.latencies.len().max(1)) - 1;
        Duration::from_nanos(self.latencies.get(at).copied().unwrap_or(0))
    }
}

/// Connections that stay open between loads.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
    buffer: Vec<u8>,
    filled: usize,
}

impl Load {
    /// Opens so many connections.
    pub fn connect(address: SocketAddr, count: usize) -> io::Result<Load> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for at in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(at as u64), EventFlags::IN)?;
            connections.push(Connection { stream, sent: now(), buffer: vec![0; BUFFER], filled: 0 });
        }
        Ok(Load { epoll, connections })
    }

    /// Sends so many requests over all connections and waits for their answers, every one of which must be a 200.
    pub fn run(&mut self, requests: u32) -> io::Result<Taken> {
        let total = requests as usize;
        let mut taken = Taken { latencies: Vec::with_capacity(total), ..Taken::default() };
        let started = now();
        let mut sent = 0;
        for connection in self.connections.iter_mut().take(total) {
            connection.send()?;
            sent += 1;
        }
        let mut events: Vec<Event> = Vec::with_capacity(self.connections.len());
        let silence = Timespec::try_from(SILENCE).map_err(io::Error::other)?;
        while taken.latencies.len() < total {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&silence))?;
            if events.is_empty() {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer came for a long time"));
            }
            for event in &events {
                // Set in `connect`.
                let connection = &mut self.connections[event.data.u64() as usize];
                if !connection.receive()? {
                    continue;
                }
                taken.latencies.push(connection.sent.elapsed().as_nanos() as u64);
                if sent < total {
                    connection.send()?;
                    sent += 1;
                }
            }
        }
        taken.time = started.elapsed();
        taken.latencies.sort_unstable();
        Ok(taken)
    }
}

impl Connection {
    fn send(&mut self) -> io::Result<()> {
        self.sent = now();
        // An idle socket takes a small request whole.
        self.stream.write_all(&REQUEST)
    }

    /// Reads what is there; true when the answer is complete.
    fn receive(&mut self) -> io::Result<bool> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "a connection was closed under load"));
            }
            Ok(count) => self.filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let complete =
            answer_length(&self.buffer[..self.filled])?.is_some_and(|length| length <= self.filled);
        if complete {
            self.filled = 0;
        }
        Ok(complete)
    }
}

/// The length of the answer that begins here, once its head is complete.
fn answer_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    if !bytes.starts_with(b"HTTP/1.1 200 ") {
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(io::Error::other(format!("answered {}", String::from_utf8_lossy(line))));
    }
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        if line[..at].eq_ignore_ascii_case(b"content-length") {
            let length =
                str::from_utf8(&line[at + 1..]).ok().and_then(|text| text.trim().parse::<usize>().ok());
            let length = length.ok_or_else(|| io::Error::other("an answer whose length is no number"))?;
            return Ok(Some(end + 4 + length));
        }
    }
    Err(io::Error::other("an answer without a content-length"))
}

/// Sends one request on each of so many new connections, one after the other, and leaves them open and idle.
pub fn idle_connections(address: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    let mut buffer = vec![0; BUFFER];
    for _ in 0..count {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.write_all(&REQUEST)?;
        let mut filled = 0;
        while answer_length(&buffer[..filled])?.is_none_or(|length| length > filled) {
            match stream.read(&mut buffer[filled..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                more => filled += more,
            }
        }
        streams.push(stream);
    }
    Ok(streams)
}

/// Asks until the answer is a 200; gives the last failure when the deadline is over or `alive` says so.
pub fn wait_until_served(
    address: SocketAddr,
    deadline: Duration,
    mut alive: impl FnMut() -> bool,
) -> io::Result<()> {
    let started = now();
    loop {
        match idle_connections(address, 1) {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > deadline || !alive() => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The bench times real work; there is no clock to hand on.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}
