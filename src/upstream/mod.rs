//! Connections to destinations: made, kept, lent, counted. One set of pools a worker, nothing shared.
//!
//! HTTP/1 connections are lent to one exchange at a time, last in first out; HTTP/2 connections carry as many
//! streams as both sides allow. A connection counts against its cluster's gate from dial to close. This room
//! knows clusters and endpoints, but neither routes nor retries.

mod body;
mod connect;
mod h2;
mod heads;
mod lease;
mod nudge;
mod pool;
mod reclaim;
mod sent;
mod uploads;
mod wire;

pub use body::{RequestBody, Source};
pub use connect::{Open, dial};
pub use lease::{Lease, SendError, broke_http2, full};
pub use pool::{Aim, Idle, Pools};
pub use reclaim::Reclaim;
pub use uploads::Uploads;
pub use wire::poll_write_list;

use std::future::Future;

/// Runs hyper's own tasks on this worker's thread; they need not be `Send`.
#[derive(Clone, Copy, Debug)]
pub struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
