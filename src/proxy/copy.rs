//! A request head kept in case it must be sent again.
//!
//! Most copies are never looked at: so the fields are one text, which costs less to write than a map or a list
//! of shared values, and is taken apart only when it is wanted.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version, request};

/// Where the head of the next try comes from.
#[derive(Debug, Default)]
pub(super) enum Kept {
    /// From where it was made ready: nothing has gone up yet.
    #[default]
    Not,
    /// From a copy of what went up.
    Copy(HeadCopy),
    /// From what the connection wrote: it is still in hand.
    OnWire,
    /// From what the connection wrote.
    Head(Box<request::Parts>),
    /// From nowhere: it went up for good.
    Gone,
}

/// A copied head.
#[derive(Debug)]
pub(super) struct HeadCopy {
    method: Method,
    uri: Uri,
    version: Version,
    /// Field after field: the lengths of name and value, name, value.
    fields: Vec<u8>,
}

/// Room for the fields of an ordinary head.
const ORDINARY: usize = 512;
/// Of the length of a value: it is not to be remembered by compression.
const SENSITIVE: u32 = 1 << 31;

impl HeadCopy {
    /// Copies a head.
    pub(super) fn of(parts: &request::Parts) -> HeadCopy {
        let mut fields = Vec::with_capacity(ORDINARY);
        for (name, value) in &parts.headers {
            let (name, sensitive) = (name.as_str(), if value.is_sensitive() { SENSITIVE } else { 0 });
            // Heads are bounded by far less than either length can say.
            let lengths = u64::from(name.len() as u32) << 32 | u64::from(value.len() as u32 | sensitive);
            fields.extend_from_slice(&lengths.to_be_bytes());
            fields.extend_from_slice(name.as_bytes());
            fields.extend_from_slice(value.as_bytes());
        }
        HeadCopy { method: parts.method.clone(), uri: parts.uri.clone(), version: parts.version, fields }
    }

    /// The head again, and once more.
    #[cold]
    pub(super) fn to_parts(&self) -> request::Parts {
        let (method, uri, fields) = (self.method.clone(), self.uri.clone(), self.fields.clone());
        HeadCopy { method, uri, version: self.version, fields }.into_parts()
    }

    /// The head again.
    #[cold]
    pub(super) fn into_parts(self) -> request::Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method;
        parts.uri = self.uri;
        parts.version = self.version;
        parts.headers = HeaderMap::with_capacity(16);
        let mut fields = Bytes::from(self.fields);
        while let Some((lengths, _)) = fields.split_first_chunk::<8>() {
            let lengths = u64::from_be_bytes(*lengths);
            let (name, value) = ((lengths >> 32) as usize, lengths as u32);
            let name = fields.slice(8..8 + name);
            let text = fields.slice(8 + name.len()..8 + name.len() + (value & !SENSITIVE) as usize);
            let rest = fields.slice(8 + name.len() + text.len()..);
            // They were a name and a value before.
            if let (Ok(name), Ok(mut text)) =
                (HeaderName::from_bytes(&name), HeaderValue::from_maybe_shared(text))
            {
                text.set_sensitive(value & SENSITIVE != 0);
                parts.headers.append(name, text);
            }
            fields = rest;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_gives_the_same_head_again() {
        let mut secret = HeaderValue::from_static("k");
        secret.set_sensitive(true);
        let request = Request::put("/a?b=c")
            .version(Version::HTTP_11)
            .header("host", "h")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("x-empty", "")
            .header("x-bytes", HeaderValue::from_bytes(b"\xff\x80").unwrap())
            .header("x-long", "v".repeat(70_000))
            .header("authorization", secret)
            .body(())
            .unwrap();
        let parts = request.into_parts().0;
        let again = HeadCopy::of(&parts).into_parts();
        assert_eq!(again.method, parts.method);
        assert_eq!((again.uri, again.version), (parts.uri, parts.version));
        assert_eq!(again.headers, parts.headers);
        assert!(again.headers["authorization"].is_sensitive() && !again.headers["host"].is_sensitive());
    }
}
