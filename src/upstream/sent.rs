//! The head that went up last on an HTTP/1 connection: what was written, kept where it may be asked for again.
//!
//! An exchange on a connection that has served before may find it dead, and is then tried on another. Its head
//! has become bytes by then, and those are cheaper to keep than the fields they were made from: one copy into
//! room that is there already. They are taken apart only when they are wanted, which is nearly never.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version, request};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Room that a connection keeps from one head to the next, in bytes.
const ORDINARY: usize = 2048;

/// Stands between the exchange on a connection and the connection's socket. One thread uses it; it can be shared
/// between threads only because hyper wants sockets that can be sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The next bytes to be written are a head that is to be kept.
    wanted: AtomicBool,
    head: Mutex<Vec<u8>>,
}

impl Sent {
    /// The head that is about to be written may be asked for.
    #[inline]
    pub(super) fn want(&self) {
        self.wanted.store(true, Relaxed);
    }

    /// Something is about to be written: `bytes` begin with the whole head, if a head is due.
    #[inline]
    pub(super) fn note(&self, bytes: &[u8]) {
        if self.wanted.load(Relaxed) {
            self.keep(bytes);
        }
    }

    #[inline]
    fn keep(&self, bytes: &[u8]) {
        self.wanted.store(false, Relaxed);
        let mut head = self.head.lock();
        head.clear();
        if head.capacity() > ORDINARY {
            *head = Vec::new();
        }
        head.extend_from_slice(bytes);
    }

    /// The head that was wanted last, if it was written.
    #[cold]
    pub(super) fn head(&self) -> Option<request::Parts> {
        if self.wanted.load(Relaxed) { None } else { parse(&self.head.lock()) }
    }
}

fn parse(bytes: &[u8]) -> Option<request::Parts> {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let mut fields = vec![httparse::EMPTY_HEADER; lines];
    let mut head = httparse::Request::new(&mut fields);
    if !head.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(head.method?.as_bytes()).ok()?;
    parts.uri = head.path?.parse().ok()?;
    parts.version = Version::HTTP_11;
    parts.headers = headers;
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_the_head_again() {
        let sent = Sent::default();
        sent.want();
        sent.note(b"PUT /a?b=c HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-a: 2\r\nx-empty: \r\nx-bytes: \xff\x80\r\n\r\nbody\n");
        sent.note(b"more of the body");
        let head = sent.head().unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("PUT", "/a?b=c"));
        let fields: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let wanted: [(&str, &[u8]); 5] =
            [("host", b"h"), ("x-a", b"1"), ("x-a", b"2"), ("x-empty", b""), ("x-bytes", b"\xff\x80")];
        assert_eq!(fields, wanted);
    }

    #[test]
    fn a_head_that_was_never_written_is_none_and_not_the_one_before() {
        let sent = Sent::default();
        assert!(sent.head().is_none());
        sent.want();
        assert!(sent.head().is_none());
        sent.note(b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(sent.head().unwrap().uri.to_string(), "*");
        sent.want();
        assert!(sent.head().is_none());
    }

    #[test]
    fn a_large_head_is_given_back_whole_and_its_room_is_not_kept() {
        let sent = Sent::default();
        for size in [60_000, 10] {
            sent.want();
            sent.note(
                format!("GET / HTTP/1.1\r\nhost: h\r\nx-long: {}\r\n\r\n", "v".repeat(size)).as_bytes(),
            );
            assert_eq!(sent.head().unwrap().headers["x-long"].len(), size);
        }
        assert!(sent.head.lock().capacity() <= ORDINARY);
    }
}
