//! A client's HTTP/1 bytes as they come in, before the parser sees them: where heads begin and end, and that
//! every line of them ends in CRLF.
//!
//! The parser takes a bare LF for the end of a line, as RFC 9112 allows; a proxy before this one may take it for
//! a part of a value, and then the two see different requests in the same bytes. Here a bare LF is made a byte
//! that no head may hold, so that the parser refuses the request. To know what is a head and what is a body, it
//! is told by the layer above how each request's body is framed ([`Line::framed`]); until then it keeps back what
//! follows a head. It parses no field and owns no socket.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Not yet told.
const UNKNOWN: u64 = u64::MAX;
/// A body in chunks.
const CHUNKED: u64 = u64::MAX - 1;
/// No HTTP any more.
const OPEN: u64 = u64::MAX - 2;

/// What a client's socket and the exchanges on it tell each other. One thread writes it; it is atomic only
/// because hyper wants sockets that can be sent.
#[derive(Debug)]
pub struct Line {
    /// Reads that brought something.
    pub reads: AtomicU32,
    /// Bytes they brought.
    pub bytes: AtomicU64,
    /// Frames among them, where HTTP/2 is spoken.
    pub frames: AtomicU32,
    /// Writes that took something.
    pub writes: AtomicU32,
    /// Whether bytes for the client are waiting for it to read.
    pub blocked: AtomicU32,
    /// Bytes that may be read before others have their turn.
    pub turn: AtomicU32,
    /// Bytes that have been read since they had it.
    pub used: AtomicU32,
    /// Streams that the client has reset since.
    pub resets: AtomicU32,
    /// How many heads were spoilt: 0 or 1.
    spoilt: AtomicU32,
    framing: AtomicU64,
}

/// Bytes that are read of one client before others have their turn.
pub const TURN: u32 = 64 << 10;

impl Default for Line {
    fn default() -> Line {
        Line {
            reads: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            frames: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            blocked: AtomicU32::new(0),
            turn: AtomicU32::new(TURN),
            used: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            spoilt: AtomicU32::new(0),
            framing: AtomicU64::new(UNKNOWN),
        }
    }
}

impl Line {
    /// The request whose head has just been read has a body of this length; `None`: in chunks.
    #[inline]
    pub fn framed(&self, length: Option<u64>) {
        self.framing.store(length.map_or(CHUNKED, |length| length.min(OPEN - 1)), Relaxed);
    }

    /// What follows is no HTTP: the connection has become a tunnel.
    pub fn opened(&self) {
        self.framing.store(OPEN, Relaxed);
    }

    /// Whether a request was refused for its line ends.
    pub fn is_spoilt(&self) -> bool {
        self.spoilt.load(Relaxed) != 0
    }
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Lines of a head; `begun` once one was not empty.
    Head { begun: bool },
    /// To be told about the body.
    Told,
    /// So many bytes of a body, or of a chunk and then its CRLF.
    Body { left: u64, chunked: bool },
    /// The line of a chunk's size: so far, and whether digits are over.
    Size { size: u64, over: bool },
    /// Lines of trailers.
    Trailers,
    /// CRLF after a chunk.
    ChunkEnd,
    /// All passes.
    Open,
    /// Nothing passes.
    Broken,
}

/// The place in a client's bytes.
#[derive(Debug)]
pub struct Inlet {
    state: State,
    /// The last byte was CR.
    cr: bool,
    /// Nothing but perhaps CR stands on this line so far.
    empty: bool,
}

impl Default for Inlet {
    fn default() -> Inlet {
        Inlet { state: State::Head { begun: false }, cr: false, empty: true }
    }
}

impl Inlet {
    /// For what is not HTTP/1: all passes.
    pub fn open() -> Inlet {
        Inlet { state: State::Open, ..Inlet::default() }
    }

