//! Text that becomes part of a message: paths, authorities, values of headers.
//!
//! What passes here is what the proxy can write; it refuses nothing later that is let through now.

use crate::api::host::{self, Wildcard};
use crate::decode::Cursor;
use crate::model::HEADER_OPERATORS;
use std::net::Ipv6Addr;

/// Longest path, authority or header value that configuration may write.
const MAX_TEXT: usize = 8 << 10;

/// A path (or a part of one, or with a query) that can stand in a request target.
pub(super) fn path(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.string()?;
    let bad = |b: u8| b <= b' ' || b >= 0x7f || b"#\"<>`".contains(&b);
    if text.len() > MAX_TEXT || text.bytes().any(bad) {
        cursor.error_with_help(
            "IST0106",
            format!("{text:?} cannot stand in a request path"),
            "percent-encode what is not plain ASCII; a fragment (`#…`) is never sent",
        );
        return None;
    }
    Some(text)
}

/// `host[:port]`.
pub(super) fn authority(cursor: &Cursor<'_>) -> Option<String> {
    let text = cursor.string()?;
    if !text.is_empty() && !is_authority(&text) {
        cursor.error("IST0106", format!("{text:?} is not an authority: a host, or host:port"));
        return None;
    }
    Some(text)
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => return address.parse::<Ipv6Addr>().is_ok(),
        Some((address, rest)) if address.parse::<Ipv6Addr>().is_ok() => ("localhost", rest.strip_prefix(':')),
        Some(_) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => return is_host(text),
        },
    };
    is_host(host) && port.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok())
}

fn is_host(text: &str) -> bool {
    host::problem(&text.to_ascii_lowercase(), Wildcard::No).is_none() && !text.contains(':')
}

/// What is wrong with a header value, its `%OPERATOR%`s included, and what to do about it.
pub(super) fn value_problem(text: &str) -> Option<(String, String)> {
    if text.len() > MAX_TEXT || text.chars().any(|c| c.is_control() && c != '\t') {
        let help = format!("write printable text of at most {MAX_TEXT} bytes");
        return Some(("a header value cannot hold control characters".to_owned(), help));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let Some(end) = operator_end(after) else {
            let help = "write %% for a single percent sign".to_owned();
            return Some((format!("unterminated % in header value {text:?}"), help));
        };
        let (operator, tail) = (&after[..end], &after[end + 1..]);
        if !is_operator(operator) {
            let names: Vec<String> = HEADER_OPERATORS.iter().map(|name| format!("%{name}%")).collect();
            return Some((
                format!("header value {text:?}: %{operator}% is not known here"),
                format!("known are {}; REQ and RESP take (NAME)", names.join(", ")),
            ));
        }
        rest = tail;
    }
    None
}

/// The empty one is `%%`, a percent sign.
fn is_operator(text: &str) -> bool {
    match text.split_once('(') {
        Some(("REQ", argument)) => is_pick(argument, true),
        Some(("RESP", argument)) => is_pick(argument, false),
        Some(_) => false,
        None => text.is_empty() || HEADER_OPERATORS.contains(&text) && !matches!(text, "REQ" | "RESP"),
    }
}

/// Where the operator's closing `%` is; one inside parentheses does not close it.
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0i32;
    text.bytes().position(|byte| {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        byte == b'%' && depth <= 0
    })
}

/// `name?other):length`.
fn is_pick(text: &str, request: bool) -> bool {
    let Some((names, length)) = text.split_once(')') else { return false };
    let length_ok = length.is_empty()
        || length.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<usize>().is_ok()
        });
    let named = |name: &str| {
        let name = name.to_ascii_lowercase();
        request && PSEUDO_HEADERS.contains(&name.as_str()) || is_token(&name)
    };
    let (first, other) = names.split_once('?').map_or((names, None), |(name, other)| (name, Some(other)));
    length_ok && named(first) && other.is_none_or(named)
}

/// Parts of the request line as Envoy names them among headers.
pub(super) const PSEUDO_HEADERS: [&str; 4] = [":method", ":path", ":authority", ":scheme"];

/// Whether `name`, in lower case, can name a header.
pub(super) fn is_token(name: &str) -> bool {
    (1..=MAX_TEXT).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What is wrong with the substitution of a rewrite: `\0` to `\9` name groups, `\\` is a backslash.
pub(super) fn substitution_problem(with: &str, groups: usize) -> Option<String> {
    let mut bytes = with.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            continue;
        }
        match bytes.next() {
            Some(b'\\') => {}
            Some(digit @ b'0'..=b'9') if usize::from(digit - b'0') < groups => {}
            Some(digit @ b'0'..=b'9') => {
                let (group, last) = (digit - b'0', groups.saturating_sub(1));
                return Some(format!("{with:?} names group {group}; the regex has {last}"));
            }
            _ => return Some(format!("{with:?}: a backslash needs a digit or a backslash behind it")),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_header_values_are_known_and_closed() {
        let check = |text: &str, good: bool| assert_eq!(value_problem(text).is_none(), good, "{text}");
        check("plain", true);
        check("50%%", true);
        check("50%", false);
        check("%DOWNSTREAM_REMOTE_ADDRESS%", true);
        check("%REQ(x-a?:path):20%-%RESP(y)%", true);
        check("%RESP(:path)%", false);
        check("%REQ(x%", false);
        check("%REQ(x):-1%", false);
        check("%NOPE%", false);
        check("a\nb", false);
        check("é", true);
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let check = |text: &str, good: bool| assert_eq!(is_authority(text), good, "{text}");
        check("a.example.com", true);
        check("a.example.com:8080", true);
        check("10.0.0.1:80", true);
        check("[::1]:80", true);
        check("[::1]", true);
        check("::1", false);
        check("a:b", false);
        check("a:", false);
        check("a b", false);
        check("user@a", false);
        check("[::1]x", false);
    }

    #[test]
    fn a_substitution_names_groups_that_are_there() {
        let check = |with: &str, good: bool| {
            assert_eq!(substitution_problem(with, 2).is_none(), good, "{with}");
        };
        check(r"/\1/x", true);
        check(r"\\", true);
        check(r"\2", false);
        check(r"\x", false);
        check(r"\", false);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_check_panic(text in "[%()?:A-Z\\\\\\[\\]\\PC]{0,40}") {
            let _ = (value_problem(&text), is_authority(&text), substitution_problem(&text, 1));
        }
    }
}
