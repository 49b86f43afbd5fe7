//! One address that can take exchanges, and the permission to send it one.

use super::holder::Line;
use super::{Health, Members};
use crate::record::Birth;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{self, Ordering::Relaxed, Ordering::SeqCst};

const CLOSED: u64 = 1 << 63;

/// A name, not a state: nothing waits for it.
static NEXT_ID: atomic::AtomicU64 = atomic::AtomicU64::new(1);

/// One member of a cluster. Lives as long as anybody uses it; its id is never used again.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique in this process; what connection pools are keyed by.
    pub id: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// The instance's name, or the address.
    pub name: Arc<str>,
    /// Relative share.
    pub weight: u32,
    /// Whether it is left out for its errors.
    pub health: Health,
    /// How it was started, if it was.
    birth: Option<Arc<Birth>>,
    /// Exchanges it may have at once; 0: no limit.
    limit: AtomicU32,
    /// Bit 63: takes no more. Below: exchanges it has.
    state: AtomicU64,
    /// Slots ever granted, so that work shorter than a look is still seen.
    granted: AtomicU64,
    /// What was behind it has exited.
    ended: AtomicBool,
    /// A connection to it that nobody has used yet.
    first: Mutex<Option<TcpStream>>,
}

impl Endpoint {
    /// A new endpoint with no exchanges.
    pub fn new(address: SocketAddr, name: Arc<str>, weight: u32, limit: u32) -> Arc<Endpoint> {
        Arc::new(Endpoint::with(address, name, weight, limit, None))
    }

    /// The same for an instance that was started. `first`: a connection to it that does not block.
    pub fn born(
        address: SocketAddr,
        name: Arc<str>,
        limit: u32,
        birth: Birth,
        first: Option<TcpStream>,
    ) -> Arc<Endpoint> {
        let mut endpoint = Endpoint::with(address, name, 1, limit, Some(Arc::new(birth)));
        endpoint.first = Mutex::new(first);
        Arc::new(endpoint)
    }

    fn with(
        address: SocketAddr,
        name: Arc<str>,
        weight: u32,
        limit: u32,
        birth: Option<Arc<Birth>>,
    ) -> Endpoint {
        Endpoint {
            id: NEXT_ID.fetch_add(1, Relaxed),
            address,
            name,
            weight: weight.max(1),
            health: Health::default(),
            birth,
            limit: AtomicU32::new(limit),
            state: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            first: Mutex::new(None),
        }
    }

    /// How it was started, if it was.
    pub fn birth(&self) -> Option<&Arc<Birth>> {
        self.birth.as_ref()
    }

    /// The connection it was born with, for the first who wants one.
    pub fn take_first(&self) -> Option<TcpStream> {
        self.first.lock().take()
    }

    /// Closes the connection it was born with, if nobody has taken it: what accepts one at a time is not to wait
    /// for a request on it.
    pub fn drop_first(&self) {
        drop(self.take_first());
    }

    /// Exchanges it has now.
    #[inline]
    pub fn active(&self) -> u32 {
        (self.state.load(SeqCst) & u64::from(u32::MAX)) as u32
    }

    /// Slots granted since it exists.
    pub fn granted(&self) -> u64 {
        self.granted.load(Relaxed)
    }

    /// Exchanges it may have at once; 0: no limit.
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Changes the limit for exchanges to come.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Relaxed);
    }

    /// Takes no more exchanges; those it has go on.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, SeqCst);
    }

    /// The instance behind it has exited: it takes no more exchanges, and those it has come to nothing.
    pub fn end(&self) {
        self.close();
        self.ended.store(true, SeqCst);
    }

    /// Whether the instance behind it has exited.
    pub fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Takes exchanges again.
    pub fn reopen(&self) {
        self.state.fetch_and(!CLOSED, SeqCst);
    }

    /// Closes it only if it has no exchange at this very moment.
    pub fn close_if_idle(&self) -> bool {
        self.state.compare_exchange(0, CLOSED, SeqCst, SeqCst).is_ok()
    }

    /// Whether it takes no more exchanges.
    pub fn is_closed(&self) -> bool {
        self.state.load(SeqCst) & CLOSED != 0
    }

    /// Whether one more would be granted now.
    #[inline]
    pub fn has_room(&self) -> bool {
        let state = self.state.load(Relaxed);
        let limit = self.limit.load(Relaxed);
        state & CLOSED == 0 && (limit == 0 || state < u64::from(limit))
    }

    #[inline]
    fn enter(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        let entered = if limit == 0 {
            let before = self.state.fetch_add(1, SeqCst);
            if before & CLOSED != 0 {
                self.state.fetch_sub(1, SeqCst);
                return false;
            }
            true
        } else {
            // A closed endpoint's state is above every limit.
            self.state
                .fetch_update(SeqCst, SeqCst, |state| (state < u64::from(limit)).then_some(state + 1))
                .is_ok()
        };
        if entered {
            self.granted.fetch_add(1, Relaxed);
        }
        entered
    }
}

/// Permission for one exchange at one endpoint. Dropping it frees the place, and gives it to the oldest
/// of those who wait for one.
#[derive(Debug)]
pub struct Slot {
    endpoint: Arc<Endpoint>,
    home: Option<Arc<Members>>,
    /// Of the holder, where it is not this process's own.
    pub(super) line: Option<Arc<Line>>,
}

impl Slot {
    /// Takes a place at `endpoint`, if it has one. `home` is told when the place is free again.
    #[inline]
    pub(super) fn take(endpoint: &Arc<Endpoint>, home: Option<&Arc<Members>>) -> Option<Slot> {
        endpoint.enter().then(|| Slot { endpoint: endpoint.clone(), home: home.cloned(), line: None })
    }

    /// Where the exchange may go.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.left();
        }
        self.endpoint.state.fetch_sub(1, SeqCst);
        if let Some(home) = &self.home {
            home.freed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(limit: u32) -> Arc<Endpoint> {
        Endpoint::new("127.0.0.1:1".parse().unwrap(), "one".into(), 1, limit)
    }

    #[test]
    fn a_limit_is_exact_and_a_dropped_slot_is_free_again() {
        let e = endpoint(2);
        let a = Slot::take(&e, None).unwrap();
        let _b = Slot::take(&e, None).unwrap();
        assert!(Slot::take(&e, None).is_none());
        drop(a);
        assert!(Slot::take(&e, None).is_some());
        assert_eq!(e.granted(), 3);
    }

    #[test]
    fn a_closed_endpoint_grants_nothing_whatever_its_limit() {
        for limit in [0, 1, 100] {
            let e = endpoint(limit);
            let slot = Slot::take(&e, None).unwrap();
            assert!(!e.close_if_idle());
            e.close();
            assert!(Slot::take(&e, None).is_none());
            assert_eq!(e.active(), 1);
            drop(slot);
            assert_eq!(e.active(), 0);
            e.reopen();
            assert!(Slot::take(&e, None).is_some());
        }
    }

    #[test]
    fn the_limit_holds_under_threads() {
        let e = endpoint(3);
        let peak = AtomicU32::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..5_000 {
                        if let Some(slot) = Slot::take(&e, None) {
                            peak.fetch_max(slot.endpoint().active(), SeqCst);
                        }
                    }
                });
            }
        });
        assert!(peak.load(SeqCst) <= 3);
        assert_eq!(e.active(), 0);
    }
}
