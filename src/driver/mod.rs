//! Drivers: what starts and stops instances.
//!
//! The scaler decides and orders; a driver carries out and tells by events what became of it. It never
//! decides how many there are, never restarts anything on its own and never sees a request.

pub mod cgroup;
mod exec;
mod freeze;
mod launch;
mod output;
mod port;
pub mod process;
mod ready;
mod spawn;
#[cfg(test)]
pub(crate) mod tests;
pub mod watchdog;

pub use launch::Surroundings;
pub use output::Tail;

use crate::clock::Duration;
use futures_util::future::BoxFuture;
use proxy_config::model::{Revision, amount};
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// Names an instance within this process; never used again.
pub type InstanceId = u64;

/// An instance that should be.
#[derive(Clone, Debug)]
pub struct Order {
    /// How events name it.
    pub id: InstanceId,
    /// How people name it: `hello-00001/1`.
    pub name: Arc<str>,
    /// What it runs.
    pub revision: Arc<Revision>,
}

/// What happened to an instance.
#[derive(Debug)]
pub enum Event {
    /// It runs.
    Started {
        /// Which.
        instance: InstanceId,
        /// Its process, where it is one of this host.
        pid: Option<u32>,
        /// The last lines of its standard error, as they come.
        stderr: Tail,
    },
    /// Its port accepts connections.
    Listening {
        /// Which.
        instance: InstanceId,
        /// Where.
        address: SocketAddr,
        /// The connection that found it open: one that does not block, on which nothing was sent.
        first: Option<TcpStream>,
    },
    /// It is gone, with everything it started. The last event of each order.
    Exited {
        /// Which.
        instance: InstanceId,
        /// How it ended.
        exit: Exit,
    },
}

/// How an instance ended, and the last it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// How.
    pub how: How,
    /// The last lines of its standard error, oldest first.
    pub stderr: Vec<String>,
    /// Another process listens on the port that was chosen for it.
    pub port_taken: bool,
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It exited with this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel killed it because it used more memory than its limit, in bytes; none: because those above it did.
    OutOfMemory(Option<u64>),
    /// It could not be started: why.
    NotStarted(String),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Code(code) => write!(f, "exited with status {code}"),
            How::Signal(signal) => write!(f, "was ended by signal {signal}"),
            How::OutOfMemory(Some(limit)) => write!(
                f,
                "was killed: it used more memory than resources.limits.memory allows ({})",
                amount(*limit)
            ),
            How::OutOfMemory(None) => {
                f.write_str("was killed: memory ran out on the host or in a control group above its own")
            }
            How::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

/// Runs a command and waits for its end, at most for so long, then ends it: whether it exited with status 0.
pub type Exec = Arc<dyn Fn(Vec<String>, Duration) -> BoxFuture<'static, bool> + Send + Sync>;

/// Starts and stops instances. Calls return at once; events follow on the channel that the driver was
/// made with.
pub trait Driver: Send {
    /// Starts an instance. `Exited` follows in any case, sooner or later.
    fn start(&mut self, order: Order);

    /// Asks an instance to end, and ends it after `grace`. Asked again, the shorter grace counts.
    fn stop(&mut self, instance: InstanceId, grace: Duration);

    /// What runs commands beside an instance, with its environment and in its directory, for as long as the
    /// instance is there; none: there is no such thing, or no such instance.
    fn exec(&self, instance: InstanceId) -> Option<Exec>;

    /// Takes the processor from an instance and from everything it started; memory and sockets stay as they
    /// are. When this returns, `thaw` undoes it whatever was done before.
    fn freeze(&mut self, instance: InstanceId);

    /// Lets a frozen instance go on where it was.
    fn thaw(&mut self, instance: InstanceId);
}
