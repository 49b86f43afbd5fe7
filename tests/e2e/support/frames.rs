//! HTTP/2 frames by hand, also such as no library would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What a client says first, its settings not included.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()[..]].concat();
    [&head[..], payload].concat()
}

/// A field, neither indexed nor compressed; both parts shorter than 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let part = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    [vec![0], part(name), part(value)].concat()
}

/// All fields of a head.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The head of an ordinary GET.
pub fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)])
}

/// One frame that came: kind, stream, payload.
pub type Came = (u8, u32, Vec<u8>);

/// A connection that says what it is told to.
pub struct Frames<S = TcpStream> {
    pub stream: S,
}

impl Frames {
    /// Connects and says hello; `settings` is the payload of the first frame.
    #[track_caller]
    pub fn to(address: SocketAddr, settings: &[u8]) -> Frames {
        let stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a TCP socket");
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a TCP socket");
        Frames::over(stream, settings)
    }
}

impl<S: Read + Write> Frames<S> {
    /// Says hello on a connection that is there.
    pub fn over(stream: S, settings: &[u8]) -> Frames<S> {
        let mut frames = Frames { stream };
        frames.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        frames
    }

    /// Sends; whether all of it was taken.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the connection's end.
    pub fn read(&mut self) -> Option<Came> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        Some((head[3], stream, payload))
    }

    /// The first frame about `stream`, or about the connection's end.
    pub fn outcome(&mut self, stream: u32) -> Option<Came> {
        loop {
            let came = self.read()?;
            if came.0 == GOAWAY || (came.1 == stream && came.0 != WINDOW_UPDATE) {
                return Some(came);
            }
        }
    }
}
