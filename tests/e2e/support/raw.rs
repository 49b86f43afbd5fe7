//! Bytes as they are: a client and an origin that know nothing of HTTP but where a head ends.

use super::seconds;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A connection that sends and reads bytes.
pub struct RawClient {
    stream: TcpStream,
}

impl RawClient {
    #[track_caller]
    pub fn to(address: SocketAddr) -> RawClient {
        let stream = TcpStream::connect_timeout(&address, seconds(5)).expect("the listener accepts");
        RawClient::over(stream)
    }

    pub fn over(stream: TcpStream) -> RawClient {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(seconds(10))).expect("a TCP socket");
        stream.set_write_timeout(Some(seconds(10))).expect("a TCP socket");
        RawClient { stream }
    }

    /// Sends; `\n` is written out as CRLF when no CR stands before it anywhere in the text.
    #[track_caller]
    pub fn send(&mut self, text: &str) -> &mut RawClient {
        let text = if text.contains('\r') { text.to_owned() } else { text.replace('\n', "\r\n") };
        self.stream.write_all(text.as_bytes()).expect("the peer takes what is sent");
        self
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) -> &mut RawClient {
        self.stream.write_all(bytes).expect("the peer takes what is sent");
        self
    }

    /// Sends; whether the peer took it.
    pub fn offer(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// No more will be sent.
    pub fn finish(&mut self) -> &mut RawClient {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// Reads until the end of a head, the empty line included.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        self.read_until("\r\n\r\n")
    }

    /// Reads until `end` was read.
    #[track_caller]
    pub fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(end.as_bytes()) {
            match self.stream.read(&mut byte) {
                Ok(1) => read.push(byte[0]),
                Ok(_) => panic!("closed before {end:?}, after {:?}", String::from_utf8_lossy(&read)),
                Err(error) => panic!("{error} before {end:?}, after {:?}", String::from_utf8_lossy(&read)),
            }
        }
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads exactly so many bytes.
    #[track_caller]
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("the peer sends that much");
        bytes
    }

    /// Reads until the peer closes. A reset is an end, too.
    #[track_caller]
    pub fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (),
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&bytes)),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until the peer closes; whether it did with a reset.
    #[track_caller]
    pub fn is_reset(&mut self) -> bool {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads until the peer closes, with more patience than usual.
    #[track_caller]
    pub fn read_to_end_within(&mut self, wait: Duration) -> String {
        self.stream.set_read_timeout(Some(wait)).expect("a TCP socket");
        self.read_to_end()
    }

    /// Whether the peer has closed; waits for its next byte.
    pub fn is_at_end(&mut self) -> bool {
        !matches!(self.stream.peek(&mut [0]), Ok(1))
    }

    /// Whether nothing arrives, not even an end, for so long.
    pub fn is_silent_for(&mut self, wait: Duration) -> bool {
        self.stream.set_read_timeout(Some(wait)).expect("a TCP socket");
        let silent = matches!(self.stream.peek(&mut [0]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.stream.set_read_timeout(Some(seconds(10))).expect("a TCP socket");
        silent
    }
}

/// An upstream whose every connection is played by a script.
pub struct RawOrigin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl RawOrigin {
    /// Runs `script` for each connection, with its number from 1; closes the connection when it returns. A
    /// script that panics (its peer went away) ends its connection only.
    pub fn script(script: impl Fn(RawClient, usize) + Send + Sync + 'static) -> RawOrigin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let (count, stop, script) = (Arc::clone(&connections), Arc::clone(&stopped), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(RawClient::over(stream), number));
            }
        });
        RawOrigin { address, connections, stopped }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the flag.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}
