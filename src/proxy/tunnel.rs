//! An exchange that became a tunnel: websockets and other upgrades.
//!
//! Bytes are joined only after the upstream's 101 was passed on. Slot, connection and record live until both
//! directions have ended.

use super::Connection;
use super::again;
use super::body::Held;
use super::closing::Closing;
use super::denial;
use crate::clock;
use crate::fault::{Fault, Kind};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// Both ends of a connection that is being upgraded.
pub(super) struct Ends {
    /// The client's.
    pub(super) down: OnUpgrade,
    /// The upstream's.
    pub(super) up: OnUpgrade,
    /// What the exchange holds.
    pub(super) held: Held,
}

/// Between looks at whether a tunnel's client would be let in now.
const LOOK: Duration = Duration::from_secs(1);

/// Until a client, or what it asked for, would be refused now and has had as long as a drain may take.
async fn untrusted(connection: &Connection, port: Option<u16>, closing: &mut Closing) {
    let local = &connection.local;
    let mut judged = closing.snapshot.generation;
    loop {
        let snapshot = local.snapshot();
        let refused = match connection.stands(&snapshot, clock::now()) {
            Err(fault) => Some(fault),
            Ok(()) if port.is_some_and(|port| !connection.admits(&snapshot, port)) => {
                Some(Kind::PortRefused.into())
            }
            Ok(()) => None,
        };
        if let Some(fault) = refused {
            denial::of_tunnel(closing, &fault);
            break;
        }
        if std::mem::replace(&mut judged, snapshot.generation) != snapshot.generation
            && again::judge(connection, &snapshot, closing).await.is_err()
        {
            break;
        }
        drop(snapshot);
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(local.drain.time_left(clock::now())).await;
}

/// Joins both ends once hyper has written the 101, in a task of its own.
pub(super) fn join(ends: Ends, mut closing: Box<Closing>) {
    tokio::task::spawn_local(async move {
        let Ends { down, up, held } = ends;
        match futures_util::future::try_join(down, up).await {
            Ok((down, up)) => {
                let (mut down, mut up) = (TokioIo::new(down), TokioIo::new(up));
                let connection = closing.connection().clone();
                let destination = closing.target.as_ref().and_then(|target| target.destination.as_ref());
                let port = destination.map(|destination| destination.workload.port());
                let joined = async { Some(tokio::io::copy_bidirectional(&mut down, &mut up).await) };
                let ended = tokio::select! {
                    joined = joined => joined,
                    () = untrusted(&connection, port, &mut closing) => None,
                };
                match ended {
                    Some(Ok((received, sent))) => {
                        closing.record.bytes_received = received;
                        closing.record.bytes_sent = sent;
                    }
                    // An error of either side ends both; what was carried until then is not known to the copier.
                    Some(Err(_)) => {}
                    None => {
                        let status = closing.record.status;
                        closing.fail(Kind::TrustEnded.into());
                        closing.record.status = status;
                    }
                }
            }
            Err(error) => {
                let status = closing.record.status;
                closing.fail(Fault::because(Kind::UpgradeFailed, error));
                closing.record.status = status;
            }
        }
        closing.complete(clock::now());
        drop(held);
    });
}
