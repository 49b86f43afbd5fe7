//! Connections that go on unopened: bytes joined with an endpoint of the cluster that the name asked for leads
//! to.
//!
//! Nothing of them is looked at. Slot, place and counts are held as long as either side has something to say.

use super::{Local, Seat, denial};
use crate::clock;
use crate::cluster::{Permit, Slot};
use crate::fault::{Fault, Kind};
use crate::snapshot::{Destination, Snapshot};
use crate::tls::Passthrough;
use crate::upstream::{self, Open};
use prometheus_client::metrics::counter::Counter;
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Without a byte in either direction, as Envoy has it.
const IDLE: Duration = Duration::from_secs(3600);
/// Between looks at whether a connection would be let in now.
const LOOK: Duration = Duration::from_secs(1);
/// Carried at once.
const CHUNK: usize = 16 * 1024;

/// A client's connection of which nothing was answered yet.
#[derive(Debug)]
pub struct Raw {
    /// Its socket.
    pub stream: TcpStream,
    /// What was read of it.
    pub start: Vec<u8>,
    /// The name it asks for.
    pub sni: Option<String>,
    /// The client.
    pub remote: SocketAddr,
    /// Where it reached us.
    pub address: SocketAddr,
    /// The listener's number.
    pub listener: usize,
}

/// What a connection holds at its other end.
struct Joined {
    stream: TcpStream,
    _open: Rc<Open>,
    _slot: Slot,
    /// Its whole length at most.
    longest: Option<Duration>,
}

/// Carries a client's bytes to where `route` says, until both sides have ended.
/// Once `allowed` says of a snapshot that it would not be now, it ends as a drain does.
pub async fn pass_on(
    local: Rc<Local>,
    seat: Seat,
    client: Raw,
    route: &Passthrough,
    allowed: impl Fn(&Snapshot) -> bool,
) {
    let secure = local.telemetry.secure.clone();
    let _in_flight = local.counter.begin();
    let began = clock::now();
    let sni = client.sni.as_deref().unwrap_or("-");
    let joined = match join(&local, &client, route).await {
        Ok(joined) => joined,
        Err(fault) => {
            secure.pass_failed.inc();
            local.telemetry.metrics.fault(fault.kind);
            tracing::warn!(client = %client.remote, sni, "connection not passed on: {fault}");
            return;
        }
    };
    secure.passed.inc();
    secure.passing.inc();
    let last = Cell::new(began);
    let ends = joined.longest.map(|longest| began + longest);
    let Raw { stream: mut down, start, .. } = client;
    let mut up = joined.stream;
    let carrying = async {
        up.write_all(&start).await?;
        secure.pass_received.inc_by(start.len() as u64);
        let ((from_client, to_client), (from_server, to_server)) = (down.split(), up.split());
        let (sent, received) = tokio::join!(
            carry(from_client, to_server, &secure.pass_received, &last),
            carry(from_server, to_client, &secure.pass_sent, &last),
        );
        sent.and(received)
    };
    let ended = tokio::select! {
        ended = carrying => ended,
        () = patience(&last, ends) => Ok(()),
        () = disallowed(&local, allowed) => {
            local.telemetry.metrics.fault(Kind::TrustEnded);
            denial::of_client(&local, client.remote, client.listener, Kind::TrustEnded, &"it is not passed on any more");
            Ok(())
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client = %client.remote, %error, "a connection passed on broke off");
    }
    secure.passing.dec();
    drop(seat);
}

async fn join(local: &Local, client: &Raw, route: &Passthrough) -> Result<Joined, Fault> {
    let (slot, destination) = {
        let clusters = route.find(client.sni.as_deref()).ok_or(Kind::NoRoute)?;
        let name = choose(clusters, local.rng.borrow_mut().u64(..)).ok_or(Kind::NoRoute)?;
        let snapshot = local.snapshot();
        let destination = snapshot.destinations.get(name).cloned();
        let destination = destination.ok_or_else(|| Fault::because(Kind::NoCluster, name))?;
        let cluster = &destination.cluster;
        let slot = cluster.members.take(
            cluster.policy.balance,
            cluster.policy.outlier.as_ref(),
            &mut local.rng.borrow_mut(),
            &[],
        );
        (slot.ok_or(Kind::NoHealthyUpstream)?, destination)
    };
    let permit = permit(&destination)?;
    let cluster = &destination.cluster;
    let address = slot.endpoint().address;
    if address == client.address {
        return Err(Fault::because(Kind::ConnectFailure, "it leads back to this proxy"));
    }
    let (first, timeout) = (slot.endpoint().take_first(), cluster.policy.limits.connect_timeout);
    let dialled = upstream::dial(address, first, timeout, permit, &local.telemetry).await;
    if let (Err(fault), Some(policy)) = (&dialled, &cluster.policy.outlier)
        && cluster.members.report(slot.endpoint(), fault.kind.row().status, policy, clock::now())
    {
        destination.metrics.ejections.inc();
    }
    let (stream, open) = dialled?;
    Ok(Joined { stream, _open: open, _slot: slot, longest: cluster.policy.limits.max_connection_duration })
}

fn permit(destination: &Arc<Destination>) -> Result<Permit, Fault> {
    let cluster = &destination.cluster;
    cluster.gate.connection(cluster.policy.limits.max_connections).ok_or_else(|| {
        destination.metrics.overflow(crate::telemetry::Limit::Connections).inc();
        Fault::because(Kind::PendingOverflow, "maxConnections is reached")
    })
}

/// One of the clusters, by weight.
fn choose(clusters: &[(String, u32)], random: u64) -> Option<&str> {
    let sum: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = ((u128::from(random) * u128::from(sum)) >> 64) as u64;
    for (name, weight) in clusters {
        match at.checked_sub(u64::from(*weight)) {
            Some(rest) => at = rest,
            None => return Some(name),
        }
    }
    None
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: &Counter,
    last: &Cell<Instant>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            // The other direction may go on.
            return to.shutdown().await;
        }
        to.write_all(&chunk[..n]).await?;
        counter.inc_by(n as u64);
        last.set(clock::now());
    }
}

/// Until a connection that would be refused now has had as long as a drain may take.
async fn disallowed(local: &Local, allowed: impl Fn(&Snapshot) -> bool) {
    while allowed(&local.snapshot()) {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(local.drain.time_left(clock::now())).await;
}

/// Until nothing has come for too long, or the end of the connection's time.
async fn patience(last: &Cell<Instant>, ends: Option<Instant>) {
    loop {
        let until = ends.map_or(last.get() + IDLE, |ends| ends.min(last.get() + IDLE));
        if clock::now() >= until {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_chosen_by_weight_and_none_without() {
        let clusters = [("a".to_owned(), 0), ("b".to_owned(), 1), ("c".to_owned(), 3)];
        for (random, wanted) in [(0, "b"), (u64::MAX / 8, "b"), (u64::MAX / 2, "c"), (u64::MAX, "c")] {
            assert_eq!(choose(&clusters, random), Some(wanted), "{random}");
        }
        assert_eq!(choose(&clusters[..1], 7), None);
        assert_eq!(choose(&[], 7), None);
    }
}
