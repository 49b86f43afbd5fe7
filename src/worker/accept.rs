//! Accepting: sockets in, connections on their own tasks.

use super::board::Board;
use super::connection;
use super::entry::Shared;
use crate::clock;
use crate::limit::Ceiling;
use crate::proxy::{Local, Seat};
use crate::record::Direction;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// After running out of descriptors, before trying again.
const BREATH: Duration = Duration::from_millis(50);

/// Between log lines about accepting that fails.
const TELL: Duration = Duration::from_secs(10);
/// Connections above the ceiling that are being told so, at once; others are closed without a word.
const TURNED_AWAY: usize = 64;
/// To read what they are told.
const FAREWELL: Duration = Duration::from_secs(1);
/// What they are told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The listening sockets of one worker.
pub(super) struct Listeners {
    local: Rc<Local>,
    board: Rc<Board>,
    connections: Arc<Ceiling>,
    turned_away: Arc<Ceiling>,
    doors: Shared,
    tasks: HashMap<usize, JoinHandle<()>>,
}

impl Listeners {
    /// None yet.
    pub(super) fn new(local: Rc<Local>, board: Rc<Board>, connections: Arc<Ceiling>) -> Listeners {
        let turned_away = Ceiling::new(TURNED_AWAY);
        let doors = Shared::default();
        Listeners { local, board, connections, turned_away, doors, tasks: HashMap::new() }
    }

    /// Accepts on `socket` from now on.
    pub(super) fn open(&mut self, number: usize, direction: Direction, socket: std::net::TcpListener) {
        let listener = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
        match listener {
            Ok(listener) => {
                let door = Door {
                    number,
                    direction,
                    local: self.local.clone(),
                    board: self.board.clone(),
                    connections: self.connections.clone(),
                    turned_away: self.turned_away.clone(),
                    doors: self.doors.clone(),
                };
                let task = tokio::task::spawn_local(door.run(listener));
                if let Some(old) = self.tasks.insert(number, task) {
                    old.abort();
                }
            }
            Err(error) => tracing::error!(%error, "a listening socket cannot be used"),
        }
    }

    /// Accepts no more.
    pub(super) fn close(&mut self, number: usize) {
        if let Some(task) = self.tasks.remove(&number) {
            task.abort();
        }
    }
}

struct Door {
    number: usize,
    direction: Direction,
    local: Rc<Local>,
    board: Rc<Board>,
    connections: Arc<Ceiling>,
    turned_away: Arc<Ceiling>,
    doors: Shared,
}

impl Door {
    async fn run(self, listener: TcpListener) {
        let metrics = &self.local.telemetry.metrics;
        let mut failures = Failures::default();
        loop {
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The client's own doing, or ours for want of descriptors: then others must end first.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        failures.tell(&error);
                        tokio::time::sleep(BREATH).await;
                    }
                    continue;
                }
            };
            metrics.downstream_opened.inc();
            let Some(place) = self.connections.enter() else {
                metrics.downstream_refused.inc();
                turn_away(stream, &self.turned_away);
                continue;
            };
            let (local, board, doors) = (self.local.clone(), self.board.clone(), self.doors.clone());
            let (number, direction) = (self.number, self.direction);
            tokio::task::spawn_local(async move {
                let seat = Seat::new(place, &local.telemetry);
                connection::serve(local, board, doors, (number, direction), stream, remote, seat).await;
            });
        }
    }
}

/// Tells a client that there are too many. Closing over what it has sent would reset the connection and lose the
/// answer, so what comes is read for a moment.
fn turn_away(mut stream: TcpStream, places: &Arc<Ceiling>) {
    let Some(place) = places.enter() else { return };
    tokio::task::spawn_local(async move {
        let farewell = async {
            let mut unread = [0; 1024];
            // Who began with TLS would not understand it.
            if stream.read(&mut unread).await? == 0 || unread[0] == 22 {
                return Ok(());
            }
            stream.write_all(FULL).await?;
            stream.shutdown().await?;
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        // A client that does not wait for it misses nothing else.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        drop(place);
    });
}

/// Accepting that fails: said once in a while, since it is tried again many times a second.
#[derive(Default)]
struct Failures {
    told: Option<Instant>,
    unsaid: u32,
}

impl Failures {
    fn tell(&mut self, error: &io::Error) {
        let now = clock::now();
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < TELL) {
            self.unsaid += 1;
            return;
        }
        let times = std::mem::take(&mut self.unsaid) + 1;
        self.told = Some(now);
        tracing::warn!(%error, times, "accepting failed; trying again");
    }
}
