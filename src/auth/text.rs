//! Values of policies as they are compared: `abc`, `abc*`, `*abc`, `*`, path templates, blocks of addresses.
//!
//! A star anywhere else is a star. Matching allocates nothing and takes time linear in the text.

use super::facts::Identity;
use std::net::IpAddr;

/// A value and its `not` twin, compiled.
#[derive(Clone, Debug)]
pub(super) struct OneOf<T> {
    pub(super) any: Box<[T]>,
    pub(super) none: Box<[T]>,
}

impl<T> OneOf<T> {
    /// Whether one of `any` holds, where there are some, and none of `none`.
    #[inline]
    pub(super) fn hold(&self, holds: impl Fn(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&holds)) && !self.none.iter().any(&holds)
    }
}

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// `*`: there, and not empty.
    Present,
    /// The whole.
    Exact(Box<str>),
    /// `abc*`
    Prefix(Box<str>),
    /// `*abc`
    Suffix(Box<str>),
}

impl Text {
    pub(super) fn compile(text: &str) -> Text {
        if text == "*" {
            Text::Present
        } else if let Some(suffix) = text.strip_prefix('*') {
            Text::Suffix(suffix.into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Text::Prefix(prefix.into())
        } else {
            Text::Exact(text.into())
        }
    }

    #[inline]
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Text::Present => !text.is_empty(),
            Text::Exact(wanted) => text == wanted.as_bytes(),
            Text::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Text::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
        }
    }

    /// The same without regard to case.
    #[inline]
    pub(super) fn matches_any_case(&self, text: &[u8]) -> bool {
        let same = |part: Option<&[u8]>, wanted: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        match self {
            Text::Present => !text.is_empty(),
            Text::Exact(wanted) => text.eq_ignore_ascii_case(wanted.as_bytes()),
            Text::Prefix(prefix) => same(text.get(..prefix.len()), prefix),
            Text::Suffix(suffix) => {
                same(text.len().checked_sub(suffix.len()).and_then(|at| text.get(at..)), suffix)
            }
        }
    }
}

/// A namespace: every star in it stands for anything.
#[derive(Clone, Debug)]
pub(super) struct Glob(Box<[Box<str>]>);

impl Glob {
    pub(super) fn compile(text: &str) -> Glob {
        Glob(text.split('*').map(Into::into).collect())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return false };
        if self.0.len() == 1 {
            return text == &**first;
        }
        let Some(mut rest) = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else {
            return false;
        };
        self.0[1..self.0.len() - 1].iter().all(|piece| match rest.find(&**piece) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

/// A path: a value as above, or a template.
#[derive(Clone, Debug)]
pub(super) enum Path {
    Text(Text),
    Template(Box<[Piece]>),
}

/// A part of a template.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// These bytes.
    Literal(Box<str>),
    /// `{*}`: one segment.
    One,
    /// `{**}`: any segments, none included; the last operator.
    Rest,
}

impl Path {
    pub(super) fn compile(text: &str) -> Result<Path, String> {
        if !text.contains("{*}") && !text.contains("{**}") {
            return Ok(Path::Text(Text::compile(text)));
        }
        let wrong = |why| Err(format!("path template {text:?}: {why}"));
        let (mut pieces, mut literal, mut over) = (Vec::new(), String::new(), false);
        for (nth, segment) in text.split('/').enumerate() {
            if nth > 0 {
                literal.push('/');
            } else if !segment.is_empty() {
                return wrong("does not begin with /");
            }
            let operator = match segment {
                "{*}" => Piece::One,
                "{**}" => Piece::Rest,
                _ if segment.contains(['{', '}', '*']) => {
                    return wrong(
                        "`{*}` and `{**}` stand for whole segments, and nothing else is an operator",
                    );
                }
                _ => {
                    literal.push_str(segment);
                    continue;
                }
            };
            if over {
                return wrong("`{**}` must be the last operator");
            }
            over = matches!(operator, Piece::Rest);
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            pieces.push(operator);
        }
        pieces.push(Piece::Literal(literal.into()));
        Ok(Path::Template(pieces.into()))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let pieces = match self {
            Path::Text(text) => return text.matches(path.as_bytes()),
            Path::Template(pieces) => pieces,
        };
        let mut rest = path;
        let mut pieces = pieces.iter();
        while let Some(piece) = pieces.next() {
            match piece {
                Piece::Literal(literal) => match rest.strip_prefix(&**literal) {
                    Some(behind) => rest = behind,
                    None => return false,
                },
                Piece::One => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    if end == 0 {
                        return false;
                    }
                    rest = &rest[end..];
                }
                // Only a literal can follow.
                Piece::Rest => {
                    return match pieces.next() {
                        Some(Piece::Literal(literal)) => rest.ends_with(&**literal),
                        _ => true,
                    };
                }
            }
        }
        rest.is_empty()
    }
}

