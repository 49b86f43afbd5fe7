//! HTTP clients: one request at a time with a deadline, over HTTP/1.1 or HTTP/2 with prior knowledge.

use super::{RawClient, seconds};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// Somewhere to send requests.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    address: SocketAddr,
}

impl Target {
    pub fn at(address: SocketAddr) -> Target {
        Target { address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDR/path`, for tools.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Request {
        self.request(Method::POST, path).body(body)
    }

    pub fn request(&self, method: Method, path: &str) -> Request {
        Request {
            target: *self,
            method,
            path: path.to_owned(),
            host: self.address.to_string(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            h2: false,
            timeout: seconds(15),
        }
    }

    /// Bytes as they are.
    #[track_caller]
    pub fn raw(&self) -> RawClient {
        RawClient::to(self.address)
    }

    /// A connection that is kept over several HTTP/1.1 requests.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address, false).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same with HTTP/2.
    #[track_caller]
    pub fn connect_h2(&self) -> Connection {
        Connection::open(self.address, true).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A request about to be sent.
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    target: Target,
    method: Method,
    path: String,
    host: String,
    headers: HeaderMap,
    body: Bytes,
    h2: bool,
    timeout: Duration,
}

impl Request {
    pub fn host(mut self, host: &str) -> Request {
        self.host = host.to_owned();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Bytes::from(body.into());
        self
    }

    /// A body that is not copied.
    pub fn shared_body(mut self, body: Bytes) -> Request {
        self.body = body;
        self
    }

    /// HTTP/2 with prior knowledge.
    pub fn h2(mut self) -> Request {
        self.h2 = true;
        self
    }

    /// How long the client waits for the whole answer.
    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = timeout;
        self
    }

    /// Sends it on a connection of its own.
    #[track_caller]
    pub fn send(self) -> Response {
        let said = format!("{} {} (host {})", self.method, self.path, self.host);
        self.try_send().unwrap_or_else(|error| panic!("{said}: {error}"))
    }

    /// The same; the error says what went wrong on the wire.
    pub fn try_send(self) -> Result<Response, String> {
        Connection::open(self.target.address, self.h2)?.try_send(self)
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
    pub took: Duration,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The header's first value, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// Fails with the whole answer when the status is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// A connection and the thread-bound runtime that drives it while a request is under way.
pub struct Connection {
    runtime: Runtime,
    sender: Sender,
}

impl Connection {
    fn open(address: SocketAddr, h2: bool) -> Result<Connection, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let sender = runtime.block_on(async {
            let stream = tokio::time::timeout(seconds(5), TcpStream::connect(address));
            let stream = stream.await.map_err(text)?.map_err(text)?;
            stream.set_nodelay(true).map_err(text)?;
            let io = TokioIo::new(stream);
            if h2 {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(text)?;
                tokio::spawn(connection);
                return Ok::<_, String>(Sender::H2(sender));
            }
            let (sender, connection) = http1::handshake(io).await.map_err(text)?;
            tokio::spawn(connection);
            Ok(Sender::H1(sender))
        })?;
        Ok(Connection { runtime, sender })
    }

    #[track_caller]
    pub fn send(&mut self, request: Request) -> Response {
        self.try_send(request).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_send(&mut self, request: Request) -> Result<Response, String> {
        let started = Instant::now();
        let timeout = request.timeout;
        let message = self.message(request)?;
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            let exchange = async {
                let response = match sender {
                    Sender::H1(sender) => {
                        sender.ready().await.map_err(text)?;
                        sender.send_request(message).await.map_err(text)?
                    }
                    Sender::H2(sender) => {
                        sender.ready().await.map_err(text)?;
                        sender.send_request(message).await.map_err(text)?
                    }
                };
                read(response, started).await
            };
            tokio::time::timeout(timeout, exchange)
                .await
                .map_err(|_| format!("no answer within {timeout:?}"))?
        })
    }

    fn message(&self, request: Request) -> Result<http::Request<Full<Bytes>>, String> {
        let absolute = request.path.starts_with("http://");
        let mut builder = http::Request::builder().method(request.method);
        builder = match self.sender {
            Sender::H2(_) => builder.uri(format!("http://{}{}", request.host, request.path)),
            Sender::H1(_) if absolute => builder.uri(&request.path),
            Sender::H1(_) => builder.uri(&request.path).header("host", &request.host),
        };
        let mut message = builder.body(Full::new(request.body)).map_err(text)?;
        message.headers_mut().extend(request.headers);
        if absolute && !message.headers().contains_key("host") {
            let authority = message.uri().authority().map_or(request.host, ToString::to_string);
            message.headers_mut().insert("host", HeaderValue::from_str(&authority).map_err(text)?);
        }
        Ok(message)
    }
}

async fn read(response: http::Response<Incoming>, started: Instant) -> Result<Response, String> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| format!("{} and then {error:?}", head.status))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Response {
        status: head.status.as_u16(),
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
        took: started.elapsed(),
    })
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
