//! The connections of one worker, by cluster and endpoint.

use super::connect::{self, Open};
use super::h2::{Connections, Dial};
use super::lease::{Lease, Lease1};
use super::{Reclaim, RequestBody};
use crate::cluster::{Cluster, Endpoint, Permit};
use crate::fault::Fault;
use crate::telemetry::Telemetry;
use hyper::client::conn::http1;
use proxy_config::model::Protocol;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an unused connection to this host is kept: shorter than any server's own patience.
const IDLE_LOCAL: Duration = Duration::from_secs(4);
/// The same for other hosts.
const IDLE_REMOTE: Duration = Duration::from_secs(30);
/// A connection idle for longer than this is looked at before it is used.
const LOOK_AFTER: Duration = Duration::from_millis(5);
/// Idle HTTP/1 connections kept for one endpoint.
const MAX_IDLE: usize = 1024;

/// Where an exchange goes.
#[derive(Clone, Copy, Debug)]
pub struct Aim<'a> {
    /// The terms.
    pub cluster: &'a Cluster,
    /// One of its endpoints.
    pub endpoint: &'a Endpoint,
    /// The request's host, which a certificate may have to be for.
    pub host: &'a str,
}

impl Aim<'_> {
    #[inline]
    fn key(&self) -> Key {
        let tls = self.cluster.tls_to(self.endpoint).map_or(0, |tls| tls.key(self.host));
        Key { gate: self.cluster.gate.id, endpoint: self.endpoint.id, tls }
    }
}

/// What connections have in common that may be taken for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    gate: u64,
    endpoint: u64,
    /// Certificates and name asked for; 0: plaintext.
    tls: u64,
}

/// An HTTP/1 connection nobody uses.
#[derive(Debug)]
pub struct Idle {
    sender: http1::SendRequest<RequestBody>,
    open: Weak<Open>,
    fd: RawFd,
    local: Option<SocketAddr>,
    served: u32,
    born: Instant,
    since: Instant,
    keep: Duration,
}

#[derive(Debug)]
struct Entry {
    idle: Vec<Idle>,
    streams: Rc<Connections>,
    keep: Duration,
}

/// What a look finds for an exchange without a connection.
enum Found {
    /// A connection that idles, or room on one.
    Lease(Lease),
    /// Permission to open one.
    Permit(Permit),
    /// One that is being opened.
    Dial(Rc<Dial>),
    /// All are in use.
    Nothing,
}

/// All pools of one worker.
#[derive(Debug)]
pub struct Pools {
    worker: usize,
    reclaim: Reclaim,
    telemetry: Arc<Telemetry>,
    entries: RefCell<HashMap<Key, Entry, foldhash::fast::RandomState>>,
}

impl Pools {
    /// Empty pools for worker number `worker`.
    pub fn new(worker: usize, reclaim: Reclaim, telemetry: Arc<Telemetry>) -> Rc<Pools> {
        Rc::new(Pools { worker, reclaim, telemetry, entries: RefCell::default() })
    }

    /// An idle connection for one exchange, unless others wait for one.
    #[inline]
    pub fn idle(&self, to: Aim<'_>, now: Instant) -> Option<Lease> {
        if to.cluster.gate.waiting() > 0 { None } else { self.take_idle(to, now) }
    }

