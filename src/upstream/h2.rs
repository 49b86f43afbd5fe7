//! HTTP/2 connections of one worker to one endpoint: several, each with its own count of streams.
//!
//! hyper queues streams beyond the peer's limit without bound, so streams are counted here and a further
//! connection is opened, or the exchange waits, when all are full. Dialling is done once for all who wait.

use super::RequestBody;
use super::connect::{self, Fresh2, Open, Peer};
use crate::cluster::{Gate, Permit};
use crate::fault::{Fault, Kind};
use crate::telemetry::Telemetry;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Streams on one connection, whatever the peer allows: h2 takes a lock for each connection, and one
/// stalled connection should not stall everything.
const MAX_STREAMS: usize = 100;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    sender: RefCell<http2::SendRequest<RequestBody>>,
    streams: Cell<usize>,
    served: Cell<u32>,
    retired: Cell<bool>,
    idle_since: Cell<Option<Instant>>,
    born: Instant,
    local: Option<SocketAddr>,
    allowed: Rc<Cell<usize>>,
    _open: Rc<Open>,
}

impl Connection {
    fn new(fresh: Fresh2) -> Connection {
        let now = crate::clock::now();
        Connection {
            sender: RefCell::new(fresh.sender),
            streams: Cell::new(0),
            served: Cell::new(0),
            retired: Cell::new(false),
            idle_since: Cell::new(Some(now)),
            born: now,
            local: fresh.local,
            allowed: fresh.allowed,
            _open: fresh.open,
        }
    }

    fn has_room(&self, most: usize) -> bool {
        let sender = self.sender.borrow();
        !self.retired.get()
            && !sender.is_closed()
            && self.streams.get() < most.min(MAX_STREAMS).min(self.allowed.get())
    }

    fn is_over(&self) -> bool {
        self.sender.borrow().is_closed() || self.retired.get()
    }
}

/// The outcome of a dial that several may wait for.
#[derive(Debug, Default)]
pub(super) struct Dial {
    done: Notify,
    fault: RefCell<Option<Fault>>,
    made: RefCell<Option<Rc<Connection>>>,
    over: Cell<bool>,
}

impl Dial {
    /// Waits for the dial; its fault is everyone's.
    pub(super) async fn wait(&self) -> Result<(), Fault> {
        if !self.over.get() {
            self.done.notified().await;
        }
        if let Some(fault) = &*self.fault.borrow() {
            return Err(fault.clone());
        }
        // Dialling it again would give the same, without end.
        let useless = |c: &Rc<Connection>| c.served.get() == 0 && c.sender.borrow().is_closed();
        if self.made.borrow().as_ref().is_some_and(useless) {
            return Err(Fault::because(Kind::ConnectFailure, "closed before it took a request"));
        }
        Ok(())
    }
}

/// All connections of this worker to one endpoint.
#[derive(Debug)]
pub(super) struct Connections {
    gate: Arc<Gate>,
    worker: usize,
    open: RefCell<Vec<Rc<Connection>>>,
    dialling: RefCell<Option<Rc<Dial>>>,
}

impl Connections {
    /// None yet; they will count against `gate`.
    pub(super) fn new(gate: Arc<Gate>, worker: usize) -> Rc<Connections> {
        Rc::new(Connections { gate, worker, open: RefCell::default(), dialling: RefCell::default() })
    }

    /// A stream on the newest connection that has room.
    pub(super) fn stream(
        self: &Rc<Self>,
        most: u32,
        max_age: Option<Duration>,
        now: Instant,
    ) -> Option<Stream> {
        let mut open = self.open.borrow_mut();
        open.retain(|c| !c.is_over());
        if let Some(age) = max_age {
            open.iter().filter(|c| now.duration_since(c.born) >= age).for_each(|c| c.retired.set(true));
        }
        let connection = open.iter().rfind(|c| c.has_room(most as usize))?;
        connection.streams.set(connection.streams.get() + 1);
        connection.idle_since.set(None);
        let served = connection.served.get();
        connection.served.set(served.saturating_add(1));
        Some(Stream { connection: connection.clone(), home: self.clone(), reused: served > 0 })
    }

    /// The dial under way, if there is one.
    pub(super) fn dialling(&self) -> Option<Rc<Dial>> {
        self.dialling.borrow().clone()
    }

    /// Opens one more connection, in a task of its own: who asked first may leave, the others still wait.
    pub(super) fn dial(self: &Rc<Self>, peer: Peer, permit: Permit, telemetry: Arc<Telemetry>) -> Rc<Dial> {
        let dial = Rc::new(Dial::default());
        *self.dialling.borrow_mut() = Some(dial.clone());
        let (all, outcome) = (self.clone(), dial.clone());
        tokio::task::spawn_local(async move {
            match connect::http2(peer, permit, &telemetry).await {
                Ok(fresh) => {
                    let connection = Rc::new(Connection::new(fresh));
                    *outcome.made.borrow_mut() = Some(connection.clone());
                    all.open.borrow_mut().push(connection);
                }
                Err(fault) => *outcome.fault.borrow_mut() = Some(fault),
            }
            *all.dialling.borrow_mut() = None;
            outcome.over.set(true);
            outcome.done.notify_waiters();
        });
        dial
    }

    /// Closes what is over or has been idle too long. True: nothing is left.
    pub(super) fn sweep(&self, now: Instant, idle: Duration) -> bool {
        let mut open = self.open.borrow_mut();
        open.retain(|c| {
            let stale = c.idle_since.get().is_some_and(|since| now.duration_since(since) >= idle);
            !(c.is_over() && c.streams.get() == 0 || stale)
        });
        open.is_empty() && self.dialling.borrow().is_none()
    }

    /// Gives up one connection for others: an idle one at once, else (`busy`) one that ends its streams first.
    pub(super) fn give_up_one(&self, busy: bool) -> bool {
        let mut open = self.open.borrow_mut();
        if let Some(at) = open.iter().position(|c| c.streams.get() == 0) {
            open.swap_remove(at);
            return true;
        }
        match open.iter().position(|c| !c.retired.get()) {
            Some(at) if busy => {
                open[at].retired.set(true);
                open.swap_remove(at);
                true
            }
            _ => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }
}

/// One stream of an HTTP/2 connection.
#[derive(Debug)]
pub struct Stream {
    connection: Rc<Connection>,
    home: Rc<Connections>,
    reused: bool,
}

impl Stream {
    pub(super) fn reused(&self) -> bool {
        self.reused
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.connection.local
    }

    pub(super) fn send(
        &self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        self.connection.sender.borrow_mut().try_send_request(request)
    }

    /// After `max` exchanges the connection takes no more.
    pub(super) fn retire_after(&self, max: Option<u32>) {
        if max.is_some_and(|max| self.connection.served.get() >= max) {
            self.connection.retired.set(true);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = self.connection.streams.get() - 1;
        self.connection.streams.set(streams);
        if streams == 0 {
            self.connection.idle_since.set(Some(crate::clock::now()));
        }
        // However the stream ended: who waits gets its place, or the connection's.
        let gate = &self.home.gate;
        if gate.waiting() > 0 && !gate.hand_over(self.home.worker) {
            self.home.give_up_one(true);
        }
    }
}
