//! Answers: the upstream's on its way down, ours from the configuration, ours for a fault.

use super::Connection;
use super::body::{Held, Live, ResponseBody};
use super::closing::Closing;
use super::{denial, tunnel, unsent};
use crate::clock;
use crate::fault::{Fault, Kind};
use crate::http::grpc;
use crate::record::Direction;
use crate::route::{Facts, Head, HeaderChange, Redirect};
use crate::snapshot::Direct;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, SERVER};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, request};
use hyper::upgrade::OnUpgrade;

const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const OURS: HeaderValue = HeaderValue::from_static("pilotlight");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain");

/// What an exchange came to.
pub(super) enum Reply {
    /// An answer of ours.
    Ours(Response<Bytes>),
    /// The upstream's, ready for the client.
    Theirs(Response<Box<Live>>),
    /// The upstream's 101.
    Switched(Box<Switched>),
}

/// A 101, and both ends of what it joins; rare and large, so kept out of the way of ordinary answers.
pub(super) struct Switched {
    /// Ready for the client.
    pub(super) head: http::response::Parts,
    /// The client's end.
    pub(super) down: OnUpgrade,
    /// The upstream's end.
    pub(super) up: OnUpgrade,
    /// What lives as long as the tunnel.
    pub(super) held: Held,
}

impl Reply {
    /// The response, with the record's end in its body.
    pub(super) fn into_response(self, mut closing: Box<Closing>) -> Response<ResponseBody> {
        match self {
            Reply::Ours(mut ours) => {
                let status = ours.status();
                finish(status, ours.headers_mut(), &mut closing);
                ours.map(|body| ResponseBody::fixed(body, closing))
            }
            Reply::Theirs(mut theirs) => {
                let status = theirs.status();
                finish(status, theirs.headers_mut(), &mut closing);
                theirs.map(|live| ResponseBody::live(live, closing))
            }
            Reply::Switched(switched) => {
                let Switched { head, down, up, held } = *switched;
                closing.record.status = head.status.as_u16();
                tunnel::join(tunnel::Ends { down, up, held }, closing);
                Response::from_parts(head, ResponseBody::Fixed { bytes: None, closing: None })
            }
        }
    }
}

/// The last touch: what the record keeps of the head, and the end of the connection where one is due.
fn finish(status: StatusCode, headers: &mut HeaderMap, closing: &mut Closing) {
    closing.record.status = status.as_u16();
    if let Some(besides) = closing.besides.take() {
        for (name, value) in besides.iter().filter(|(name, _)| **name != unsent::UNSENT) {
            headers.append(name, value.clone());
        }
    }
    if closing.record.grpc && closing.record.grpc_status.is_none() {
        closing.record.grpc_status = grpc::status(headers);
    }
    if let Some(log) = &closing.snapshot.access_log {
        log.format().capture_response(&mut closing.record.captured, headers);
    }
    // Callers of a front listener must find another instance; those behind the mesh listener stay.
    let leaving = closing.record.direction != Direction::Outbound && closing.local().drain.is_closing();
    if (leaving || closing.connection().standing.is_over())
        && closing.record.protocol != crate::record::Protocol::Http2
    {
        headers.insert(CONNECTION, CLOSE);
    }
}