    /// Whether nothing passes any more.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Looks at bytes as they came: how many of them may pass now. The rest is to be shown again once the
    /// exchange has begun. A bare LF in a head is spoilt, and is the last byte to pass.
    #[inline]
    pub fn pass(&mut self, bytes: &mut [u8], line: &Line) -> usize {
        if self.state == State::Open || line.framing.load(Relaxed) == OPEN {
            return bytes.len();
        }
        let mut at = 0;
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            at += match self.state {
                State::Head { begun } => self.lines(rest, begun, line),
                State::Told => match self.told(line) {
                    true => 0,
                    false => return at,
                },
                State::Body { .. } | State::Size { .. } | State::Trailers | State::ChunkEnd => {
                    self.body(rest, line)
                }
                State::Open => rest.len(),
                State::Broken => return at,
            };
        }
        at
    }

    /// Lines up to the empty one; how many bytes they are.
    #[inline]
    fn lines(&mut self, bytes: &mut [u8], begun: bool, line: &Line) -> usize {
        if !begun && self.empty && !self.cr && is_one_head(bytes) {
            self.state = State::Told;
            line.framing.store(UNKNOWN, Relaxed);
            return bytes.len();
        }
        self.line_by_line(bytes, begun, line)
    }

    fn line_by_line(&mut self, bytes: &mut [u8], mut begun: bool, line: &Line) -> usize {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', &bytes[start..]) {
            let before = match length {
                0 => self.cr,
                _ => bytes[start + length - 1] == b'\r',
            };
            let end = start + length;
            if !before {
                bytes[end] = 0;
                self.state = State::Broken;
                line.spoilt.store(1, Relaxed);
                return end + 1;
            }
            let empty = self.empty && length <= 1;
            (self.cr, self.empty) = (false, true);
            start = end + 1;
            if !empty {
                begun = true;
            } else if begun {
                self.state = State::Told;
                line.framing.store(UNKNOWN, Relaxed);
                return start;
            }
        }
        let rest = &bytes[start..];
        if let Some(last) = rest.last() {
            // A CR alone on its line may yet be that of an empty one.
            self.empty = self.empty && rest.len() == 1 && *last == b'\r' && !self.cr;
            self.cr = *last == b'\r';
        }
        self.state = State::Head { begun };
        bytes.len()
    }

    /// Takes up what the layer above says, if it has.
    fn told(&mut self, line: &Line) -> bool {
        self.state = match line.framing.load(Relaxed) {
            UNKNOWN => return false,
            OPEN => State::Open,
            CHUNKED => State::Size { size: 0, over: false },
            0 => State::Head { begun: false },
            left => State::Body { left, chunked: false },
        };
        true
    }

    #[cold]
    fn body(&mut self, bytes: &mut [u8], line: &Line) -> usize {
        match self.state {
            State::Body { left, chunked } => {
                let now = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let left = left - now as u64;
                self.state = match (left, chunked) {
                    (0, false) => State::Head { begun: false },
                    (0, true) => State::ChunkEnd,
                    _ => State::Body { left, chunked },
                };
                now
            }
            State::ChunkEnd => self.byte(bytes, line, |_| None),
            State::Size { size, over } => self.byte(bytes, line, |byte| {
                let digit = char::from(byte).to_digit(16).filter(|_| !over);
                match digit {
                    // Too large a size is refused by the parser.
                    Some(digit) => {
                        Some(State::Size { size: size.saturating_mul(16).saturating_add(digit.into()), over })
                    }
                    None => Some(State::Size { size, over: true }),
                }
            }),
            State::Trailers => {
                let end = self.lines(bytes, true, line);
                self.state = match self.state {
                    State::Told => State::Head { begun: false },
                    State::Broken => State::Broken,
                    _ => State::Trailers,
                };
                end
            }
            _ => 0,
        }
    }

    /// One byte of the framing of chunks: LF ends what stands there, and must follow CR.
    fn byte(&mut self, bytes: &mut [u8], line: &Line, other: impl FnOnce(u8) -> Option<State>) -> usize {
        let byte = bytes[0];
        let after_cr = std::mem::replace(&mut self.cr, byte == b'\r');
        let next = match byte {
            b'\n' if after_cr => match self.state {
                State::Size { size: 0, .. } => Some(State::Trailers),
                State::Size { size, .. } => Some(State::Body { left: size, chunked: true }),
                _ => Some(State::Size { size: 0, over: false }),
            },
            b'\r' if !after_cr => Some(self.state),
            _ if after_cr || byte == b'\n' => None,
            _ => other(byte),
        };
        if next.is_none() {
            bytes[0] = 0;
            line.spoilt.store(1, Relaxed);
        }
        self.state = next.unwrap_or(State::Broken);
        1
    }
}

/// Whether these bytes are a head, the whole of it and nothing else, each line of which ends in CRLF. Most reads
/// bring just that. `false` may also mean that it takes a closer look to tell.
#[inline]
fn is_one_head(bytes: &[u8]) -> bool {
    /// As many places as are looked at together.
    const STEP: usize = 32;
    let Some((lines, b"\r\n\r\n")) = bytes.split_last_chunk() else { return false };
    let length = lines.len();
    if length < STEP || bytes[0] == b'\n' || bytes[1] == b'\n' {
        return false;
    }
    // The last steps overlap, so that none is looked at alone.
    let (whole, rest) = (&bytes[..length / STEP * STEP + 2], &bytes[length - STEP..length + 2]);
    (bare_or_empty(whole) | bare_or_empty(rest)) == 0
}