/// A block of addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    network: u128,
    mask: u128,
    v4: bool,
}

impl Block {
    pub(super) fn new(network: IpAddr, prefix: u8) -> Result<Block, String> {
        let wrong = || format!("{network}/{prefix} is no block of addresses");
        let (v4, network, prefix) = match network.to_canonical() {
            IpAddr::V4(ip) => {
                // An IPv4 block may be written in IPv6 clothes.
                let prefix =
                    if network.is_ipv6() { prefix.checked_sub(96).ok_or_else(wrong)? } else { prefix };
                (true, u128::from(u32::from(ip)), prefix.checked_add(96).ok_or_else(wrong)?)
            }
            IpAddr::V6(ip) => (false, u128::from(ip), prefix),
        };
        let mask = match prefix {
            0 => 0,
            1..=128 => u128::MAX << (128 - u32::from(prefix)),
            _ => return Err(wrong()),
        };
        Ok(Block { network: network & mask, mask, v4 })
    }

    #[inline]
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        let (v4, ip) = match ip.to_canonical() {
            IpAddr::V4(ip) => (true, u128::from(u32::from(ip))),
            IpAddr::V6(ip) => (false, u128::from(ip)),
        };
        v4 == self.v4 && ip & self.mask == self.network
    }
}

/// A service account: `namespace/name`.
#[derive(Clone, Debug)]
pub(super) struct Account {
    namespace: Box<str>,
    name: Box<str>,
}

impl Account {
    pub(super) fn compile(text: &str) -> Result<Account, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Account { namespace: namespace.into(), name: name.into() })
            }
            _ => Err(format!("service account {text:?} is not `namespace/name`")),
        }
    }

    pub(super) fn is(&self, peer: &Identity<'_>) -> bool {
        peer.namespace == Some(&*self.namespace) && peer.account == Some(&*self.name)
    }
}

/// Who a token was issued for: `issuer/subject`, taken apart at the last slash.
#[derive(Clone, Debug)]
pub(super) struct Requester {
    issuer: Text,
    subject: Text,
}

impl Requester {
    pub(super) fn compile(text: &str) -> Requester {
        let exact = |text: &str| Text::Exact(text.into());
        let cut = text.rsplit_once('/');
        let (issuer, subject) = if text == "*" {
            (Text::Present, Text::Present)
        } else if let Some(tail) = text.strip_prefix('*') {
            match cut {
                Some((issuer, subject)) => (Text::compile(issuer), exact(subject)),
                None => (Text::Present, Text::Suffix(tail.into())),
            }
        } else if let Some(head) = text.strip_suffix('*') {
            match cut {
                Some((issuer, subject)) => (exact(issuer), Text::compile(subject)),
                None => (Text::Prefix(head.into()), Text::Present),
            }
        } else {
            let (issuer, subject) = cut.unwrap_or((text, ""));
            (exact(issuer), exact(subject))
        };
        Requester { issuer, subject }
    }

