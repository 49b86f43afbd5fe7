//! A worker: one thread, one single-threaded runtime, its own listening sockets and upstream connections.
//!
//! Nothing of a worker's can leave its thread, and the compiler sees to that. It takes orders over a channel
//! (listen here, close that), reads the snapshot in force, and knows nothing of who makes either.

mod accept;
mod board;
mod connection;
mod entry;
mod socket;

use crate::clock;
use crate::cluster::Rng;
use crate::drain::{Drain, Phase};
use crate::http::headers::RequestIds;
use crate::limit::{Ceiling, Pressure};
use crate::proxy::{Departures, Local, Passthrough};
use crate::record::Direction;
use crate::snapshot::Published;
use crate::telemetry::Telemetry;
use crate::upstream::{Pools, Reclaim};
use board::Board;
use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

/// Between looks at connections: how exact their patience is.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker is told.
#[derive(Debug)]
pub enum Order {
    /// Accept on this socket for the listener with this number in snapshots.
    Listen {
        /// The listener's number.
        number: usize,
        /// Which side of the service it stands on.
        direction: Direction,
        /// Bound and listening.
        socket: TcpListener,
    },
    /// Accept no more for this listener; its connections finish what they have.
    Close {
        /// The listener's number.
        number: usize,
    },
    /// Close idle connections to an endpoint that is gone.
    Forget {
        /// The endpoint's id.
        endpoint: u64,
    },
}

/// How long clients may be silent within an exchange; `None`: for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Within a request body that looks like one message.
    pub body: Option<Duration>,
    /// Without taking anything of the answers that are ready for them.
    pub answer: Option<Duration>,
}

/// What a worker is made from.
#[derive(Debug)]
pub struct Make {
    /// Its number, from 0.
    pub index: usize,
    /// The snapshot in force.
    pub published: Arc<Published>,
    /// Metrics and logs.
    pub telemetry: Arc<Telemetry>,
    /// The end of the process.
    pub drain: Arc<Drain>,
    /// Client connections of the whole process.
    pub connections: Arc<Ceiling>,
    /// Asking other workers for idle connections.
    pub reclaim: Reclaim,
    /// Being asked.
    pub asked: mpsc::UnboundedReceiver<u64>,
    /// This machine's name.
    pub hostname: Box<str>,
    /// Exchanges of this worker at once, at most.
    pub max_exchanges: usize,
    /// How long clients may be silent.
    pub patience: Patience,
    /// Whether memory is short.
    pub pressure: Arc<Pressure>,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(make: Make) -> io::Result<Worker> {
        // Listeners and endpoints are few and change rarely: what is queued here is bounded by them.
        let (orders, inbox) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name(format!("worker-{}", make.index)).spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(1)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(run(make, inbox)),
                Err(error) => tracing::error!(%error, "a worker has no runtime"),
            }
        })?;
        Ok(Worker { orders, thread })
    }

    /// Gives an order; one given to a worker that has ended is lost with it.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Another way to give orders.
    pub fn orders(&self) -> mpsc::UnboundedSender<Order> {
        self.orders.clone()
    }

    /// Waits for its end, which comes with the last phase of the drain.
    pub fn join(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            tracing::error!("a worker ended in a panic");
        }
    }
}

async fn run(make: Make, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let Make {
        index,
        published,
        telemetry,
        drain,
        connections,
        reclaim,
        mut asked,
        hostname,
        max_exchanges,
        patience,
        pressure,
    } = make;
    let departures = match Departures::new() {
        Ok(departures) => departures,
        Err(error) => return tracing::error!(%error, "a worker has no descriptor to watch clients with"),
    };
    let local = Rc::new(Local {
        index,
        snapshots: RefCell::new(published.reader()),
        pools: Pools::new(index, reclaim, telemetry.clone()),
        log: telemetry.worker(index),
        audit: telemetry.worker(index),
        uploads: Rc::default(),
        passthrough: Passthrough::new(telemetry.clone()),
        rng: RefCell::new(Rng::new()),
        ids: RefCell::new(RequestIds::new(Rng::new())),
        counter: drain.counter(),
        drain: drain.clone(),
        telemetry,
        departures,
        hostname,
        max_exchanges,
        pressure,
        tokens: RefCell::default(),
    });
    let board = Rc::new(Board::default());
    tokio::task::spawn_local(local.log.clone().keep_flushing());
    tokio::task::spawn_local(local.audit.clone().keep_flushing());
    tokio::task::spawn_local(local.departures.clone().run());
    let mut listeners = accept::Listeners::new(local.clone(), board.clone(), connections);
    let mut phase = drain.watch();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(Order::Listen { number, direction, socket }) => listeners.open(number, direction, socket),
                Some(Order::Close { number }) => {
                    listeners.close(number);
                    board.finish_listener(number);
                }
                Some(Order::Forget { endpoint }) => local.pools.forget(endpoint),
                None => break,
            },
            Some(gate) = asked.recv() => local.pools.give_up_one(gate),
            _ = sweep.tick() => look(&board, &local, patience),
            Ok(()) = phase.changed() => match *phase.borrow() {
                Phase::Closing => board.finish_front(clock::now(), &local),
                Phase::Done => break,
                Phase::Running | Phase::Draining => {}
            },
        }
    }
    local.log.flush();
    local.audit.flush();
}

/// Once a second: who has been silent for too long, and what is not needed any more.
fn look(board: &Board, local: &Local, patience: Patience) {
    let now = clock::now();
    board.sweep(now, patience.answer, &local.snapshot());
    if let Some(patience) = patience.body {
        local.uploads.sweep(now, patience);
    }
    local.pools.sweep(now);
}
