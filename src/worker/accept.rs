//! Accepting: sockets in, connections on their own tasks.

use super::board::Board;
use super::connection;
use crate::limit::Ceiling;
use crate::proxy::{Local, Seat};
use crate::record::Direction;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// After running out of descriptors, before trying again.
const BREATH: Duration = Duration::from_millis(50);

/// The listening sockets of one worker.
pub(super) struct Listeners {
    local: Rc<Local>,
    board: Rc<Board>,
    connections: Arc<Ceiling>,
    tasks: HashMap<usize, JoinHandle<()>>,
}

impl Listeners {
    /// None yet.
    pub(super) fn new(local: Rc<Local>, board: Rc<Board>, connections: Arc<Ceiling>) -> Listeners {
        Listeners { local, board, connections, tasks: HashMap::new() }
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
}

impl Door {
    async fn run(self, listener: TcpListener) {
        let metrics = &self.local.telemetry.metrics;
        loop {
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The client's own doing, or ours for want of descriptors: then others must end first.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "accepting failed; trying again");
                        tokio::time::sleep(BREATH).await;
                    }
                    continue;
                }
            };
            metrics.downstream_opened.inc();
            let Some(place) = self.connections.enter() else {
                metrics.downstream_refused.inc();
                continue;
            };
            let (local, board) = (self.local.clone(), self.board.clone());
            let (number, direction) = (self.number, self.direction);
            tokio::task::spawn_local(async move {
                let seat = Seat::new(place, &local.telemetry);
                connection::serve(local, board, number, direction, stream, remote, seat).await;
            });
        }
    }
}
