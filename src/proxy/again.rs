//! What a tunnel was opened by, or a stream asked for by, and whether that would be let through now.
//!
//! Asked when the configuration has changed meanwhile: these are the exchanges that may last for days. Only policies and tokens are asked, by the very heads that they saw; no provider, no route, and nobody is counted
//! twice.

use super::Connection;
use super::closing::Closing;
use super::copy::HeadCopy;
use super::guard::{self, At};
use crate::clock;
use crate::fault::Fault;
use crate::http::Seen;
use crate::record::Record;
use crate::snapshot::Snapshot;
use futures_util::FutureExt;
use http::header::HOST;
use http::{Request, request};
use hyper::upgrade::OnUpgrade;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};
use tokio::time::Sleep;

/// The heads of a request that may last.
#[derive(Debug)]
pub(super) struct Opening {
    /// As it came, where that was asked by policies or may be one day.
    door: Option<HeadCopy>,
    /// As its destination was to get it.
    destination: Option<HeadCopy>,
    /// When it came: a token that was good then may end, as it may while an answer is read.
    pub(super) came: SystemTime,
    /// It is being asked again.
    pub(super) again: bool,
}

impl Opening {
    fn new() -> Box<Opening> {
        Box::new(Opening { door: None, destination: None, came: clock::wall(), again: false })
    }
}

/// Keeps the head of a request as it came, if it asks to upgrade or is `guarded`.
#[inline]
pub(super) fn keep_door(seen: Seen, guarded: bool, closing: &mut Closing) {
    let upgrades = seen.any(Seen::UPGRADE) && closing.parts.extensions.get::<OnUpgrade>().is_some();
    if guarded || upgrades {
        let door = HeadCopy::of(&closing.parts);
        closing.opening.get_or_insert_with(Opening::new).door = Some(door);
    }
}

/// Keeps it as its destination is to get it.
#[inline]
pub(super) fn keep_destination(seen: Seen, guarded: bool, closing: &mut Closing) {
    if guarded || (closing.opening.is_some() && seen.any(Seen::UPGRADE)) {
        let destination = HeadCopy::of(&closing.parts);
        closing.opening.get_or_insert_with(Opening::new).destination = Some(destination);
    }
}

/// Between looks at whether a stream would be let through now.
const LOOK: Duration = Duration::from_secs(1);

/// Looks, while an answer goes on, whether policies have changed.
#[derive(Debug)]
pub(super) struct Trial {
    tick: Pin<Box<Sleep>>,
    /// By the snapshot of this generation.
    judged: u64,
    /// When it is over, since it would be refused.
    ends: Option<Instant>,
}

impl Trial {
    /// Of an exchange that has lasted for a while.
    pub(super) fn new(closing: &Closing) -> Box<Trial> {
        let tick = Box::pin(tokio::time::sleep(Duration::ZERO));
        Box::new(Trial { tick, judged: closing.snapshot.generation, ends: None })
    }

    /// Ready when it would be refused, and has had as long as a drain may take.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, closing: &mut Closing) -> Poll<()> {
        loop {
            ready!(self.tick.as_mut().poll(cx));
            let now = clock::now();
            if self.ends.is_some_and(|at| now >= at) {
                return Poll::Ready(());
            }
            let snapshot = closing.local().snapshot();
            let before = std::mem::replace(&mut self.judged, snapshot.generation);
            if self.ends.is_none() && before != snapshot.generation {
                let connection = closing.connection().clone();
                // Nobody else is asked, so there is nothing to wait for.
                let verdict = judge(&connection, &snapshot, closing).now_or_never();
                if !matches!(verdict, Some(Ok(()))) {
                    self.ends = Some(now + closing.local().drain.time_left(now));
                }
            }
            let next = self.ends.map_or(now + LOOK, |at| at.max(now));
            self.tick.as_mut().reset(next.into());
        }
    }
}

/// Whether what opened this tunnel, or asked for this stream, would be let through by `snapshot`. Of a head that no
/// policy asked for when it came only the method and the target are known.
///
/// # Errors
/// Not any more.
pub(super) async fn judge(
    connection: &Connection,
    snapshot: &Arc<Snapshot>,
    closing: &mut Closing,
) -> Result<(), Fault> {
    closing.opening.get_or_insert_with(Opening::new).again = true;
    let before = std::mem::replace(&mut closing.snapshot, snapshot.clone());
    let verdict = ask(connection, snapshot, closing).await;
    closing.snapshot = before;
    closing.parts = Request::new(()).into_parts().0;
    verdict
}

async fn ask(connection: &Connection, snapshot: &Snapshot, closing: &mut Closing) -> Result<(), Fault> {
    let kept = |of: fn(&Opening) -> Option<&HeadCopy>| {
        closing.opening.as_deref().and_then(of).map_or_else(|| known(&closing.record), HeadCopy::to_parts)
    };
    let (door, behind) = (kept(|one| one.door.as_ref()), kept(|one| one.destination.as_ref()));
    let destination =
        closing.target.as_ref().and_then(|target| snapshot.destinations.get(&*target.cluster)).cloned();
    let to = destination.as_ref().map(|destination| destination.workload);
    let listener = snapshot.listeners.get(connection.listener).and_then(Option::as_ref);
    if let Some((listener, own)) = listener.and_then(|listener| Some((listener, listener.guard.as_ref()?))) {
        closing.parts = door;
        guard::pass(connection, own, listener.asked_at(connection.address, to), At::Door, closing).await?;
    }
    if let Some(own) = destination.as_ref().and_then(|to| to.guard.as_ref()) {
        closing.parts = behind;
        guard::pass(connection, own, to.unwrap_or(connection.address), At::Destination, closing).await?;
    }
    Ok(())
}

/// What a record tells of a head.
fn known(record: &Record) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = record.method.clone();
    if let Some(target) = &record.target {
        parts.uri = target.clone().into();
    }
    if let Some(authority) = &record.authority {
        parts.headers.insert(HOST, authority.clone());
    }
    parts
}
