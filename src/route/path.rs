//! Changes of the path: the matched prefix, the whole path, or every match of a regex.
//!
//! Works on the path as it came, never decoded and never normalised, and leaves the query alone.

use bytes::{Bytes, BytesMut};
use http::uri::{InvalidUri, PathAndQuery};
use proxy_config::model::PathRewrite;
use proxy_config::regex;
use regex_automata::meta::Regex;

/// A compiled [`PathRewrite`].
#[derive(Clone, Debug)]
pub struct PathChange(Change);

#[derive(Clone, Debug)]
enum Change {
    Prefix { from_len: usize, with: Box<[u8]> },
    Full(Box<[u8]>),
    Regex { regex: Regex, with: Box<[Piece]> },
}

/// A part of an RE2 substitution.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Group(usize),
}

impl PathChange {
    /// Compiles a rewrite.
    ///
    /// # Errors
    /// A regex or a substitution that is wrong, or a text that cannot stand in a path.
    pub fn compile(wanted: &PathRewrite) -> Result<PathChange, String> {
        Ok(PathChange(match wanted {
            PathRewrite::Prefix { from_len, with } => {
                Change::Prefix { from_len: *from_len, with: checked(with)? }
            }
            PathRewrite::Full(with) => Change::Full(checked(with)?),
            PathRewrite::Regex { pattern, with } => {
                let regex = regex::anywhere(pattern).map_err(|why| format!("regex `{pattern}`: {why}"))?;
                checked(with)?;
                let with = substitution(with, regex.group_info().group_len(Default::default()))?;
                Change::Regex { regex, with }
            }
        }))
    }

    /// The target with its path changed and its query as it was. A result that does not begin with `/` gets
    /// one: nothing else can be sent.
    ///
    /// # Errors
    /// The result is too long or otherwise not a request target.
    pub fn apply(&self, target: &PathAndQuery) -> Result<PathAndQuery, InvalidUri> {
        let mut out = self.path(target.path());
        if let Some(query) = target.query() {
            out.extend_from_slice(b"?");
            out.extend_from_slice(query.as_bytes());
        }
        PathAndQuery::from_maybe_shared(out.freeze())
    }

    /// For redirects: as `apply`, but a query of the replacement's own takes the place of the request's.
    pub(super) fn redirect(&self, target: &PathAndQuery) -> Bytes {
        let mut out = self.path(target.path());
        if let Some(query) = target.query()
            && !out.contains(&b'?')
        {
            out.extend_from_slice(b"?");
            out.extend_from_slice(query.as_bytes());
        }
        out.freeze()
    }

    fn path(&self, path: &str) -> BytesMut {
        let path = path.as_bytes();
        let mut out = BytesMut::with_capacity(path.len() + 64);
        match &self.0 {
            Change::Prefix { from_len, with } => {
                out.extend_from_slice(with);
                out.extend_from_slice(path.get(*from_len..).unwrap_or_default());
            }
            Change::Full(with) => out.extend_from_slice(with),
            Change::Regex { regex, with } => substitute(regex, with, path, &mut out),
        }
        if out.first() != Some(&b'/') {
            let rest = out.split();
            out.extend_from_slice(b"/");
            out.extend_from_slice(&rest);
        }
        out
    }
}

/// Text that may stand in a request target.
fn checked(text: &str) -> Result<Box<[u8]>, String> {
    let probe = format!("/{text}");
    match PathAndQuery::from_maybe_shared(Bytes::from(probe.clone())) {
        Ok(parsed) if parsed.as_str() == probe => Ok(text.as_bytes().into()),
        _ => Err(format!("`{text}` cannot stand in a request path")),
    }
}

/// RE2's rewrite syntax: `\0` to `\9` name groups, `\\` is a backslash.
fn substitution(with: &str, groups: usize) -> Result<Box<[Piece]>, String> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut bytes = with.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => text.push(b'\\'),
            Some(digit @ b'0'..=b'9') => {
                let group = usize::from(digit - b'0');
                if group >= groups {
                    return Err(format!("`{with}` names group {group}, the regex has {}", groups - 1));
                }
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(Piece::Group(group));
            }
            _ => return Err(format!("`{with}`: a backslash needs a digit or a backslash behind it")),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(pieces.into())
}

fn substitute(regex: &Regex, with: &[Piece], path: &[u8], out: &mut BytesMut) {
    let mut done = 0;
    for found in regex.captures_iter(path) {
        let Some(whole) = found.get_match() else { continue };
        out.extend_from_slice(&path[done..whole.start()]);
        for piece in with {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Group(group) => {
                    if let Some(span) = found.get_group(*group) {
                        out.extend_from_slice(&path[span.range()]);
                    }
                }
            }
        }
        done = whole.end();
    }
    out.extend_from_slice(&path[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: PathRewrite, rows: &[(&str, &str)]) {
        let change = PathChange::compile(&wanted).unwrap();
        for (from, to) in rows {
            let target = PathAndQuery::try_from(*from).unwrap();
            assert_eq!(change.apply(&target).unwrap().as_str(), *to, "{wanted:?} on {from}");
        }
    }

    fn prefix(from_len: usize, with: &str) -> PathRewrite {
        PathRewrite::Prefix { from_len, with: with.into() }
    }

    fn regex(pattern: &str, with: &str) -> PathRewrite {
        PathRewrite::Regex { pattern: pattern.into(), with: with.into() }
    }

    #[test]
    fn a_prefix_gives_way_and_the_rest_stays_with_the_query() {
        check(
            prefix(4, "/"),
            &[("/api", "/"), ("/apifoo", "/foo"), ("/api/x", "//x"), ("/api?a=1&b", "/?a=1&b")],
        );
        check(prefix(5, "/v1/"), &[("/api/x?y", "/v1/x?y"), ("/api/", "/v1/"), ("/a", "/v1/")]);
        check(prefix(5, ""), &[("/api/x", "/x"), ("/api/", "/")]);
    }

    #[test]
    fn the_whole_path_gives_way_and_the_query_stays() {
        check(PathRewrite::Full("/new".into()), &[("/old/x?q=1", "/new?q=1"), ("/", "/new")]);
        check(PathRewrite::Full("new".into()), &[("/old", "/new")]);
    }

    #[test]
    fn every_match_of_a_regex_gives_way_and_groups_are_carried_over() {
        check(
            regex("^/service/([^/]+)(/.*)$", r"\2/instance/\1"),
            &[("/service/foo/v1/api", "/v1/api/instance/foo"), ("/other", "/other")],
        );
        check(regex("one", "two"), &[("/xx/one/one?one", "/xx/two/two?one")]);
        check(regex("/+", "/"), &[("//a///b", "/a/b")]);
        check(regex("^", "/pre"), &[("/a", "/pre/a")]);
        check(regex("(x)|(y)", r"\1-\0"), &[("/x/y", "/x-x/-y")]);
    }

    #[test]
    fn what_could_not_be_sent_does_not_compile() {
        for wrong in [
            prefix(1, "/a b"),
            PathRewrite::Full("/a#b".into()),
            PathRewrite::Full("/a\r\nhost: b".into()),
            regex("(a)", r"\2"),
            regex("(a)", r"\"),
            regex("(a)", r"\x"),
            regex("(", "a"),
        ] {
            assert!(PathChange::compile(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_target_that_grows_beyond_what_can_be_sent_is_an_error() {
        let target = PathAndQuery::try_from(format!("/{}", "a".repeat(65_000))).unwrap();
        let change = PathChange::compile(&prefix(1, &"b".repeat(1000))).unwrap();
        assert!(change.apply(&target).is_err());
    }
}