/// The answer that a fault's row says.
pub(super) fn to_fault(mut fault: Fault, mut closing: Box<Closing>) -> Response<ResponseBody> {
    let kind = fault.kind;
    let (row, advice) = (kind.row(), fault.advice);
    let (own, fields) = match &mut fault.told {
        Some(told) => (told.body.take(), std::mem::take(&mut told.headers)),
        None => (None, HeaderMap::new()),
    };
    denial::of_exchange(&closing, &fault);
    closing.fail(fault);
    // Nobody may be there to read it, but hyper wants an answer.
    let mut status = if row.status == 0 { 400 } else { row.status };
    let mut body = own.unwrap_or(Bytes::from_static(row.body.as_bytes()));
    if closing.timeout_is_204 && matches!(kind, Kind::RouteTimeout | Kind::TryTimeout) {
        (status, body) = (204, Bytes::new());
        closing.record.status = status;
    }
    if advice.status != 0 {
        status = advice.status;
        closing.record.status = status;
    }
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    head.headers = fields;
    head.headers.remove(unsent::UNSENT);
    if closing.tells_unsent && unsent::may_be_said(kind, closing.record.attempts) {
        unsent::say(&mut head.headers);
    }
    if closing.record.grpc {
        let code = if advice.status == 0 { row.grpc } else { grpc::from_http(head.status) };
        closing.record.grpc_status = Some(code);
        grpc::answer(&mut head, code, std::str::from_utf8(&body).unwrap_or(row.body));
        body = Bytes::new();
    } else if !body.is_empty() && !head.headers.contains_key(CONTENT_TYPE) {
        head.headers.insert(CONTENT_TYPE, PLAIN_TEXT);
    }
    if advice.retry_after != 0 {
        head.headers.insert(RETRY_AFTER, advice.retry_after.into());
    }
    if row.flag == "UO" || row.flag == "OM" {
        head.headers.insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    head.headers.insert(SERVER, OURS);
    let recorded = closing.record.status;
    Reply::Ours(Response::from_parts(head, body)).into_response_as(closing, recorded)
}

impl Reply {
    /// As [`Reply::into_response`], but the record keeps `status`.
    fn into_response_as(self, closing: Box<Closing>, status: u16) -> Response<ResponseBody> {
        let mut response = self.into_response(closing);
        if let ResponseBody::Fixed { closing: Some(closing), .. } = response.body_mut() {
            closing.record.status = status;
        }
        response
    }
}

/// A redirect from the configuration.
pub(super) fn redirect(
    redirect: &Redirect,
    connection: &Connection,
    parts: &request::Parts,
    head: &Head<'_>,
) -> Result<Reply, Fault> {
    let target = parts.uri.path_and_query().ok_or(Kind::BadRequest)?;
    let location = redirect.location(head, target, connection.address.port()).ok_or(Kind::BadRequest)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = redirect.status();
    response.headers_mut().insert(LOCATION, location);
    change(redirect.headers(), &mut response, connection, parts, head);
    Ok(Reply::Ours(response))
}

/// An answer from the configuration.
pub(super) fn direct(
    direct: &Direct,
    connection: &Connection,
    parts: &request::Parts,
    head: &Head<'_>,
) -> Reply {
    let mut response = Response::new(direct.body.clone());
    *response.status_mut() = direct.status;
    if !direct.body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, PLAIN_TEXT);
    }
    change(&direct.headers, &mut response, connection, parts, head);
    Reply::Ours(response)
}

/// A good answer to a health check, in place of a frozen function.
pub(super) fn of_frozen() -> Reply {
    let mut response = Response::new(Bytes::from_static(b"frozen; the first request thaws it\n"));
    response.headers_mut().insert(CONTENT_TYPE, PLAIN_TEXT);
    response.headers_mut().insert(SERVER, OURS);
    Reply::Ours(response)
}

fn change(
    change: &HeaderChange,
    response: &mut Response<Bytes>,
    connection: &Connection,
    parts: &request::Parts,
    head: &Head<'_>,
) {
    response.headers_mut().insert(SERVER, OURS);
    if change.is_empty() {
        return;
    }
    let facts = Facts {
        request: Some(&parts.headers),
        status: Some(response.status().as_u16()),
        ..facts(connection, head, parts.version, parts.uri.path_and_query().map_or("/", |p| p.as_str()))
    };
    change.apply(response.headers_mut(), &facts);
}

/// What header templates may tell of a request.
pub(super) fn facts<'a>(
    connection: &'a Connection,
    head: &Head<'a>,
    protocol: Version,
    target: &'a str,
) -> Facts<'a> {
    Facts {
        downstream_remote: connection.remote,
        downstream_local: connection.address,
        protocol,
        started: clock::wall(),
        hostname: &connection.local.hostname,
        method: head.method,
        target,
        authority: head.authority,
        scheme: head.scheme,
        request: None,
        upstream_host: None,
        upstream_cluster: None,
        status: None,
    }
}
