//! Looks up the names of clusters that have names instead of addresses, again and again.
//!
//! One task on the control thread; a resolver is built only when the first name is to be looked up. What is
//! due when is decided in `names`, what is asked in `system`. A name that cannot be looked up keeps its last
//! good answer; a cluster all of whose names never could has no endpoints. It never chooses among endpoints.

mod names;
mod system;

pub use system::System;

use crate::clock::{self, Duration, Instant};
use names::Names;
use proxy_config::model::DnsTarget;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Questions at once.
const MAX_ASKING: usize = 16;
/// Without anything to do, the task looks around this often.
const IDLE: Duration = Duration::from_secs(3600);

/// Clusters by name, each with the names that its endpoints come from.
pub type Targets = Vec<(String, Vec<DnsTarget>)>;

/// Endpoints: address and weight.
pub type Found = Vec<(SocketAddr, u32)>;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These are the endpoints of the cluster now; none: its names, of which nothing is known, cannot be looked up.
    Endpoints(String, Found),
    /// A look-up failed: the name, and why.
    Failed(String, String),
}

/// Addresses of a name, and how long they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Time to live.
    pub ttl: Duration,
}

/// Looks names up; a trait so that tests need no network.
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of `name`.
    fn lookup(&self, name: String) -> impl Future<Output = Result<Answer, String>> + Send;
}

/// The task; it ends when this is dropped.
#[derive(Debug)]
pub struct Discover {
    wanted: watch::Sender<Arc<Targets>>,
}

impl Discover {
    /// Starts on the current runtime, with nothing to look up. `on_event` is called from the task.
    pub fn spawn<L, F>(lookup: L, on_event: F) -> Discover
    where
        L: Lookup,
        F: FnMut(Event) + Send + 'static,
    {
        let (wanted, orders) = watch::channel(Arc::default());
        tokio::spawn(run(Arc::new(lookup), orders, on_event));
        Discover { wanted }
    }

    /// From now on these clusters are kept up to date, and no others; from any thread. What is known of
    /// them already is told again at once, so that a cluster made anew gets its endpoints.
    pub fn apply(&self, targets: Targets) {
        self.wanted.send_replace(Arc::new(targets));
    }
}

async fn run<L: Lookup, F: FnMut(Event)>(
    lookup: Arc<L>,
    mut orders: watch::Receiver<Arc<Targets>>,
    mut on_event: F,
) {
    let mut names = Names::default();
    let mut asking: JoinSet<(String, Result<Answer, String>)> = JoinSet::new();
    loop {
        let now = clock::now();
        for name in names.due(now, MAX_ASKING.saturating_sub(asking.len())) {
            let lookup = Arc::clone(&lookup);
            asking.spawn(async move {
                let answer = lookup.lookup(name.clone()).await;
                (name, answer)
            });
        }
        let next: Instant = names.next().filter(|_| asking.len() < MAX_ASKING).unwrap_or(now + IDLE);
        let events = tokio::select! {
            order = orders.changed() => {
                if order.is_err() {
                    return;
                }
                let targets = Arc::clone(&orders.borrow_and_update());
                names.apply(clock::now(), &targets)
            }
            Some(done) = asking.join_next() => match done {
                Ok((name, answer)) => names.answered(clock::now(), &name, answer, fastrand::f64()),
                // A look-up that panicked: its name stays marked as asked for, so ask anew.
                Err(_) => {
                    names.ask_again(clock::now());
                    Vec::new()
                }
            },
            () = tokio::time::sleep_until(next.into()) => Vec::new(),
        };
        events.into_iter().for_each(&mut on_event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Fixed(BTreeMap<&'static str, &'static str>);

    impl Lookup for Fixed {
        async fn lookup(&self, name: String) -> Result<Answer, String> {
            let ip = self.0.get(name.as_str()).ok_or("no such name")?;
            assert_ne!(*ip, "panic", "as the table says");
            Ok(Answer { addresses: vec![ip.parse().unwrap()], ttl: Duration::from_secs(60) })
        }
    }

    fn target(host: &str, port: u16) -> DnsTarget {
        DnsTarget { host: host.to_owned(), port, weight: 1 }
    }

    #[test]
    fn names_are_looked_up_and_their_clusters_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
            let fixed = Fixed(BTreeMap::from([("a.example", "192.0.2.1"), ("p.example", "panic")]));
            let discover = Discover::spawn(fixed, move |event| {
                let _ = told.send(event);
            });
            discover.apply(vec![
                ("p".to_owned(), vec![target("p.example", 80)]),
                ("a".to_owned(), vec![target("a.example", 80)]),
                ("b".to_owned(), vec![target("b.example", 80)]),
                ("c".to_owned(), vec![target("127.0.0.1", 81)]),
            ]);
            let mut seen = Vec::new();
            while seen.len() < 4 {
                let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
                seen.push(event.unwrap().unwrap());
            }
            let endpoints = |name: &str, address: &str| {
                Event::Endpoints(name.to_owned(), vec![(address.parse().unwrap(), 1)])
            };
            assert!(seen.contains(&endpoints("a", "192.0.2.1:80")), "{seen:?}");
            assert!(seen.contains(&endpoints("c", "127.0.0.1:81")), "{seen:?}");
            let failed = Event::Failed("b.example".to_owned(), "no such name".to_owned());
            assert!(seen.contains(&failed), "{seen:?}");
            assert!(seen.contains(&Event::Endpoints("b".to_owned(), Vec::new())), "{seen:?}");
        });
    }
}
