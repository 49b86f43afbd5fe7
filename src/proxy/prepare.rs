//! Heads, made ready: the request's for its destination, the response's for the client.

use super::Connection;
use super::answer::{self, Reply, Switched};
use super::attempt::Attempts;
use super::body::{Held, Live};
use super::closing::Closing;
use super::lineage::{self, LINEAGE};
use super::retry;
use crate::fault::{Fault, Kind};
use crate::http::{
    Authority, Seen, Wire, envoy, grpc, headers, normalize, response, target, upgrade, validate,
};
use crate::record::{ColdStart, Direction};
use crate::route::{Facts, Head, HeaderChange};
use crate::snapshot::{Destination, Forward, Protocol, Retry, RetryOn, Target};
use crate::upstream::RequestBody;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::time::Duration;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What the preparation of a request leaves for its attempts.
pub(super) struct Outbound<'a> {
    /// Of the whole exchange.
    pub(super) timeout: Option<Duration>,
    /// The route's retry policy.
    policy: &'a Retry,
    /// Sending it twice does no harm.
    pub(super) idempotent: bool,
    /// What few requests need.
    rare: Option<Box<Rare>>,
}

/// What few requests need, kept out of the way of the others.
struct Rare {
    /// The route's retry policy with what the client asked for.
    policy: Option<Retry>,
    /// The client's connection, where it may become a tunnel.
    switch: Option<(HeaderValue, OnUpgrade)>,
    /// The request's fields, where the response's changes read them.
    fields: Option<HeaderMap>,
    /// The request's host, where the destination's certificate is to be for it.
    host: Option<Box<str>>,
}

impl Outbound<'_> {
    /// The request's host, where the destination's certificate is to be for it.
    #[inline]
    pub(super) fn host(&self) -> &str {
        self.rare.as_ref().and_then(|rare| rare.host.as_deref()).unwrap_or_default()
    }

    /// The retry policy in force.
    #[inline]
    pub(super) fn retry(&self) -> &Retry {
        self.rare.as_ref().and_then(|rare| rare.policy.as_ref()).unwrap_or(self.policy)
    }
}

/// What is spoken to a destination.
fn wire(destination: &Destination) -> Wire {
    match destination.cluster.protocol {
        Protocol::Http1 => Wire::Http1,
        Protocol::Http2 => {
            Wire::Http2 { secure: destination.cluster.tls.as_ref().is_some_and(|tls| tls.is_outside()) }
        }
    }
}

/// Makes the request's head ready for every attempt.
pub(super) fn request<'a>(
    connection: &Connection,
    forwarding: &'a Forward,
    to: &Target,
    destination: &Destination,
    seen: Seen,
    closing: &mut Closing,
) -> Result<Outbound<'a>, Fault> {
    let (parts, route) = (&mut closing.parts, &*forwarding.terms);
    let gateway = connection.direction == Direction::Gateway;
    let asked = envoy::take(&mut parts.headers, seen, !gateway);
    closing.timeout_is_204 = asked.timeout_is_204;
    let timeout = timeout(route.timeout, &asked, closing.record.grpc, parts, seen);
    let policy = policy(&route.retry, asked);
    let protocol = match destination.cluster.protocol {
        Protocol::Http1 => upgrade::wanted(parts, seen),
        Protocol::Http2 => None,
    };
    let switch = protocol.and_then(|protocol| Some((protocol, parts.extensions.remove::<OnUpgrade>()?)));
    let terms = headers::Terms {
        gateway,
        peer: &connection.peer,
        secure: connection.scheme == "https",
        vouched: connection.vouched.as_ref(),
        forwarding: closing.forwarding,
        upgrade: switch.as_ref().map(|(protocol, _)| protocol),
    };
    let lineage = (!gateway && seen.any(Seen::OURS)).then(|| parts.headers.remove(LINEAGE)).flatten();
    headers::prepare(&mut parts.headers, seen, &terms, &mut connection.local.ids.borrow_mut());
    lineage::extend(&mut parts.headers, lineage, destination.lineage.as_ref());
    let fields = (route.response_headers.reads_request() || to.response_headers.reads_request())
        .then(|| parts.headers.clone());
    let mut authority = route.authority.clone();
    for change in [&to.request_headers, &route.request_headers] {
        if let Some(changed) = change_request(change, connection, parts, to) {
            authority = Some(changed);
        }
    }
    let path = match (&route.path, parts.uri.path_and_query()) {
        (Some(change), Some(path)) => Some(change.apply(path).map_err(|error| {
            Fault::because(Kind::BadRequest, format_args!("the rewritten path is not one: {error}"))
        })?),
        _ => None,
    };
    let wire = wire(destination);
    let rewritten = path.is_some();
    target::address(parts, seen, wire, path, authority)?;
    if rewritten {
        // A rule can make dot segments of what were none: policies and the destination are to see the same path.
        normalize::path(parts, closing.snapshot.path_normalization)?;
    }
    if wire == Wire::Http1 && closing.source.is_some() {
        target::frame(parts);
    }
    target::set_attempt(&mut parts.headers, 1);
    if let Some(expected) =
        [timeout, policy.as_ref().unwrap_or(&route.retry).per_try_timeout].into_iter().flatten().min()
    {
        target::set_expected_timeout(&mut parts.headers, expected);
    }
    if let Some(log) = &closing.snapshot.access_log {
        // As the upstream sees them: with the request id and the addresses that were added.
        closing.record.captured = log.format().capture_request(&parts.headers);
    }
    let asks = destination.cluster.tls.as_ref().is_some_and(|tls| tls.asks_for_host());
    let host = if asks { Authority::of(parts).map(|authority| authority.host.into()) } else { None };
    let rare = (policy.is_some() || switch.is_some() || fields.is_some() || host.is_some())
        .then(|| Box::new(Rare { policy, switch, fields, host }));
    Ok(Outbound { timeout, policy: &route.retry, idempotent: retry::is_idempotent(&parts.method), rare })
}