/// Not 0 if any LF, from the third byte on, has no CR before it or ends an empty line. Without branches: the
/// compiler makes it one look at many bytes.
#[inline(always)]
fn bare_or_empty(bytes: &[u8]) -> u8 {
    let (seconds, thirds) = (&bytes[1..bytes.len() - 1], &bytes[2..]);
    let mut found = 0;
    for ((first, second), third) in bytes.iter().zip(seconds).zip(thirds) {
        found |= u8::from(*third == b'\n') & (u8::from(*second != b'\r') | u8::from(*first == b'\n'));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What passes of `bytes` that come in pieces of `piece`, when requests have bodies as told; how many heads
    /// there were, and whether the end was reached.
    fn run(bytes: &[u8], piece: usize, bodies: &[Option<u64>]) -> (Vec<u8>, usize, bool) {
        let (line, mut inlet) = (Line::default(), Inlet::default());
        let (mut out, mut held, mut heads) = (Vec::new(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            held.extend_from_slice(piece);
            loop {
                let passed = inlet.pass(&mut held, &line);
                out.extend(held.drain(..passed));
                if inlet.state == State::Told && line.framing.load(Relaxed) == UNKNOWN {
                    line.framed(bodies.get(heads).copied().unwrap_or(Some(0)));
                    heads += 1;
                    continue;
                }
                break;
            }
        }
        (out, heads, held.is_empty() && !inlet.is_broken())
    }

    /// However the bytes are split.
    fn check(bytes: &str, bodies: &[Option<u64>], heads: usize, whole: bool) {
        let (passed, ..) = run(bytes.as_bytes(), bytes.len(), bodies);
        for piece in 1..=bytes.len() {
            let (out, found, through) = run(bytes.as_bytes(), piece, bodies);
            assert_eq!((found, through), (heads, whole), "{bytes:?} by {piece}");
            assert_eq!(out, passed, "{bytes:?} by {piece}");
        }
        if whole {
            assert_eq!(passed, bytes.as_bytes(), "{bytes:?}");
        }
    }

    #[test]
    fn lines_that_end_in_crlf_pass_and_heads_are_counted() {
        check("GET / HTTP/1.1\r\nhost: a\r\n\r\n", &[], 1, true);
        check("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\n\r\n", &[], 2, true);
        check("POST / HTTP/1.1\r\n\r\na\nb\n\nGET / HTTP/1.1\r\n\r\n", &[Some(5)], 2, true);
        check(
            "POST / HTTP/1.1\r\n\r\n3\r\n\na\n\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            &[None],
            2,
            true,
        );
        check("POST / HTTP/1.1\r\n\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n", &[None], 2, true);
    }

    proptest! {
        #[test]
        fn a_head_taken_at_a_glance_is_one_line_by_line(text in "(GET|[A\r\n])([AB:]{0,12}(\r\n|\r\n|\n|\r)){0,8}\r\n\r\n") {
            let (line, mut inlet, mut bytes) = (Line::default(), Inlet::default(), text.clone().into_bytes());
            let passed = inlet.line_by_line(&mut bytes, false, &line);
            let whole = passed == text.len() && inlet.state == State::Told && !line.is_spoilt();
            prop_assert!(whole || !is_one_head(text.as_bytes()), "{:?}", text);
            let ordinary = text.len() >= 36 && !text.starts_with(['\r', '\n']);
            prop_assert!(!whole || !ordinary || is_one_head(text.as_bytes()), "{:?}", text);
        }
    }

    #[test]
    fn a_bare_lf_in_a_head_is_the_last_that_passes_and_is_spoilt() {
        for head in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            check(head, &[], 0, false);
            let (out, ..) = run(head.as_bytes(), head.len(), &[]);
            assert_eq!(
                (out.last(), out.iter().filter(|byte| **byte == 0).count()),
                (Some(&0), 1),
                "{head:?}"
            );
        }
        check("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\nhost: a\r\n\r\n", &[], 1, false);
        check("POST / HTTP/1.1\r\n\r\nabcGET / HTTP/1.1\nhost: a\r\n\r\n", &[Some(3)], 1, false);
    }

    #[test]
    fn a_bare_lf_in_the_framing_of_chunks_or_in_trailers_is_spoilt() {
        for body in [
            "3\nabc\r\n0\r\n\r\n",
            "3;a\nb\r\n",
            "3\r\nabc\n",
            "0\r\n\nx: y\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "3\rabc",
        ] {
            check(&format!("POST / HTTP/1.1\r\n\r\n{body}"), &[None], 1, false);
        }
    }

    #[test]
    fn what_is_behind_a_head_waits_until_the_body_is_known_and_a_tunnel_passes() {
        let (line, mut inlet) = (Line::default(), Inlet::default());
        let mut bytes = *b"GET / HTTP/1.1\r\n\r\n\n\nno head";
        assert_eq!(inlet.pass(&mut bytes, &line), 18);
        assert_eq!(inlet.pass(&mut bytes[18..], &line), 0);
        line.opened();
        assert_eq!(inlet.pass(&mut bytes[18..], &line), 9);
        assert!(!line.is_spoilt());
    }
}
