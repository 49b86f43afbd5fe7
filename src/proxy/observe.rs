//! The outermost layer: an exchange begins. The clock is read, the snapshot taken, the record opened.

use super::forward::Exchange;
use super::{Closing, Connection};
use crate::clock;
use crate::http::Authority;
use http::Request;
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
        let mut closing = Closing::open(clock::now(), request, snapshot, self.connection.clone());
        let Closing { record, parts, snapshot, .. } = &mut *closing;
        record.target = parts.uri.path_and_query().cloned();
        record.authority = Authority::sent(parts);
        record.secured = connection.standing.secured().cloned();
        if let Some(log) = &snapshot.access_log {
            record.captured = log.format().capture_request(&parts.headers);
        }
        self.inner.call(Exchange { closing })
    }
}