    /// A connection for one exchange: a new one when limits allow (`fresh`: by all means a new one), else
    /// waits for its turn. Dropping the future leaves the queue. Boxed, because it is rare and large.
    #[cold]
    pub fn connect<'a>(
        &'a self,
        to: Aim<'a>,
        fresh: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Lease, Fault>> + 'a>> {
        Box::pin(self.turn(to, fresh))
    }

    async fn turn(&self, to: Aim<'_>, mut fresh: bool) -> Result<Lease, Fault> {
        let cluster = to.cluster;
        let gate = &cluster.gate;
        let _pending = gate.pending(cluster.policy.limits.max_pending)?;
        let mut woken = false;
        loop {
            let mut found = Found::Nothing;
            if woken || gate.waiting() == 0 {
                found = self.look(to, fresh);
                if matches!(found, Found::Nothing) && self.close_one_idle(to) {
                    // The closed connection's task gives its permit back when it runs.
                    tokio::task::yield_now().await;
                    found = self.look(to, fresh);
                }
            }
            let mut queued = None;
            if matches!(found, Found::Nothing) {
                let (waiter, first) = gate.wait(self.worker, woken);
                // What came free before this one stood in line has woken nobody.
                if first {
                    found = self.look(to, fresh);
                }
                queued = Some(waiter);
            }
            match found {
                Found::Lease(lease) => return Ok(lease),
                Found::Permit(permit) => {
                    drop(queued);
                    return self.connect1(to, permit).await;
                }
                Found::Dial(dial) => {
                    drop(queued);
                    dial.wait().await?;
                    fresh = false;
                }
                Found::Nothing => {
                    self.reclaim.ask(self.worker, gate.id);
                    if let Some(waiter) = queued {
                        // A gate never goes away while its cluster is in use.
                        let _ = waiter.await;
                    }
                    woken = true;
                }
            }
        }
    }

    /// What there is for one exchange at this moment.
    fn look(&self, to: Aim<'_>, fresh: bool) -> Found {
        let cluster = to.cluster;
        if !fresh && let Some(lease) = self.take_idle(to, crate::clock::now()) {
            return Found::Lease(lease);
        }
        let http2 = (cluster.protocol == Protocol::Http2).then(|| self.streams(to));
        if let Some(dial) = http2.as_ref().and_then(|streams| streams.dialling()) {
            return Found::Dial(dial);
        }
        match (cluster.gate.connection(cluster.policy.limits.max_connections), http2) {
            (Some(permit), Some(streams)) => {
                let tls = cluster.tls_to(to.endpoint).map(|tls| (tls.clone(), to.host.into()));
                let timeout = cluster.policy.limits.connect_timeout;
                let (address, first) = (to.endpoint.address, to.endpoint.take_first());
                let peer = connect::Peer { address, first, timeout, tls };
                Found::Dial(streams.dial(peer, permit, self.telemetry.clone()))
            }
            (Some(permit), None) => Found::Permit(permit),
            // With no room for a fresh connection a kept one is better than none.
            (None, _) if fresh => {
                let kept = self.take_idle(to, crate::clock::now());
                kept.map_or(Found::Nothing, Found::Lease)
            }
            (None, _) => Found::Nothing,
        }
    }

    async fn connect1(&self, to: Aim<'_>, permit: Permit) -> Result<Lease, Fault> {
        let tls = to.cluster.tls_to(to.endpoint).map(|tls| (tls.clone(), to.host.into()));
        let timeout = to.cluster.policy.limits.connect_timeout;
        // What it is called is settled before it is made: certificates may change meanwhile.
        let key = to.key();
        let (address, first) = (to.endpoint.address, to.endpoint.take_first());
        let peer = connect::Peer { address, first, timeout, tls };
        let fresh = connect::http1(peer, permit, &self.telemetry).await?;
        Ok(Lease::Http1(Lease1 {
            sender: fresh.sender,
            open: fresh.open,
            fd: fresh.fd,
            local: fresh.local,
            served: 0,
            born: crate::clock::now(),
            reused: false,
            key,
        }))
    }

    fn streams(&self, to: Aim<'_>) -> Rc<Connections> {
        let mut entries = self.entries.borrow_mut();
        entries.entry(to.key()).or_insert_with(|| Entry::new(to.cluster, self.worker)).streams.clone()
    }

    #[inline]
    fn take_idle(&self, to: Aim<'_>, now: Instant) -> Option<Lease> {
        let (cluster, key) = (to.cluster, to.key());
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&key)?;
        if cluster.protocol == Protocol::Http2 {
            let limits = &cluster.policy.limits;
            return entry
                .streams
                .stream(limits.max_concurrent_streams, limits.max_connection_duration, now)
                .map(Lease::Http2);
        }
        while let Some(idle) = entry.idle.pop() {
            if let Some(lease) = idle.wake(key, now, cluster.policy.limits.max_connection_duration) {
                return Some(Lease::Http1(lease));
            }
        }
        None
    }

    /// The exchange on `lease` is over on both sides; the connection may serve the next.
    #[inline]
    pub fn give_back(&self, lease: Lease, cluster: &Cluster, now: Instant, keep_alive: Option<Duration>) {
        let max = cluster.policy.limits.max_requests_per_connection;
        let gate = &cluster.gate;
        let lease = match lease {
            Lease::Http1(lease) => lease,
            Lease::Http2(stream) => {
                stream.retire_after(max);
                return;
            }
        };
        let served = lease.served + 1;
        if lease.sender.is_closed() || max.is_some_and(|max| served >= max) {
            return;
        }
        if gate.waiting() > 0 && !gate.hand_over(self.worker) {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(lease.key).or_insert_with(|| Entry::new(cluster, self.worker));
        if entry.idle.len() >= MAX_IDLE {
            return;
        }
        // A server that says when it closes is left one second earlier.
        let hint = keep_alive.map_or(Duration::MAX, |k| k.saturating_sub(Duration::from_secs(1)));
        entry.idle.push(Idle {
            sender: lease.sender,
            open: Rc::downgrade(&lease.open),
            fd: lease.fd,
            local: lease.local,
            served,
            born: lease.born,
            since: now,
            keep: entry.keep.min(hint),
        });
    }

    /// Closes a connection of this gate that `endpoint` has no use for: an idle one of another endpoint or
    /// of another protocol. Where `endpoint` has none at all, another's busy one ends, too.
    fn close_one_idle(&self, to: Aim<'_>) -> bool {
        let own = to.key();
        let http2 = to.cluster.protocol == Protocol::Http2;
        let mut entries = self.entries.borrow_mut();
        let has_some = entries.get(&own).is_some_and(|entry| entry.streams.len() > 0);
        entries.iter_mut().filter(|(key, _)| key.gate == own.gate).any(|(key, entry)| {
            let other = *key != own;
            (other || http2) && entry.idle.pop().is_some()
                || (other || !http2) && entry.streams.give_up_one(!has_some)
        })
    }

    /// Another worker needs a connection of this gate.
    pub fn give_up_one(&self, gate: u64) {
        let mut entries = self.entries.borrow_mut();
        for (_, entry) in entries.iter_mut().filter(|(key, _)| key.gate == gate) {
            if entry.idle.pop().is_some() || entry.streams.give_up_one(true) {
                return;
            }
        }
    }

    /// Closes what has been idle too long; to be called about once a second.
    pub fn sweep(&self, now: Instant) {
        self.entries.borrow_mut().retain(|_, entry| {
            entry.idle.retain(|idle| !idle.sender.is_closed() && now.duration_since(idle.since) < idle.keep);
            let no_streams = entry.streams.sweep(now, entry.keep);
            !(entry.idle.is_empty() && no_streams)
        });
    }

    /// Closes every idle connection to `endpoint`: it was ejected or stopped.
    pub fn forget(&self, endpoint: u64) {
        self.entries.borrow_mut().retain(|key, _| key.endpoint != endpoint);
    }

    /// Connections kept, idle ones of HTTP/1 and all of HTTP/2.
    pub fn len(&self) -> usize {
        self.entries.borrow().values().map(|e| e.idle.len() + e.streams.len()).sum()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    fn new(cluster: &Cluster, worker: usize) -> Entry {
        let default = if cluster.local { IDLE_LOCAL } else { IDLE_REMOTE };
        Entry {
            idle: Vec::new(),
            streams: Connections::new(cluster.gate.clone(), worker),
            keep: cluster.policy.limits.idle_timeout.unwrap_or(default),
        }
    }
}

impl Idle {
    /// The connection for one more exchange, if it is still good.
    #[inline]
    fn wake(self, key: Key, now: Instant, max_age: Option<Duration>) -> Option<Lease1> {
        let open = self.open.upgrade()?;
        let idle = now.saturating_duration_since(self.since);
        if self.sender.is_closed()
            || idle >= self.keep
            || max_age.is_some_and(|age| now.saturating_duration_since(self.born) >= age)
            || idle >= LOOK_AFTER && !quiet(self.fd)
        {
            return None;
        }
        Some(Lease1 {
            sender: self.sender,
            open,
            fd: self.fd,
            local: self.local,
            served: self.served,
            born: self.born,
            reused: true,
            key,
        })
    }
}

/// Whether an idle connection is open and silent: an end or stray bytes make it useless.
fn quiet(fd: RawFd) -> bool {
    // SAFETY: the descriptor belongs to the connection's task on this thread. The task holds what this
    // connection was just woken with, so it has not ended, and it cannot end while this call runs.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    connect::is_quiet(fd)
}
