//! One request in, one answer out: the JSON of what was received, or whatever the request asked for instead.
//!
//! The plain answer is made without waiting and with one buffer; everything a request asks for is on the other
//! path. Sockets belong to `serve`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::watch;

use super::ask::{Ask, Close};
use super::body::AnswerBody;
use super::call::{Answered, Caller};
use super::websocket;

/// gRPC's UNAVAILABLE, the status of a failure that was asked for.
const GRPC_UNAVAILABLE: u16 = 14;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Who answers.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    /// `K_SERVICE` and `K_REVISION`, where a function runs.
    pub(super) service: Option<String>,
    pub(super) revision: Option<String>,
}

/// What all workers count together.
#[derive(Debug, Default)]
struct Tally {
    served: AtomicU64,
    ended: AtomicU64,
    now: AtomicU64,
    peak: AtomicU64,
}

/// What every answer of the process shares.
pub(super) struct Echo {
    name: HeaderValue,
    /// The opening of every JSON answer, rendered once.
    opening: Vec<u8>,
    tally: Tally,
    stop_after: Option<u64>,
    stop: watch::Sender<bool>,
}

/// One exchange under way; dropping it ends it.
pub(super) struct Busy {
    echo: Arc<Echo>,
    served: u64,
    now: u64,
}

/// The connection a request came on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) peer: SocketAddr,
    /// Which connection of the process it is, from 1.
    pub(super) connection: u64,
}

/// What a request's body was.
#[derive(Default)]
struct Received {
    bytes: u64,
    /// Of a body that is not empty.
    sha1: Option<String>,
    trailers: Option<HeaderMap>,
}

impl Echo {
    /// `stop_after` answers, `stop` is set.
    pub(super) fn new(
        identity: &Identity,
        address: SocketAddr,
        stop_after: Option<u64>,
        stop: watch::Sender<bool>,
    ) -> Echo {
        let mut opening = Vec::new();
        text(&mut opening, "{\"name\":", &identity.name);
        for (key, value) in [(",\"service\":", &identity.service), (",\"revision\":", &identity.revision)] {
            if let Some(value) = value {
                text(&mut opening, key, value);
            }
        }
        number(&mut opening, ",\"pid\":", u64::from(std::process::id()));
        text(&mut opening, ",\"address\":", &address.to_string());
        let name = HeaderValue::from_str(&identity.name).unwrap_or(HeaderValue::from_static("echo"));
        Echo { name, opening, tally: Tally::default(), stop_after, stop }
    }

