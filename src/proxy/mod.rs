//! One exchange's way through the proxy, whatever its direction.
//!
//! Around it stand three layers: observe (the record opens, the snapshot is taken), rescue (a fault becomes
//! an answer), admit (drain and ceilings). Inside is one screen of plain code, `forward`: find the route,
//! choose the destination, prepare the head, then slot, lease, send, until an answer or a verdict.

mod admit;
mod again;
mod answer;
mod attempt;
mod body;
mod closing;
mod copy;
mod custom;
mod deadline;
mod denial;
mod departure;
mod flow;
mod forward;
mod guard;
mod hold;
mod lineage;
mod observe;
mod passthrough;
mod prepare;
mod rescue;
mod retry;
mod splice;
mod standing;
mod tunnel;
mod unread;
mod unsent;

pub use admit::Admit;
pub use body::ResponseBody;
pub use closing::Closing;
pub use denial::of_client as tell_denied;
pub use departure::Departures;
pub use flow::Flow;
pub use forward::{Exchange, Failed, Forward};
pub use observe::Observe;
pub use passthrough::Passthrough;
pub use rescue::Rescue;
pub use splice::{Raw, pass_on};
pub use standing::Standing;
pub use unread::unread;

use crate::auth::jwt::Cache;
use crate::cluster::Rng;
use crate::drain::{Counter, Drain};
use crate::http::headers::{Peer, RequestIds};
use crate::http::line::Line;
use crate::limit::{Place, Pressure};
use crate::record::Direction;
use crate::snapshot::{Reader, Snapshot};
use crate::telemetry::{self, Telemetry};
use crate::upstream::{Pools, Uploads};
use http::HeaderValue;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use tower::ServiceBuilder;

/// Bytes of one HTTP/2 request body that are taken before somebody reads it.
pub const STREAM_WINDOW: u32 = 256 * 1024;

/// What the exchanges of one worker share; nothing of it leaves the worker's thread.
#[derive(Debug)]
pub struct Local {
    /// The worker's number.
    pub index: usize,
    /// The snapshot in force.
    pub snapshots: RefCell<Reader>,
    /// Upstream connections.
    pub pools: Rc<Pools>,
    /// Process metrics.
    pub telemetry: Arc<Telemetry>,
    /// This worker's access log lines.
    pub log: telemetry::Worker,
    /// For choices.
    pub rng: RefCell<Rng>,
    /// Names for requests that have none.
    pub ids: RefCell<RequestIds>,
    /// The end of the process.
    pub drain: Arc<Drain>,
    /// This worker's exchanges in flight.
    pub counter: Counter,
    /// Request bodies that are waited for.
    pub uploads: Rc<Uploads>,
    /// Clusters made up for unknown hosts that may be dialled.
    pub passthrough: Passthrough,
    /// Sockets of held exchanges, watched for their end.
    pub departures: Rc<Departures>,
    /// This machine's name, for header templates.
    pub hostname: Box<str>,
    /// Exchanges of one worker at once, at most.
    pub max_exchanges: usize,
    /// Whether memory is short.
    pub pressure: Arc<Pressure>,
    /// This worker's lines of the audit stream.
    pub audit: telemetry::Worker,
    /// Tokens that were verified.
    pub tokens: RefCell<Cache>,
}

impl Local {
    /// The snapshot in force.
    #[inline]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow_mut().current().clone()
    }
}

/// A client connection on the counts, until its last exchange or its tunnel has ended.
#[derive(Debug)]
pub struct Seat {
    telemetry: Arc<Telemetry>,
    _place: Place,
}

impl Seat {
    /// One more client connection.
    pub fn new(place: Place, telemetry: &Arc<Telemetry>) -> Seat {
        telemetry.metrics.downstream_connections.inc();
        Seat { telemetry: telemetry.clone(), _place: place }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.telemetry.metrics.downstream_connections.dec();
    }
}

/// What all exchanges of one client connection have in common.
#[derive(Debug)]
pub struct Connection {
    /// The worker.
    pub local: Rc<Local>,
    /// The listener's number in snapshots.
    pub listener: usize,
    /// Which side of the service the listener stands on.
    pub direction: Direction,
    /// The client.
    pub remote: SocketAddr,
    /// Where it reached us.
    pub address: SocketAddr,
    /// Its socket, which is open as long as any exchange of it lives.
    pub socket: RawFd,
    /// hyper does not take the end of what this client sends for its departure: exchanges watch for that.
    pub half_close: bool,
    /// The client, as header fields name it.
    pub peer: Peer,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// How it was let in, and whether it would be now.
    pub standing: Standing,
    /// What `X-Forwarded-Client-Cert` says of the client, if it showed a certificate.
    pub vouched: Option<HeaderValue>,
    /// Exchanges in flight on it.
    pub busy: Cell<u32>,
    /// How often its task has run: what happens in one run happens at one time.
    pub runs: Cell<u32>,
    /// What its socket and its exchanges tell each other.
    pub line: Arc<Line>,
    /// `line.reads` when the last exchange ended: more of them since then are a head under way.
    pub reads_served: Cell<u32>,
    /// How its answers move.
    pub flow: Flow,
    /// Its place among all client connections.
    pub seat: Seat,
}

/// The layers and the spine, for one client connection.
pub type Stack = Observe<Rescue<Admit<Forward>>>;

/// Builds the stack of one client connection.
pub fn stack(connection: Rc<Connection>) -> Stack {
    ServiceBuilder::new()
        .layer(Observe::layer(connection.clone()))
        .layer(tower::layer::layer_fn(Rescue::new))
        .layer(tower::layer::layer_fn(Admit::new))
        .service(Forward::new(connection))
}
