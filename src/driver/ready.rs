//! Notices within a fraction of a millisecond that a port opened.
//!
//! One small thread that sleeps while nothing starts. A timer of the control thread's runtime has a
//! millisecond's grain, and a connect that is refused costs a few microseconds on the loopback interface,
//! so this is the cheapest thing that is fast enough. It slows down in proportion to how long an instance
//! takes, and never uses more than a small share of a processor however many start. The connection that found
//! the port open is handed on: the request that waits for it needs no other.

use super::InstanceId;
use crate::clock::{self, Duration, Instant};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

const EAGER: Duration = Duration::from_micros(300);
const EAGER_FOR: Duration = Duration::from_secs(1);
const LAZY: Duration = Duration::from_millis(20);
/// A round of tries is followed by a rest of this many times its length.
const REST: u32 = 8;

/// Watches ports until they open.
#[derive(Debug)]
pub(super) struct Ready {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    watched: Vec<Watched>,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    instance: InstanceId,
    address: SocketAddr,
    since: Instant,
    next: Instant,
}

impl Ready {
    /// Starts the thread. `opened` is called on it, once for each port that opens, with a connection to it that
    /// does not block.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn new(
        opened: impl Fn(InstanceId, SocketAddr, TcpStream) + Send + 'static,
    ) -> std::io::Result<Ready> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("ready".into())
            .stack_size(128 * 1024)
            .spawn(move || watch(&theirs, &opened))?;
        Ok(Ready { shared })
    }

    /// Watches a port until it opens or is forgotten.
    pub fn watch(&self, instance: InstanceId, address: SocketAddr) {
        let now = clock::now();
        self.shared.state.lock().watched.push(Watched { instance, address, since: now, next: now + EAGER });
        self.shared.changed.notify_one();
    }

    /// No longer watches for an instance.
    pub fn forget(&self, instance: InstanceId) {
        self.shared.state.lock().watched.retain(|watched| watched.instance != instance);
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

fn watch(shared: &Shared, opened: &dyn Fn(InstanceId, SocketAddr, TcpStream)) {
    let mut state = shared.state.lock();
    loop {
        if state.ended {
            return;
        }
        let Some(next) = state.watched.iter().map(|watched| watched.next).min() else {
            shared.changed.wait(&mut state);
            continue;
        };
        let begin = clock::now();
        if let Some(wait) = next.checked_duration_since(begin).filter(|wait| !wait.is_zero()) {
            shared.changed.wait_for(&mut state, wait);
            continue;
        }
        let due: Vec<Watched> = state.watched.iter().filter(|w| w.next <= begin).copied().collect();
        drop(state);
        let open: Vec<_> = due.iter().map(|watched| connected(watched.address)).collect();
        let end = clock::now();
        state = shared.state.lock();
        let rest = (end - begin) * REST;
        for (tried, open) in due.iter().zip(open) {
            // One that was forgotten meanwhile is not reported.
            let Some(at) = state.watched.iter().position(|w| w.instance == tried.instance) else { continue };
            if let Some(connection) = open {
                state.watched.swap_remove(at);
                opened(tried.instance, tried.address, connection);
            } else {
                state.watched[at].next = end + interval(end - tried.since).max(rest);
            }
        }
    }
}

/// How long after a try that found a port closed the next one is due.
fn interval(waited: Duration) -> Duration {
    if waited < EAGER_FOR { EAGER } else { (waited / 100).min(LAZY) }
}

/// A connection, if somebody accepts any there. Never blocks.
fn connected(address: SocketAddr) -> Option<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).ok()?;
    let open = match connect(&socket, &address) {
        Ok(()) => true,
        // On the loopback interface the answer is there as soon as the call returns; a backlog that is
        // full gives none, and the port is tried again.
        Err(Errno::INPROGRESS) => {
            let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
            let answered = poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|n| n > 0);
            answered && matches!(rustix::net::sockopt::socket_error(&socket), Ok(Ok(())))
        }
        Err(_) => false,
    };
    open.then(|| TcpStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc;

    fn watcher() -> (Ready, mpsc::Receiver<(InstanceId, Instant)>) {
        let (tx, rx) = mpsc::channel();
        // A receiver that is gone is a test that is over.
        let ready = Ready::new(move |instance, _, _| {
            let _ = tx.send((instance, clock::now()));
        })
        .unwrap();
        (ready, rx)
    }

    fn closed() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], super::super::port::free(&Default::default()).unwrap()))
    }

    #[test]
    fn an_opening_port_is_noticed_at_once_and_once() {
        let (ready, events) = watcher();
        let address = closed();
        ready.watch(7, address);
        assert!(events.recv_timeout(Duration::from_millis(30)).is_err());
        let opened = clock::now();
        let _listener = TcpListener::bind(address).unwrap();
        let (instance, noticed) = events.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(instance, 7);
        assert!(noticed - opened < Duration::from_millis(500), "{:?}", noticed - opened);
        assert!(events.recv_timeout(Duration::from_millis(30)).is_err());
    }

    #[test]
    fn what_was_forgotten_is_not_reported() {
        let (ready, events) = watcher();
        let address = closed();
        ready.watch(1, address);
        ready.forget(1);
        let _listener = TcpListener::bind(address).unwrap();
        assert!(events.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn tries_slow_down_in_proportion() {
        for (waited, want) in [(0, 300), (999, 300), (1_000, 10_000), (1_500, 15_000), (60_000, 20_000)] {
            assert_eq!(interval(Duration::from_millis(waited)), Duration::from_micros(want), "{waited} ms");
        }
    }
}
