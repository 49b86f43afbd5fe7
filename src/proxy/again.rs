//! What a tunnel was opened by, and whether that would be let through now.
//!
//! Asked when the configuration has changed while a tunnel is open: it is the one kind of exchange that may last for
//! days. Only policies and tokens are asked, by the very heads that they saw; no provider, no route, and nobody is counted
//! twice.

use super::Connection;
use super::closing::Closing;
use super::copy::HeadCopy;
use super::guard::{self, At};
use crate::clock;
use crate::fault::Fault;
use crate::http::Seen;
use crate::snapshot::Snapshot;
use http::Request;
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;
use std::time::SystemTime;

/// The heads of a request to upgrade.
#[derive(Debug)]
pub(super) struct Opening {
    /// As it came.
    door: HeadCopy,
    /// As its destination was to get it.
    destination: Option<HeadCopy>,
    /// When it came: a token that was good then may end, as it may while an answer is read.
    pub(super) came: SystemTime,
    /// It is being asked again.
    pub(super) again: bool,
}

/// Keeps the head of a request to upgrade as it came.
#[inline]
pub(super) fn keep_door(seen: Seen, closing: &mut Closing) {
    if seen.any(Seen::UPGRADE) && closing.parts.extensions.get::<OnUpgrade>().is_some() {
        let door = HeadCopy::of(&closing.parts);
        closing.opening =
            Some(Box::new(Opening { door, destination: None, came: clock::wall(), again: false }));
    }
}

/// Keeps it as its destination is to get it.
#[inline]
pub(super) fn keep_destination(closing: &mut Closing) {
    if let Some(opening) = &mut closing.opening {
        opening.destination = Some(HeadCopy::of(&closing.parts));
    }
}

/// Whether what opened this tunnel would be let through by `snapshot`.
///
/// # Errors
/// Not any more.
pub(super) async fn judge(
    connection: &Connection,
    snapshot: &Arc<Snapshot>,
    closing: &mut Closing,
) -> Result<(), Fault> {
    let Some(opening) = &mut closing.opening else { return Ok(()) };
    opening.again = true;
    let before = std::mem::replace(&mut closing.snapshot, snapshot.clone());
    let verdict = ask(connection, snapshot, closing).await;
    closing.snapshot = before;
    closing.parts = Request::new(()).into_parts().0;
    verdict
}

async fn ask(connection: &Connection, snapshot: &Snapshot, closing: &mut Closing) -> Result<(), Fault> {
    let (door, behind) = {
        let Some(opening) = &closing.opening else { return Ok(()) };
        (opening.door.to_parts(), opening.destination.as_ref().map(HeadCopy::to_parts))
    };
    let destination =
        closing.target.as_ref().and_then(|target| snapshot.destinations.get(&*target.cluster)).cloned();
    let to = destination.as_ref().map(|destination| destination.workload);
    let listener = snapshot.listeners.get(connection.listener).and_then(Option::as_ref);
    if let Some((listener, own)) = listener.and_then(|listener| Some((listener, listener.guard.as_ref()?))) {
        closing.parts = door;
        guard::pass(connection, own, listener.asked_at(connection.address, to), At::Door, closing).await?;
    }
    if let (Some(own), Some(parts)) = (destination.as_ref().and_then(|to| to.guard.as_ref()), behind) {
        closing.parts = parts;
        guard::pass(connection, own, to.unwrap_or(connection.address), At::Destination, closing).await?;
    }
    Ok(())
}