    /// Answers one request. An error closes the connection (HTTP/2: resets the stream).
    pub(super) async fn answer(
        self: Arc<Self>,
        caller: Arc<Caller>,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, io::Error> {
        let busy = Busy::begin(&self);
        let ask = match Ask::read(request.uri(), request.headers()) {
            Ok(ask) => ask,
            Err(why) => return Ok(refusal(&why, busy)),
        };
        if ask.is_none() && request.body().is_end_stream() && !websocket::wanted(request.headers()) {
            let (head, _) = request.into_parts();
            let json = self.render(&head, &Received::default(), origin, &busy, &[]);
            return Ok(respond(StatusCode::OK, JSON, AnswerBody::whole(json, busy)));
        }
        if websocket::wanted(request.headers()) && request.version() <= Version::HTTP_11 {
            return Ok(self.upgrade(request, busy));
        }
        Box::pin(self.answer_asked(caller, origin, request, ask.unwrap_or_default(), busy)).await
    }

    async fn answer_asked(
        self: Arc<Self>,
        caller: Arc<Caller>,
        origin: Origin,
        request: Request<Incoming>,
        ask: Box<Ask>,
        busy: Busy,
    ) -> Result<Response<AnswerBody>, io::Error> {
        if ask.close == Some(Close::Before) {
            tokio::time::sleep(ask.delay).await;
            return Err(io::Error::other("closed because the request asked for it"));
        }
        let (head, incoming) = request.into_parts();
        let failing = ask.fail > 0.0 && fastrand::f32() * 100.0 < ask.fail;
        if ask.mirror && !failing {
            tokio::time::sleep(ask.delay).await;
            return Ok(self.mirrored(&head, incoming, &ask, busy));
        }
        let received = receive(incoming).await?;
        if !ask.delay.is_zero() {
            tokio::time::sleep(ask.delay).await;
        }
        if failing {
            return Ok(failed(&ask, busy));
        }
        let mut calls = Vec::with_capacity(ask.calls.len());
        for url in &ask.calls {
            calls.push((url.as_str(), caller.call(url, &head.headers).await));
        }
        let (content, kind) = match ask.size {
            Some(_) => (Bytes::new(), HeaderValue::from_static("application/octet-stream")),
            None => (self.render(&head, &received, origin, &busy, &calls).into(), JSON),
        };
        let trailers = trailers(&ask);
        let mut response =
            respond(ask.status.unwrap_or_default(), kind, AnswerBody::asked(&ask, content, trailers, busy));
        self.dress(&mut response, &ask);
        Ok(response)
    }

    fn mirrored(&self, head: &Parts, incoming: Incoming, ask: &Ask, busy: Busy) -> Response<AnswerBody> {
        let kind = head.headers.get(header::CONTENT_TYPE).cloned();
        let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let body = AnswerBody::mirror(incoming, trailers(ask), busy);
        let mut response = respond(ask.status.unwrap_or_default(), kind, body);
        self.dress(&mut response, ask);
        response
    }

    /// Adds what the JSON does not say and what the request asked to be added.
    fn dress(&self, response: &mut Response<AnswerBody>, ask: &Ask) {
        let headers = response.headers_mut();
        headers.insert("x-echo-name", self.name.clone());
        if ask.grpc.is_some() && !ask.mirror {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        // HTTP/1.1 sends only the trailers it announced.
        for (name, _) in &ask.trailers {
            headers.append(header::TRAILER, HeaderValue::from(name.clone()));
        }
        if ask.grpc.is_some() {
            headers.append(header::TRAILER, HeaderValue::from_static("grpc-status"));
        }
        for (name, value) in &ask.headers {
            headers.append(name, value.clone());
        }
    }

    fn upgrade(self: Arc<Self>, mut request: Request<Incoming>, busy: Busy) -> Response<AnswerBody> {
        let Some(accept) = websocket::accept(request.headers()) else {
            return refusal("a websocket needs `Sec-WebSocket-Version: 13` and a `Sec-WebSocket-Key`", busy);
        };
        let upgraded = hyper::upgrade::on(&mut request);
        let mut stopping = self.stop.subscribe();
        let mut response = respond(StatusCode::SWITCHING_PROTOCOLS, JSON, AnswerBody::empty());
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert("x-echo-name", self.name.clone());
        tokio::spawn(async move {
            let _busy = busy;
            let Ok(stream) = upgraded.await else { return };
            let stop = async { drop(stopping.wait_for(|stop| *stop).await) };
            // A client that leaves in the middle is its own affair.
            let _ = websocket::echo(TokioIo::new(stream), stop).await;
        });
        response
    }

    fn render(
        &self,
        head: &Parts,
        received: &Received,
        origin: Origin,
        busy: &Busy,
        calls: &[(&str, Result<Answered, String>)],
    ) -> Vec<u8> {
        let mut json = Vec::with_capacity(1024);
        json.extend_from_slice(&self.opening);
        text(&mut json, ",\"peer\":", &origin.peer.to_string());
        number(&mut json, ",\"connection\":", origin.connection);
        text(&mut json, ",\"protocol\":", protocol(head.version));
        text(&mut json, ",\"method\":", head.method.as_str());
        if let Some(scheme) = head.uri.scheme_str() {
            text(&mut json, ",\"scheme\":", scheme);
        }
        if let Some(authority) = head.uri.authority() {
            text(&mut json, ",\"authority\":", authority.as_str());
        }
        text(&mut json, ",\"path\":", head.uri.path());
        if let Some(query) = head.uri.query() {
            text(&mut json, ",\"query\":", query);
        }
        fields(&mut json, ",\"headers\":", &head.headers);
        number(&mut json, ",\"body_bytes\":", received.bytes);
        if let Some(sha1) = &received.sha1 {
            text(&mut json, ",\"body_sha1\":", sha1);
        }
        if let Some(trailers) = &received.trailers {
            fields(&mut json, ",\"trailers\":", trailers);
        }
        number(&mut json, ",\"served\":", busy.served);
        number(&mut json, ",\"concurrency\":", busy.now);
        number(&mut json, ",\"peak\":", self.tally.peak.load(Relaxed));
        nested(&mut json, calls);
        json.extend_from_slice(b"}\n");
        json
    }
}

impl Busy {
    fn begin(echo: &Arc<Echo>) -> Busy {
        let tally = &echo.tally;
        let served = tally.served.fetch_add(1, Relaxed) + 1;
        let now = tally.now.fetch_add(1, Relaxed) + 1;
        if tally.peak.load(Relaxed) < now {
            tally.peak.fetch_max(now, Relaxed);
        }
        Busy { echo: Arc::clone(echo), served, now }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.echo.tally.now.fetch_sub(1, Relaxed);
        let ended = self.echo.tally.ended.fetch_add(1, Relaxed) + 1;
        if self.echo.stop_after.is_some_and(|most| ended >= most) {
            self.echo.stop.send_replace(true);
        }
    }
}

/// Reads a request's body to its end, keeping its length and hash.
async fn receive(mut incoming: Incoming) -> Result<Received, io::Error> {
    let mut received = Received::default();
    let mut hash = sha1_smol::Sha1::new();
    while let Some(frame) = incoming.frame().await {
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(bytes) => {
                hash.update(&bytes);
                received.bytes += bytes.len() as u64;
            }
            Err(other) => received.trailers = other.into_trailers().ok(),
        }
    }
    received.sha1 = (received.bytes > 0).then(|| hash.digest().to_string());
    Ok(received)
}

fn respond(status: StatusCode, kind: HeaderValue, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn refusal(why: &str, busy: Busy) -> Response<AnswerBody> {
    let mut json = Vec::new();
    text(&mut json, "{\"error\":", why);
    json.extend_from_slice(b"}\n");
    respond(StatusCode::BAD_REQUEST, JSON, AnswerBody::whole(json, busy))
}

/// The answer to a request that was chosen to fail: over gRPC its trailers alone, as the protocol has it.
fn failed(ask: &Ask, busy: Busy) -> Response<AnswerBody> {
    if ask.grpc.is_none() {
        let body = AnswerBody::whole(&b"{\"error\":\"failed because the request asked for it\"}\n"[..], busy);
        return respond(StatusCode::SERVICE_UNAVAILABLE, JSON, body);
    }
    let kind = HeaderValue::from_static("application/grpc");
    let mut response = respond(StatusCode::OK, kind, AnswerBody::whole(Bytes::new(), busy));
    response.headers_mut().insert("grpc-status", HeaderValue::from(GRPC_UNAVAILABLE));
    response
}

fn trailers(ask: &Ask) -> Option<HeaderMap> {
    let mut trailers: HeaderMap = ask.trailers.iter().cloned().collect();
    if let Some(status) = ask.grpc {
        trailers.insert("grpc-status", HeaderValue::from(status));
    }
    (!trailers.is_empty()).then_some(trailers)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

fn text(json: &mut Vec<u8>, key: &str, value: &str) {
    json.extend_from_slice(key.as_bytes());
    quoted(json, value);
}

fn number(json: &mut Vec<u8>, key: &str, value: u64) {
    json.extend_from_slice(key.as_bytes());
    json.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn quoted(json: &mut Vec<u8>, value: &str) {
    // Writing a string to memory does not fail.
    let _ = serde_json::to_writer(json, value);
}

/// Writes fields as an object: a string each, a list of strings where a name came several times.
fn fields(json: &mut Vec<u8>, key: &str, headers: &HeaderMap) {
    json.extend_from_slice(key.as_bytes());
    json.push(b'{');
    for (at, name) in headers.keys().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        quoted(json, name.as_str());
        json.push(b':');
        let mut values = headers.get_all(name).iter();
        let several = headers.get_all(name).iter().nth(1).is_some();
        if several {
            json.push(b'[');
        }
        if let Some(value) = values.next() {
            quoted(json, &String::from_utf8_lossy(value.as_bytes()));
        }
        for value in values {
            json.push(b',');
            quoted(json, &String::from_utf8_lossy(value.as_bytes()));
        }
        if several {
            json.push(b']');
        }
    }
    json.push(b'}');
}

/// Writes what each call brought: its answer as JSON where it is JSON, else as a string.
fn nested(json: &mut Vec<u8>, calls: &[(&str, Result<Answered, String>)]) {
    for (at, (url, outcome)) in calls.iter().enumerate() {
        json.extend_from_slice(if at == 0 { b",\"calls\":[" } else { b"," });
        text(json, "{\"url\":", url);
        match outcome {
            Ok(Answered { status, body }) => {
                number(json, ",\"status\":", u64::from(status.as_u16()));
                match serde_json::from_slice::<Value>(body) {
                    Ok(value) => json.extend_from_slice(format!(",\"answer\":{value}").as_bytes()),
                    Err(_) => text(json, ",\"answer\":", &String::from_utf8_lossy(body)),
                }
            }
            Err(why) => text(json, ",\"error\":", why),
        }
        json.push(b'}');
    }
    if !calls.is_empty() {
        json.push(b']');
    }
}
