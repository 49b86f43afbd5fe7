//! A request head kept in case it must be sent again.
//!
//! A plain list costs half of what a copied header map does, and most copies are never looked at.

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
    /// From nowhere: it went up for good.
    Gone,
}

/// A copied head.
#[derive(Debug)]
pub(super) struct HeadCopy {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl HeadCopy {
    /// Copies a head; values are shared.
    pub(super) fn of(parts: &request::Parts) -> HeadCopy {
        let mut fields = Vec::with_capacity(parts.headers.len());
        fields.extend(parts.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        HeadCopy { method: parts.method.clone(), uri: parts.uri.clone(), version: parts.version, fields }
    }

    /// The head again.
    #[cold]
    pub(super) fn into_parts(self) -> request::Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method;
        parts.uri = self.uri;
        parts.version = self.version;
        parts.headers = HeaderMap::with_capacity(self.fields.len() + 1);
        for (name, value) in self.fields {
            parts.headers.append(name, value);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_gives_the_same_head_again() {
        let request = Request::put("/a?b=c")
            .version(Version::HTTP_11)
            .header("host", "h")
            .header("x-a", "1")
            .header("x-a", "2")
            .body(())
            .unwrap();
        let parts = request.into_parts().0;
        let again = HeadCopy::of(&parts).into_parts();
        assert_eq!(again.method, parts.method);
        assert_eq!((again.uri, again.version), (parts.uri, parts.version));
        assert_eq!(again.headers, parts.headers);
    }
}
