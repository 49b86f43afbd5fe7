//! The path as everyone on the way reads it: without dot segments, and with nothing escaped that need not be.
//!
//! Before routing, so that a rule for `/admin` also sees `/x/../admin` and `/%61dmin`; what is matched is what is
//! forwarded. The steps and their order are Envoy's, and which are taken MeshConfig says (`pathNormalization`):
//! escaped slashes are unescaped, dot segments resolved, slashes merged. By default (BASE) slashes are not merged
//! and escaped slashes stay. Unlike there, a `%` that escapes nothing becomes `%25`, since it could make an escape
//! with what was unescaped behind it, and a path of slashes alone merges to one.

use super::target::set_path;
use crate::fault::Kind;
use http::request;
use http::uri::PathAndQuery;
pub use proxy_config::model::PathNormalization;
use smallvec::SmallVec;

/// Normalizes the path of a request in place; costs one look at paths that need nothing.
///
/// # Errors
/// `BadRequest` for an escaped NUL.
#[inline]
pub fn path(parts: &mut request::Parts, how: PathNormalization) -> Result<(), Kind> {
    match parts.uri.path_and_query() {
        Some(target) if is_suspect(target.path().as_bytes(), how) => rewrite(parts, how),
        _ => Ok(()),
    }
}

fn is_suspect(path: &[u8], how: PathNormalization) -> bool {
    if how == PathNormalization::None {
        return false;
    }
    // A dot segment and a slash too many both begin with a slash.
    let slash = if how == PathNormalization::Base { b'.' } else { b'/' };
    // Paths are short: byte by byte costs less than to set out for a search.
    let mut before = 0;
    path.iter().any(|byte| {
        let behind_slash = std::mem::replace(&mut before, *byte) == b'/';
        matches!(byte, b'%' | b'\\') || behind_slash && (*byte == b'.' || *byte == slash)
    })
}

#[cold]
fn rewrite(parts: &mut request::Parts, how: PathNormalization) -> Result<(), Kind> {
    let Some(target) = parts.uri.path_and_query() else { return Ok(()) };
    let path = target.path().as_bytes();
    if path.first() != Some(&b'/') {
        return Ok(());
    }
    let plain = match how {
        PathNormalization::DecodeAndMergeSlashes => unescape_slashes(path),
        _ => Path::from_slice(path),
    };
    let mut new = without_dots(&unescape(&plain)?);
    if matches!(how, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes) {
        new.dedup_by(|next, before| *next == b'/' && *before == b'/');
    }
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

/// `%2F` is a slash, `%5C` a backslash; once, so that `%252F` stays what it is.
fn unescape_slashes(path: &[u8]) -> Path {
    let mut out = Path::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let (byte, width) = match path.get(at..at + 3) {
            Some([b'%', b'2', b'f' | b'F']) => (b'/', 3),
            Some([b'%', b'5', b'c' | b'C']) => (b'\\', 3),
            _ => (byte, 1),
        };
        out.push(byte);
        at += width;
    }
    out
}

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

    use PathNormalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};

    const ALL: [PathNormalization; 4] = [None, Base, MergeSlashes, DecodeAndMergeSlashes];

    fn normal(uri: &str, how: PathNormalization) -> Result<String, Kind> {
        let mut parts = http::Request::get(uri).body(()).unwrap().into_parts().0;
        path(&mut parts, how)?;
        Ok(parts.uri.to_string())
    }

    fn check(rows: &[(&str, &str)]) {
        for (before, after) in rows {
            assert_eq!(normal(before, Base).as_deref(), Ok(*after), "{before}");
        }
    }

    #[test]
    fn what_is_done_to_slashes_is_for_the_mesh_to_say() {
        for (before, wanted) in [
            ("/a//b", ["/a//b", "/a//b", "/a/b", "/a/b"]),
            ("//a///b//", ["//a///b//", "//a///b//", "/a/b/", "/a/b/"]),
            ("//", ["//", "//", "/", "/"]),
            ("/a/../b", ["/a/../b", "/b", "/b", "/b"]),
            ("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]),
            ("/a%2F%2fb", ["/a%2F%2fb", "/a%2F%2fb", "/a%2F%2fb", "/a/b"]),
            ("/a%5cb", ["/a%5cb", "/a%5cb", "/a%5cb", "/a/b"]),
            ("/x%2f..%2Fadmin", ["/x%2f..%2Fadmin", "/x%2f..%2Fadmin", "/x%2f..%2Fadmin", "/admin"]),
            ("/x%2f%2e%2E%5Cadmin", ["/x%2f%2e%2E%5Cadmin", "/x%2f..%5Cadmin", "/x%2f..%5Cadmin", "/admin"]),
            ("/a%252fb", ["/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb"]),
            ("/a?b//c%2f", ["/a?b//c%2f", "/a?b//c%2f", "/a?b//c%2f", "/a?b//c%2f"]),
            ("/%61%", ["/%61%", "/a%25", "/a%25", "/a%25"]),
            ("http://h//x", ["http://h//x", "http://h//x", "http://h/x", "http://h/x"]),
        ] {
            for (how, wanted) in ALL.into_iter().zip(wanted) {
                assert_eq!(normal(before, how).as_deref(), Ok(wanted), "{before} {how:?}");
            }
        }
        assert_eq!(normal("/a%00b", None).as_deref(), Ok("/a%00b"));
        for how in [Base, MergeSlashes, DecodeAndMergeSlashes] {
            assert_eq!(normal("/a%00b", how), Err(Kind::BadRequest));
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
        assert_eq!(normal("/a%00b", Base), Err(Kind::BadRequest));
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
        fn a_normal_path_is_normal_and_never_leaves_its_root(tail in "[/.%2eE56acfF\\\\]{0,20}") {
            for how in [Base, MergeSlashes, DecodeAndMergeSlashes] {
                let Ok(once) = normal(&format!("/{tail}"), how) else { continue };
                prop_assert!(once.starts_with('/'));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."), "{}", once);
                prop_assert!(!once.contains('\\'), "{}", once);
                prop_assert!(how == Base || !once.contains("//"), "{}", once);
                // A second reader who is as careful finds nothing to do; one who unescapes slashes as well may.
                prop_assert_eq!(normal(&once, how), Ok(once.clone()));
                prop_assert_eq!(normal(&once, Base), Ok(once.clone()));
            }
        }
    }
}
