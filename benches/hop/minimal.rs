//! The floor: what a hyper proxy costs that forwards and does nothing else.
//!
//! A hyper server in front, a LIFO pool of hyper client connections behind, one thread. No header is touched, nothing
//! is counted, no time is kept; whatever a real proxy does comes on top.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;

type Sender = SendRequest<Incoming>;

struct Pool {
    to: SocketAddr,
    idle: RefCell<Vec<Sender>>,
}

impl Pool {
    async fn lease(&self) -> io::Result<Sender> {
        loop {
            let Some(mut sender) = self.idle.borrow_mut().pop() else { break };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        spawn_local(connection);
        Ok(sender)
    }
}

/// A response body that gives its connection back when it ends.
struct Leased {
    body: Incoming,
    lease: Option<(Rc<Pool>, Sender)>,
}

impl Leased {
    fn give_back(&mut self) {
        if let Some((pool, sender)) = self.lease.take() {
            pool.idle.borrow_mut().push(sender);
        }
    }
}

impl Body for Leased {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(task));
        match &frame {
            Some(Err(_)) => self.lease = None,
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.give_back(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn forward(pool: Rc<Pool>, request: Request<Incoming>) -> io::Result<Response<Leased>> {
    let mut sender = pool.lease().await?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(response.map(|body| {
        let mut leased = Leased { body, lease: Some((pool, sender)) };
        if leased.body.is_end_stream() {
            leased.give_back();
        }
        leased
    }))
}

/// Serves until the process is ended.
pub fn serve(to: SocketAddr) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        crate::process::announce(listener.local_addr()?);
        let pool = Rc::new(Pool { to, idle: RefCell::default() });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let pool = Rc::clone(&pool);
            let service = service_fn(move |request| forward(Rc::clone(&pool), request));
            spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}
