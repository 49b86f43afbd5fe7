//! The spine: what becomes of one request.
//!
//! Find the route, then answer from the configuration, or choose the destination, prepare the head and hand
//! over to the attempts. It decides nothing itself that a pure function could.

use super::answer::{self, Reply};
use super::attempt::{Attempts, Hands, Tries};
use super::body::ResponseBody;
use super::closing::Closing;
use super::copy::{HeadCopy, Kept};
use super::deadline::Deadlines;
use super::guard::At;
use super::{Connection, again, guard, hold, prepare};
use crate::fault::{Fault, Kind};
use crate::http::{Authority, Seen, grpc, normalize, validate};
use crate::record::Protocol;
use crate::route::Head;
use crate::snapshot::{self, Action, Listener, Route, Security, Snapshot, Tables, Target};
use crate::tls::Elsewhere;
use crate::upstream::Source;
use futures_util::future::{Either, select};
use http::{Response, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use tower::Service;

/// Changes of the configuration that one request follows while it waits.
const MOVES: u32 = 8;

/// A request on its way in, with the end of its exchange.
#[derive(Debug)]
pub struct Exchange {
    /// Its open record, with the request in it: moved as a pointer through the layers.
    pub closing: Box<Closing>,
}

/// An exchange that a fault ended before there was an answer.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub fault: Fault,
    /// Its open record.
    pub closing: Box<Closing>,
}

/// The service at the heart of the stack.
#[derive(Clone, Debug)]
pub struct Forward {
    connection: Rc<Connection>,
}

impl Forward {
    /// For the exchanges of `connection`.
    pub fn new(connection: Rc<Connection>) -> Forward {
        Forward { connection }
    }
}

impl Service<Exchange> for Forward {
    type Response = Response<ResponseBody>;
    type Error = Failed;
    /// Boxed, so that a connection that idles does not keep room for an exchange.
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Failed>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, exchange: Exchange) -> Self::Future {
        // The place comes first: so it is begun there, and not copied into it.
        let place = Box::new_uninit();
        let begun = Box::write(place, carry(self.connection.clone(), exchange));
        Box::into_pin(begun)
    }
}

async fn carry(connection: Rc<Connection>, exchange: Exchange) -> Result<Response<ResponseBody>, Failed> {
    let mut closing = exchange.closing;
    if closing.record.protocol == Protocol::Http2 {
        let ended = closing.incoming.as_ref().is_some_and(Incoming::is_end_stream);
        // A stream that the proxy had to reset has lost its end.
        let doubtful = !ended || connection.line.resets.load(Relaxed) > 0;
        connection.flow.begin(doubtful).await;
    }
    let mut moves = 0;
    loop {
        let snapshot = closing.snapshot.clone();
        match reply(&connection, &snapshot, &mut closing).await {
            Ok(reply) => return Ok(reply.into_response(closing)),
            // The function it waited for has gone: perhaps another has taken its place.
            Err(Fault { kind: Kind::Removed, .. }) if moves < MOVES && closing.move_on() => moves += 1,
            Err(Fault { kind: Kind::NoRoute | Kind::NoCluster | Kind::UnknownHost, .. }) if moves > 0 => {
                return Err(Failed { fault: Kind::Removed.into(), closing });
            }
            Err(fault) => return Err(Failed { fault, closing }),
        }
    }
}

async fn reply(
    connection: &Rc<Connection>,
    snapshot: &Snapshot,
    closing: &mut Closing,
) -> Result<Reply, Fault> {
    let listener = snapshot.listeners.get(connection.listener).and_then(Option::as_ref);
    let Some(listener) = listener else { return Err(Kind::NoRoute.into()) };
    closing.nowhere(&listener.unrouted);
    closing.forwarding = listener.forwarding;
    if listener.forwarding.trusted_proxies > 0 {
        guard::told_of_client(connection, closing);
    }
    let seen = Seen::of(&closing.parts.headers);
    if seen.any(Seen::HOP) {
        guard::recognise(listener, closing);
    }
    closing.record.grpc = seen.any(Seen::CONTENT_TYPE) && grpc::is_grpc(&closing.parts.headers);
    normalize::path(&mut closing.parts, snapshot.path_normalization)?;
    again::keep_door(seen, listener.guard.is_some(), closing);
    let mut step = step(connection, listener, closing, seen);
    admitted(connection, listener, &step, closing)?;
    if let Some(own) = &listener.guard
        && !matches!(step, Err(Fault { kind: Kind::BadRequest, .. }))
    {
        // Before anybody learns what is routed and what is not.
        let workload = listener.asked_at(connection.address, known_target(&step, closing));
        if own.changes_heads()
            && let Ok(Step::Forward(_, target)) = &step
            && let Some(destination) = &target.destination
        {
            keep_to_move(destination, closing);
        }
        guard::pass(connection, own, workload, At::Door, closing).await?;
        if own.fills_fields() {
            // By what its token says, not by what the client wrote there.
            step = self::step(connection, listener, closing, seen);
            admitted(connection, listener, &step, closing)?;
        }
    }
    match step {
        Ok(Step::Forward(forwarding, target)) => forward(connection, forwarding, target, seen, closing).await,
        Ok(Step::Answer(reply)) => {
            // Envoy says the same of redirects.
            closing.record.details = Cow::Borrowed("direct_response");
            Ok(*reply)
        }
        Err(Fault { kind: Kind::UnknownHost, .. }) if snapshot.allow_any => {
            closing.nowhere(&listener.black_hole);
            let passthrough = &connection.local.passthrough;
            let authority = Authority::of(&closing.parts).ok_or(Kind::BadRequest)?;
            let target = Box::pin(passthrough.target(listener, authority, connection.address)).await?;
            forward(connection, passthrough.terms(), &target, seen, closing).await
        }
        Err(fault) => {
            if fault.kind == Kind::UnknownHost {
                closing.nowhere(&listener.black_hole);
            }
            Err(fault)
        }
    }
}

