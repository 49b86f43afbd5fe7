//! Noticing that a client has gone although its request body has not been read.
//!
//! While a body is unread hyper looks at neither FIN nor RST, so a held upload would keep its place for a
//! client that left long ago. One epoll descriptor a worker watches the sockets of such exchanges for the
//! peer's end alone; what is readable does not matter to it.
//!
//! An end is a FIN or a reset. Where a function answers clients that have closed their sending side only, a
//! FIN is none, and hyper must not take it for one either: then all exchanges of the connection are watched.

use parking_lot::Mutex;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// Events taken at once.
const BATCH: usize = 64;

/// The watched sockets of one worker.
#[derive(Debug)]
pub struct Departures {
    epoll: AsyncFd<OwnedFd>,
    /// By descriptor: one held exchange at a time reads a connection's unread body.
    watched: Mutex<HashMap<RawFd, oneshot::Sender<()>>>,
}

impl Departures {
    /// Watches nothing yet. To be made inside the worker's runtime.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new() -> io::Result<Rc<Departures>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor stays the same open one as long as it is owned.
        let epoll = unsafe { AsyncFd::register(epoll)? };
        Ok(Rc::new(Departures { epoll, watched: Mutex::default() }))
    }

    /// Tells those who watch; to be run as a task of the worker.
    pub async fn run(self: Rc<Self>) {
        loop {
            let Ok(mut ready) = self.epoll.readable().await else { return };
            let mut events = Vec::with_capacity(BATCH);
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let taken = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout));
            if !matches!(taken, Ok(n) if n > 0) {
                ready.clear_ready();
                continue;
            }
            for event in &events {
                let fd = event.data.u64() as RawFd;
                if let Some(tell) = self.watched.lock().remove(&fd) {
                    // Who watched may have stopped at the same time.
                    let _ = tell.send(());
                }
            }
        }
    }

    /// Ready when the other end of `socket` has closed or reset its connection; `half_close`: only when it has
    /// reset it. `None`: it cannot be watched, or is already, and deadlines are all there is.
    ///
    /// The socket must stay open while the result lives.
    pub fn watch(self: &Rc<Self>, socket: RawFd, half_close: bool) -> Option<Departure> {
        let (tell, told) = oneshot::channel();
        // SAFETY: the caller keeps the socket open.
        let fd = unsafe { BorrowedFd::borrow_raw(socket) };
        // Resets are told of whatever is asked for.
        let ends = if half_close { EventFlags::empty() } else { EventFlags::RDHUP };
        let flags = ends | EventFlags::ONESHOT;
        epoll::add(&self.epoll, fd, EventData::new_u64(socket as u64), flags).ok()?;
        self.watched.lock().insert(socket, tell);
        Some(Departure { home: self.clone(), socket, told })
    }
}

/// One watched socket; dropping it stops the watch.
#[derive(Debug)]
pub struct Departure {
    home: Rc<Departures>,
    socket: RawFd,
    told: oneshot::Receiver<()>,
}

impl Future for Departure {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.told).poll(cx).map(|_| ())
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.home.watched.lock().remove(&self.socket);
        // SAFETY: as in `watch`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.socket) };
        // It may have gone by itself.
        let _ = epoll::delete(&self.home.epoll, fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[test]
    fn an_end_behind_unread_bytes_is_noticed_and_bytes_alone_are_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let departures = Departures::new().unwrap();
            tokio::task::spawn_local(departures.clone().run());
            let (mut client, server) = pair().await;
            client.write_all(b"unread").await.unwrap();
            let mut departure = departures.watch(server.as_raw_fd(), false).unwrap();
            let early = tokio::time::timeout(Duration::from_millis(50), &mut departure).await;
            assert!(early.is_err(), "bytes are no departure");
            drop(client);
            tokio::time::timeout(Duration::from_secs(5), departure).await.unwrap();
            assert!(departures.watched.lock().is_empty());
        });
    }

    #[test]
    fn where_half_a_connection_is_kept_only_a_reset_is_an_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let departures = Departures::new().unwrap();
            tokio::task::spawn_local(departures.clone().run());
            let (mut client, server) = pair().await;
            client.write_all(b"unread").await.unwrap();
            client.shutdown().await.unwrap();
            let mut departure = departures.watch(server.as_raw_fd(), true).unwrap();
            let early = tokio::time::timeout(Duration::from_millis(50), &mut departure).await;
            assert!(early.is_err(), "a FIN is no departure");
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            tokio::time::timeout(Duration::from_secs(5), departure).await.unwrap();
        });
    }
}
