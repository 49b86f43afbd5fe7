//! An HTTP/2 upstream whose every connection is played by a script, down to resets and GOAWAY.

use bytes::Bytes;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// One connection, its handshake done.
pub type H2Connection = h2::server::Connection<tokio::net::TcpStream, Bytes>;
/// What answers one request.
pub type H2Respond = h2::server::SendResponse<Bytes>;

/// The running upstream; accepts no more when it is dropped.
pub struct H2Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl H2Origin {
    /// Runs `script` for each connection, with its number from 1, on a thread of its own; `streams` is how many
    /// streams the origin allows at once.
    pub fn script<F>(streams: u32, script: F) -> H2Origin
    where
        F: AsyncFn(H2Connection, usize) + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (connections, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop, script) = (Arc::clone(&connections), Arc::clone(&stopped), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let script = Arc::clone(&script);
                std::thread::spawn(move || play(stream, streams, number, &*script));
            }
        });
        H2Origin { address, connections, stopped }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the flag.
        let _ = std::net::TcpStream::connect(self.address);
    }
}

fn play<F: AsyncFn(H2Connection, usize)>(
    stream: std::net::TcpStream,
    streams: u32,
    number: usize,
    script: &F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        stream.set_nonblocking(true).expect("a TCP socket");
        let stream = tokio::net::TcpStream::from_std(stream).expect("a non-blocking socket");
        let handshake = h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream);
        if let Ok(connection) = handshake.await {
            script(connection, number).await;
        }
    });
}

/// Answers 200 with a body.
pub fn answer(mut respond: H2Respond, body: &str) {
    // A client that has left is none of the origin's concern.
    if let Ok(mut stream) = respond.send_response(http::Response::new(()), false) {
        let _ = stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true);
    }
}