/// Whether the port of the program that a request goes to takes it over this connection, whoever else is asked: the
/// connection was let in if any port takes it.
#[inline]
fn admitted(
    connection: &Connection,
    listener: &Listener,
    step: &Result<Step<'_>, Fault>,
    closing: &mut Closing,
) -> Result<(), Fault> {
    if !matches!(listener.security, Security::Mesh(_)) {
        return Ok(());
    }
    let Ok(Step::Forward(_, target)) = step else { return Ok(()) };
    let Some(destination) = &target.destination else { return Ok(()) };
    if connection.admits(&closing.snapshot, destination.workload.port()) {
        return Ok(());
    }
    closing.target = Some(Arc::clone(target));
    Err(Kind::PortRefused.into())
}

/// Counts an exchange at the destination it is on its way to; says where that listens.
fn known_target(step: &Result<Step<'_>, Fault>, closing: &mut Closing) -> Option<SocketAddr> {
    let Ok(Step::Forward(_, target)) = step else { return None };
    closing.target = Some(Arc::clone(target));
    target.destination.as_ref().map(|destination| destination.workload)
}

/// What the configuration says about a request.
enum Step<'a> {
    /// Send it there, on these terms.
    Forward(&'a snapshot::Forward, &'a Arc<Target>),
    /// Answer it.
    Answer(Box<Reply>),
}

fn step<'a>(
    connection: &Connection,
    listener: &'a Listener,
    closing: &mut Closing,
    seen: Seen,
) -> Result<Step<'a>, Fault> {
    let parts = &closing.parts;
    let authority = validate::request(parts, closing.record.authority.as_ref(), seen)?;
    if let (Some(secured), Security::Servers(servers)) = (connection.standing.secured(), &listener.security)
        && let Some(elsewhere) = servers.elsewhere(secured.sni.as_deref(), authority.host)
    {
        return Err(match elsewhere {
            Elsewhere::Misdirected => Kind::Misdirected.into(),
            Elsewhere::Unrouted => Kind::NoRoute.into(),
        });
    }
    let head = head(connection, parts, authority);
    let route = find(listener, connection, parts, authority, &head)?;
    if closing.snapshot.access_log.is_some() {
        closing.record.route = Some(route.name.clone());
    }
    match &route.action {
        Action::Forward(forwarding) => {
            let random =
                if forwarding.split.is_single() { 0 } else { connection.local.rng.borrow_mut().u64(..) };
            Ok(Step::Forward(forwarding, &forwarding.targets[forwarding.split.pick(random)]))
        }
        Action::Redirect(redirect) => {
            let reply = answer::redirect(redirect, connection, parts, &head)?;
            Ok(Step::Answer(Box::new(reply)))
        }
        Action::Direct(direct) => {
            Ok(Step::Answer(Box::new(answer::direct(direct, connection, parts, &head))))
        }
    }
}

/// The route of a request.
fn find<'a>(
    listener: &'a Listener,
    connection: &Connection,
    parts: &request::Parts,
    authority: Authority<'_>,
    head: &Head<'_>,
) -> Result<&'a Route, Kind> {
    let host = match &listener.tables {
        Tables::One(hosts) => hosts.find(authority.host).ok_or(Kind::NoRoute)?,
        Tables::ByPort(tables) => {
            let port = service_port(parts, authority, connection.address.port());
            tables.get(&port).and_then(|hosts| hosts.find(authority.host)).ok_or(Kind::UnknownHost)?
        }
    };
    if let Security::Mesh(inbound) = &listener.security
        && let Some(secured) = connection.standing.secured()
        && let Some(port) = inbound.meant(secured.sni.as_deref())
    {
        return host.routes.iter().find(|route| leads_to(route, port)).ok_or(Kind::NoRoute);
    }
    host.routes.iter().find(|route| route.matcher.matches(head)).ok_or(Kind::NoRoute)
}