    pub(super) fn is(&self, issuer: &str, subject: &str) -> bool {
        self.issuer.matches(issuer.as_bytes()) && self.subject.matches(subject.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_counts_at_one_end_only() {
        let rows = [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("abc*", "abcd", true),
            ("abc*", "ab", false),
            ("*abc", "xabc", true),
            ("*abc", "abcx", false),
            ("*", "x", true),
            ("*", "", false),
            ("a*b", "axb", false),
            ("a*b", "a*b", true),
            ("*a*", "xax", false),
            ("*a*", "xa*", true),
            ("ABC", "abc", false),
        ];
        for (pattern, text, holds) in rows {
            assert_eq!(Text::compile(pattern).matches(text.as_bytes()), holds, "{pattern} on {text}");
        }
    }

    #[test]
    fn hosts_have_no_case() {
        let rows = [
            ("Example.COM", "example.com", true),
            ("*.Example.com", "a.EXAMPLE.com", true),
            ("*.example.com", "example.com", false),
            ("Exa*", "eXAmple.com:80", true),
            ("example.com", "example.com:80", false),
            ("exa*", "é", false),
        ];
        for (pattern, text, holds) in rows {
            let found = Text::compile(pattern).matches_any_case(text.as_bytes());
            assert_eq!(found, holds, "{pattern} on {text}");
        }
    }

    #[test]
    fn templates_stand_for_whole_segments() {
        let rows = [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{**}", "/foo/", true),
            ("/foo/{**}", "/foo", false),
            ("/foo/{**}", "/foo/a/b", true),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/foo/{*}/bar/{**}", "/foo/x/bar/", true),
            ("/foo/{*}/bar/{**}", "/foo/x/bar/y/z", true),
            ("/foo/{*}/bar/{**}", "/foo/x/y/bar/z", false),
            ("/{*}/{**}/x", "/a/b/c/x", true),
            ("/{*}/{**}/x", "/a/x", false),
            ("/{*}", "/x", true),
            ("/{**}", "/", true),
            ("/a/{*}/b", "/a/é/b", true),
        ];
        for (pattern, path, holds) in rows {
            assert_eq!(Path::compile(pattern).unwrap().matches(path), holds, "{pattern} on {path}");
        }
        for wrong in ["/a/{**}/{*}", "/a{*}", "/{*}.txt", "/{name}/{*}", "{*}", "/a*/{*}"] {
            assert!(Path::compile(wrong).is_err(), "{wrong}");
        }
        assert!(Path::compile("/a/{name}").unwrap().matches("/a/{name}"));
    }

    #[test]
    fn requesters_are_cut_at_the_last_slash() {
        let rows = [
            ("*", "i", "s", true),
            ("*", "i", "", false),
            ("https://a/b/sub", "https://a/b", "sub", true),
            ("https://a/*", "https://a", "x", true),
            ("https://a/*", "https://a/b", "x", false),
            ("https://a/u*", "https://a", "us", true),
            ("*/sub", "i", "sub", true),
            ("*.com/sub", "x.com", "sub", true),
            ("*b", "i", "ab", true),
            ("iss*", "issuer", "x", true),
            ("iss", "iss", "", true),
            ("iss", "iss", "x", false),
        ];
        for (pattern, issuer, subject, holds) in rows {
            assert_eq!(
                Requester::compile(pattern).is(issuer, subject),
                holds,
                "{pattern} {issuer} {subject}"
            );
        }
    }

    #[test]
    fn an_address_is_in_its_block_whatever_it_wears() {
        let rows = [
            ("10.0.0.0", 8, "10.1.2.3", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("10.0.0.0", 8, "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0", 104, "10.1.2.3", true),
            ("0.0.0.0", 0, "1.2.3.4", true),
            ("0.0.0.0", 0, "::1", false),
            ("::", 0, "::1", true),
            ("2001:db8::", 32, "2001:db8:1::", true),
            ("192.0.2.1", 32, "192.0.2.1", true),
            ("192.0.2.1", 32, "192.0.2.2", false),
        ];
        for (network, prefix, ip, holds) in rows {
            let block = Block::new(network.parse().unwrap(), prefix).unwrap();
            assert_eq!(block.contains(ip.parse().unwrap()), holds, "{ip} in {network}/{prefix}");
        }
        assert!(Block::new("1.2.3.4".parse().unwrap(), 33).is_err());
        assert!(Block::new("::".parse().unwrap(), 129).is_err());
    }

    #[test]
    fn a_namespace_may_have_stars_anywhere() {
        let rows = [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("*b*", "abc", true),
            ("*", "x", true),
        ];
        for (pattern, text, holds) in rows {
            assert_eq!(Glob::compile(pattern).matches(text), holds, "{pattern} on {text}");
        }
    }
}
