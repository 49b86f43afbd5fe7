//! The outermost layer: an exchange begins. The clock is read, the snapshot taken, the record opened.

use super::forward::Exchange;
use super::{Closing, Connection};
use crate::clock;
use crate::record::{Captured, Record};
use http::{HeaderValue, Request, header};
use http_body::Body;
use hyper::body::Incoming;
use std::rc::Rc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Opens a record for every request.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    connection: Rc<Connection>,
    inner: S,
}

/// The layer that makes it.
#[derive(Clone, Debug)]
pub struct ObserveLayer(Rc<Connection>);

impl Observe<()> {
    /// For the exchanges of `connection`.
    pub fn layer(connection: Rc<Connection>) -> ObserveLayer {
        ObserveLayer(connection)
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { connection: self.0.clone(), inner }
    }
}

impl<S: Service<Exchange>> Service<Request<Incoming>> for Observe<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> S::Future {
        let connection = &*self.connection;
        connection.line.framed(request.body().size_hint().exact());
        let snapshot = connection.local.snapshot();
        let mut record = Record::new(
            clock::now(),
            connection.direction,
            request.version().into(),
            request.method().clone(),
            connection.remote,
            connection.address,
        );
        record.target = request.uri().path_and_query().cloned();
        record.authority = authority(&request);
        record.secured = connection.standing.secured().cloned();
        if let Some(log) = &snapshot.access_log {
            record.captured = log.format().capture_request(request.headers());
        } else {
            record.captured = Captured::default();
        }
        let closing = Closing::open(record, request, snapshot, self.connection.clone());
        self.inner.call(Exchange { closing })
    }
}

/// As the client sent it: that of an absolute or HTTP/2 request before the Host field.
fn authority(request: &Request<Incoming>) -> Option<HeaderValue> {
    match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}