/// Whether a sidecar's route leads to this port of its program.
fn leads_to(route: &Route, port: u16) -> bool {
    let Action::Forward(forward) = &route.action else { return false };
    let mut destinations = forward.targets.iter().filter_map(|target| target.destination.as_ref());
    destinations.any(|destination| destination.workload.port() == port)
}

/// The service port a request means: that of its authority, else 80. Routed by Host, the port of the
/// listener itself says nothing about the service's.
fn service_port(parts: &request::Parts, authority: Authority<'_>, own: u16) -> u16 {
    // HTTP/2 names no proxy in its target: `:authority` is its Host.
    let by_host = parts.version == Version::HTTP_2 || parts.uri.authority().is_none();
    match authority.port {
        Some(port) if by_host && port == own => 80,
        Some(port) => port,
        None => 80,
    }
}

/// What routes look at.
fn head<'a>(connection: &Connection, parts: &'a request::Parts, authority: Authority<'a>) -> Head<'a> {
    Head {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        authority: authority.text,
        scheme: connection.scheme,
        headers: &parts.headers,
    }
}

/// From now on the request's body can be read more than once.
pub(super) fn take_body(connection: &Connection, closing: &mut Closing) {
    let Some(incoming) = closing.incoming.take().filter(|incoming| !incoming.is_end_stream()) else { return };
    let one_message = closing.record.protocol != Protocol::Http2 || incoming.size_hint().exact().is_some();
    let bounded = one_message && !closing.record.grpc;
    let uploads = bounded.then(|| connection.local.uploads.clone());
    closing.source = Some(Source::new(incoming, true, uploads, connection.flow.parts.clone()));
}

/// Sends a request to `target` on the terms of `forwarding`.
async fn forward(
    connection: &Rc<Connection>,
    forwarding: &snapshot::Forward,
    target: &Arc<Target>,
    seen: Seen,
    closing: &mut Closing,
) -> Result<Reply, Fault> {
    closing.target = Some(target.clone());
    let Some(destination) = &target.destination else {
        let reason = format_args!("no cluster {}: `pilotlight check` names the reference", target.cluster);
        return Err(Fault::because(Kind::NoCluster, reason));
    };
    take_body(connection, closing);
    keep_to_move(destination, closing);
    let outbound = prepare::request(connection, forwarding, target, destination, seen, closing)?;
    again::keep_destination(seen, destination.guard.is_some(), closing);
    if let Some(guard) = &destination.guard {
        // The head as the destination gets it, and before anything is woken or held for it.
        guard::pass(connection, guard, destination.workload, At::Destination, closing).await?;
    }
    if let Some(reply) = hold::on_behalf(destination, closing) {
        return Ok(reply);
    }
    let function = destination.cluster.function_timeout;
    let started = closing.record.started;
    let deadlines = Deadlines::new(started, outbound.timeout, function, closing.source.clone());
    let mut attempts = Attempts {
        connection,
        closing,
        forwarding,
        target,
        destination,
        kept: Kept::Not,
        outbound,
        deadlines,
        tries: Tries::default(),
        hands: Hands::default(),
    };
    if connection.half_close {
        return while_client_stays(connection, destination.half_close, attempts).await;
    }
    attempts.run().await
}

/// Keeps the head, should the request have to wait and then find another configuration: as it came, with the tokens
/// that whoever lets it in takes out.
#[inline]
fn keep_to_move(destination: &snapshot::Destination, closing: &mut Closing) {
    if hold::may_wait(destination)
        && closing.original.is_none()
        && closing.parts.extensions.get::<OnUpgrade>().is_none()
    {
        closing.original = Some(Box::new(HeadCopy::of(&closing.parts)));
    }
}

/// Runs the attempts, but not for longer than the client stays, on a connection where hyper does not notice.
#[cold]
async fn while_client_stays(
    connection: &Connection,
    half_close: bool,
    mut attempts: Attempts<'_>,
) -> Result<Reply, Fault> {
    let departure = connection.local.departures.watch(connection.socket, half_close);
    let Some(departure) = departure else { return attempts.run().await };
    match select(pin!(attempts.run()), departure).await {
        Either::Left((reply, _)) => reply,
        Either::Right(_) => Err(Kind::ClientGone.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn the_port_of_the_listener_itself_counts_as_none_for_requests_routed_by_host() {
        let rows = [
            ("/", "shop", Version::HTTP_11, 80),
            ("/", "shop:8080", Version::HTTP_11, 8080),
            ("/", "shop:15001", Version::HTTP_11, 80),
            ("http://shop:15001/", "shop:15001", Version::HTTP_11, 15001),
            ("http://shop:15001/", "shop:15001", Version::HTTP_2, 80),
            ("http://shop:8080/", "shop:8080", Version::HTTP_2, 8080),
        ];
        for (uri, host, version, wanted) in rows {
            let request = Request::get(uri).version(version).header("host", host).body(()).unwrap();
            let parts = request.into_parts().0;
            let authority = Authority::of(&parts).unwrap();
            assert_eq!(service_port(&parts, authority, 15001), wanted, "{uri} {host} {version:?}");
        }
    }
}