/// The timeout of the whole exchange: the route's, or what its own client asked instead; a gRPC call's own
/// deadline shortens it.
fn timeout(
    route: Option<Duration>,
    asked: &envoy::Asked,
    grpc: bool,
    parts: &request::Parts,
    seen: Seen,
) -> Option<Duration> {
    let timeout = match asked.timeout {
        Some(asked) => (!asked.is_zero()).then_some(asked),
        None => route,
    };
    let call = (grpc && seen.any(Seen::GRPC_TIMEOUT)).then(|| grpc::timeout(&parts.headers)).flatten();
    [timeout, call].into_iter().flatten().min()
}

/// The route's retry policy with what the client asked for, if it asked for anything.
fn policy(route: &Retry, asked: envoy::Asked) -> Option<Retry> {
    let unasked = asked.per_try_timeout.is_none()
        && asked.max_retries.is_none()
        && asked.retry_on == RetryOn::default();
    if unasked {
        return None;
    }
    let mut retry = route.clone();
    if retry.attempts == 0 && asked.retry_on != RetryOn::default() {
        // A client that names conditions wants at least Envoy's one retry.
        retry.attempts = 1;
    }
    retry.attempts = asked.max_retries.unwrap_or(retry.attempts);
    retry.on = retry.on.with(asked.retry_on);
    retry.codes.extend(asked.codes);
    if let Some(timeout) = asked.per_try_timeout {
        retry.per_try_timeout = (!timeout.is_zero()).then_some(timeout);
    }
    Some(retry)
}

fn change_request(
    change: &HeaderChange,
    connection: &Connection,
    parts: &mut request::Parts,
    to: &Target,
) -> Option<HeaderValue> {
    if change.is_empty() {
        return None;
    }
    let (method, uri, version) = (parts.method.clone(), parts.uri.clone(), parts.version);
    let authority = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => {
            let host = parts.headers.get(http::header::HOST);
            host.and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned()
        }
    };
    let empty = HeaderMap::new();
    let head = Head {
        method: &method,
        path: uri.path(),
        query: uri.query(),
        authority: &authority,
        scheme: connection.scheme,
        headers: &empty,
    };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let facts =
        Facts { upstream_cluster: Some(&to.cluster), ..answer::facts(connection, &head, version, path) };
    change.apply(&mut parts.headers, &facts)
}

/// Notes on a request which try it is.
pub(super) fn attempt(request: &mut Request<RequestBody>, attempt: u8) {
    target::set_attempt(request.headers_mut(), u32::from(attempt));
}

/// Where the time of a cold start went, for clients that are to know.
#[cold]
fn tell_timing(headers: &mut HeaderMap, cold: &ColdStart, destination: &Destination) {
    if destination.server_timing
        && let Ok(value) = HeaderValue::try_from(cold.server_timing())
    {
        headers.append(SERVER_TIMING, value);
    }
}

/// Makes the response's head ready for the client.
pub(super) fn response(
    attempts: &mut Attempts<'_>,
    response: Response<Incoming>,
    mut held: Held,
) -> Result<Reply, Fault> {
    let Attempts { connection, closing, forwarding, target: to, destination, outbound, deadlines, .. } =
        attempts;
    let (mut head, incoming) = response.into_parts();
    let seen = Seen::of(&head.headers);
    validate::response(&head.headers, seen)?;
    // Each hop has its own version; hyper turns this one into the client's.
    head.version = Version::HTTP_11;
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut rare = outbound.rare.take();
    let switch = match rare.as_mut().and_then(|rare| rare.switch.take()) {
        Some((protocol, down)) if switched && upgrade::accepted(head.status, &head.headers, &protocol) => {
            let up = head.extensions.remove::<OnUpgrade>();
            up.map(|up| (protocol, down, up))
        }
        _ => None,
    };
    if switched && switch.is_none() {
        return Err(Fault::because(Kind::BadResponse, "101 to a request that did not ask for it"));
    }
    let terms = response::Terms {
        service_time: closing.record.service_time,
        server: None,
        upgrade: switch.as_ref().map(|(protocol, ..)| protocol),
        close: false,
    };
    held.keep_alive = response::prepare(&mut head.headers, seen, &terms);
    let record = &closing.record;
    if let Some(cold) = &record.cold {
        tell_timing(&mut head.headers, cold, destination);
    }
    let path = record.target.as_ref().map_or("/", |p| p.as_str());
    let authority = record.authority.as_ref().and_then(|a| a.to_str().ok()).unwrap_or_default();
    for change in [&to.response_headers, &forwarding.terms.response_headers] {
        if change.is_empty() {
            continue;
        }
        let empty = HeaderMap::new();
        let request = Head {
            method: &record.method,
            path,
            query: None,
            authority,
            scheme: connection.scheme,
            headers: &empty,
        };
        let facts = Facts {
            request: rare.as_ref().and_then(|rare| rare.fields.as_ref()),
            upstream_host: record.upstream_host,
            upstream_cluster: Some(&to.cluster),
            status: Some(head.status.as_u16()),
            ..answer::facts(connection, &request, head.version, path)
        };
        change.apply(&mut head.headers, &facts);
    }
    if let Some((_, down, up)) = switch {
        connection.line.opened();
        return Ok(Reply::Switched(Box::new(Switched { head, down, up, held })));
    }
    let deadline = deadlines.for_body();
    Ok(Reply::Theirs(Response::from_parts(head, Live::new(incoming, held, deadline))))
}
