//! A compiled match block: all of its conditions against one request head.
//!
//! Asked for every route in turn until one holds, so the cheap conditions come first and nothing allocates,
//! save that several values of one header are joined on the stack.

use super::pattern::Pattern;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, header};
use proxy_config::model::{Match, StringMatch};
use smallvec::SmallVec;

/// What of a request routes may look at.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path without query.
    pub path: &'a str,
    /// What stands behind `?`.
    pub query: Option<&'a str>,
    /// As sent, port included; empty when there is none.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The fields.
    pub headers: &'a HeaderMap,
}

/// Where a header condition finds its text.
#[derive(Clone, Debug)]
enum Source {
    Field(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
}

/// A compiled [`Match`]; most have no condition.
#[derive(Clone, Debug, Default)]
pub struct Matcher(Option<Box<Conditions>>);

#[derive(Clone, Debug, Default)]
struct Conditions {
    method: Option<Pattern>,
    path: Option<Pattern>,
    scheme: Option<Pattern>,
    authority: Option<Pattern>,
    headers: Box<[(Source, Pattern)]>,
    without: Box<[(Source, Pattern)]>,
    query: Box<[(Box<str>, Pattern)]>,
}

impl Matcher {
    /// Compiles a match block.
    ///
    /// # Errors
    /// What cannot be compiled, and why.
    pub fn compile(wanted: &Match) -> Result<Matcher, String> {
        let conditions = Conditions {
            method: compile(wanted.method.as_ref(), false)?,
            path: compile(wanted.uri.as_ref(), wanted.ignore_uri_case)?,
            scheme: compile(wanted.scheme.as_ref(), false)?,
            authority: compile(wanted.authority.as_ref(), false)?,
            headers: conditions(&wanted.headers)?,
            without: conditions(&wanted.without_headers)?,
            query: wanted
                .query
                .iter()
                .map(|(key, text)| Ok((key.as_str().into(), Pattern::compile(text, false)?)))
                .collect::<Result<_, String>>()?,
        };
        Ok(Matcher((!conditions.is_empty()).then(|| Box::new(conditions))))
    }

    /// Whether every condition holds.
    #[inline]
    pub fn matches(&self, head: &Head<'_>) -> bool {
        self.0.as_ref().is_none_or(|conditions| conditions.hold(head))
    }
}

impl Conditions {
    fn is_empty(&self) -> bool {
        let line = [&self.method, &self.path, &self.scheme, &self.authority];
        line.iter().all(|condition| condition.is_none())
            && self.headers.is_empty()
            && self.without.is_empty()
            && self.query.is_empty()
    }

    fn hold(&self, head: &Head<'_>) -> bool {
        holds(&self.method, head.method.as_str())
            && holds(&self.path, head.path)
            && holds(&self.scheme, head.scheme)
            && holds(&self.authority, head.authority)
            && self.headers.iter().all(|(source, pattern)| with(source, pattern, head))
            && self.without.iter().all(|(source, pattern)| without(source, pattern, head))
            && self.query.iter().all(|(key, pattern)| {
                head.query.and_then(|query| first(query, key)).is_some_and(|v| pattern.matches(v.as_bytes()))
            })
    }
}

/// A condition that always holds is not kept.
fn compile(wanted: Option<&StringMatch>, ignore_case: bool) -> Result<Option<Pattern>, String> {
    let pattern = wanted.map(|wanted| Pattern::compile(wanted, ignore_case)).transpose()?;
    Ok(pattern.filter(|pattern| match pattern {
        Pattern::Present => false,
        Pattern::Prefix(prefix) => !prefix.is_empty(),
        _ => true,
    }))
}

fn conditions(wanted: &[(String, StringMatch)]) -> Result<Box<[(Source, Pattern)]>, String> {
    wanted.iter().map(|(name, text)| Ok((source(name)?, Pattern::compile(text, false)?))).collect()
}

/// Envoy keeps the request line among the headers, and `host` as another name of the authority.
fn source(name: &str) -> Result<Source, String> {
    Ok(match name {
        ":method" => Source::Method,
        ":path" => Source::Path,
        ":scheme" => Source::Scheme,
        ":authority" => Source::Authority,
        _ => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(HOST) => Source::Authority,
            Ok(name) => Source::Field(name),
            Err(_) => return Err(format!("`{name}` is not a header name")),
        },
    })
}

#[inline]
fn holds(pattern: &Option<Pattern>, text: &str) -> bool {
    pattern.as_ref().is_none_or(|pattern| pattern.matches(text.as_bytes()))
}

fn with(source: &Source, pattern: &Pattern, head: &Head<'_>) -> bool {
    value(source, head, |text| text.is_some_and(|text| pattern.matches(text)))
}

fn without(source: &Source, pattern: &Pattern, head: &Head<'_>) -> bool {
    value(source, head, |text| match pattern {
        Pattern::Present => text.is_none(),
        _ => !pattern.matches(text.unwrap_or_default()),
    })
}

/// Hands the text of a header condition to `then`: the one value, several joined with commas, or none.
#[inline]
fn value(source: &Source, head: &Head<'_>, then: impl FnOnce(Option<&[u8]>) -> bool) -> bool {
    let name = match source {
        Source::Field(name) => name,
        Source::Method => return then(Some(head.method.as_str().as_bytes())),
        Source::Authority => return then(Some(head.authority.as_bytes())),
        Source::Scheme => return then(Some(head.scheme.as_bytes())),
        Source::Path => return path(head, then),
    };
    let mut values = head.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => then(None),
        (Some(only), None) => then(Some(only.as_bytes())),
        (Some(first), Some(second)) => then(Some(&joined(first, second, values))),
    }
}

/// `:path` includes the query.
#[cold]
fn path(head: &Head<'_>, then: impl FnOnce(Option<&[u8]>) -> bool) -> bool {
    let Some(query) = head.query else { return then(Some(head.path.as_bytes())) };
    let mut whole: SmallVec<[u8; 512]> = SmallVec::from_slice(head.path.as_bytes());
    whole.push(b'?');
    whole.extend_from_slice(query.as_bytes());
    then(Some(&whole))
}

#[cold]
fn joined(
    first: &HeaderValue,
    second: &HeaderValue,
    rest: header::ValueIter<'_, HeaderValue>,
) -> SmallVec<[u8; 512]> {
    let mut all: SmallVec<[u8; 512]> = SmallVec::from_slice(first.as_bytes());
    for value in std::iter::once(second).chain(rest) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    all
}

/// The first raw value of a key; a key without `=` has the empty one.
fn first<'q>(query: &'q str, key: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
