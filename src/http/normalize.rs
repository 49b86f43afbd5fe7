//! The path as everyone on the way reads it: without dot segments, and with nothing escaped that need not be.
//!
//! Before routing, so that a rule for `/admin` also sees `/x/../admin` and `/%61dmin`; what is matched is what is
//! forwarded. It does what Envoy calls normalization and Istio's default (BASE) asks for: slashes are not merged
//! and escaped slashes stay. Unlike there, a `%` that escapes nothing becomes `%25`, since it could make an
//! escape with what was unescaped behind it.

use super::target::set_path;
use crate::fault::Kind;
use http::request;
use http::uri::PathAndQuery;
use smallvec::SmallVec;

/// Normalizes the path of a request in place; costs one look at paths that need nothing.
///
/// # Errors
/// `BadRequest` for an escaped NUL.
#[inline]
pub fn path(parts: &mut request::Parts) -> Result<(), Kind> {
    match parts.uri.path_and_query() {
        Some(target) if is_suspect(target.path().as_bytes()) => rewrite(parts),
        _ => Ok(()),
    }
}

fn is_suspect(path: &[u8]) -> bool {
    memchr::memchr2(b'%', b'\\', path).is_some()
        || memchr::memchr_iter(b'.', path).any(|at| at > 0 && path[at - 1] == b'/')
}

#[cold]
fn rewrite(parts: &mut request::Parts) -> Result<(), Kind> {
    let Some(target) = parts.uri.path_and_query() else { return Ok(()) };
    let path = target.path().as_bytes();
    if path.first() != Some(&b'/') {
        return Ok(());
    }
    let mut new = without_dots(&unescape(path)?);
    if new.as_slice() == path {
        return Ok(());
    }
    if let Some(query) = target.query() {
        new.push(b'?');
        new.extend_from_slice(query.as_bytes());
    }
    let new = PathAndQuery::try_from(new.as_slice()).map_err(|_| Kind::BadRequest)?;
    set_path(&mut parts.uri, new)
}

type Path = SmallVec<[u8; 256]>;

/// Escapes of unreserved characters (RFC 3986, 2.3) are taken off, and a backslash is a slash.
fn unescape(path: &[u8]) -> Result<Path, Kind> {
    let mut out = Path::with_capacity(path.len() + 8);
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        match byte {
            b'\\' => out.push(b'/'),
            b'%' => {
                let Some(value) = path.get(at..at + 2).and_then(hex) else {
                    out.extend_from_slice(b"%25");
                    continue;
                };
                match value {
                    0 => return Err(Kind::BadRequest),
                    b'-' | b'.' | b'_' | b'~' => out.push(value),
                    _ if value.is_ascii_alphanumeric() => out.push(value),
                    _ => out.extend_from_slice(&path[at - 1..at + 2]),
                }
                at += 2;
            }
            _ => out.push(byte),
        }
    }
    Ok(out)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? * 16 + value(digits[1])?).ok()
}

/// RFC 3986, 5.2.4, for a path that begins with a slash.
fn without_dots(path: &[u8]) -> Path {
    let mut out = Path::with_capacity(path.len());
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            b"." => {}
            b".." => out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        // A dot segment at the end leaves its slash.
        if segments.peek().is_none() {
            out.push(b'/');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(uri: &str) -> Result<String, Kind> {
        let mut parts = http::Request::get(uri).body(()).unwrap().into_parts().0;
        path(&mut parts)?;
        Ok(parts.uri.to_string())
    }

    fn check(rows: &[(&str, &str)]) {
        for (before, after) in rows {
            assert_eq!(normal(before).as_deref(), Ok(*after), "{before}");
        }
    }

    #[test]
    fn dot_segments_go_however_they_are_written() {
        check(&[
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x\\..\\admin", "/admin"),
            ("/./a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/.", "/"),
            ("http://h/x/../a?q=/../b", "http://h/a?q=/../b"),
        ]);
    }

    #[test]
    fn what_needs_no_escape_has_none() {
        check(&[
            ("/%61dmin", "/admin"),
            ("/%41%7e%5f%2d", "/A~_-"),
            ("/d%%36%35ny", "/d%2565ny"),
            ("/100%", "/100%25"),
            ("/a%2", "/a%252"),
        ]);
        assert_eq!(normal("/a%00b"), Err(Kind::BadRequest));
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for uri in [
            "/",
            "/a/b.html",
            "/.well-known/x",
            "/a..b/...",
            "/a%2fb%5c%20%C3%a9",
            "//a//b",
            "*",
            "/a;x=..",
            "/a?%61=%2e",
        ] {
            check(&[(uri, uri)]);
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_is_normal_and_holds_no_dot_segment(tail in "[/.%2eE56a\\\\]{0,16}") {
            if let Ok(once) = normal(&format!("/{tail}")) {
                prop_assert!(once.starts_with('/'));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."), "{}", once);
                prop_assert_eq!(normal(&once), Ok(once.clone()));
            }
        }
    }
}
