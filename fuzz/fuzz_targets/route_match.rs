//! Any routes against any request.
//!
//! Literals agree with the rule told the slow way; what a rewrite or a redirect makes can be sent; a split falls
//! inside; nothing panics, whatever the regex.
#![no_main]

use arbitrary::Arbitrary;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;
use pilotlight::route::{Head, Hosts, Matcher, PathChange, Redirect, Split};
use proxy_config::model::{self, Match, MessageOps, PathRewrite, RedirectPort, StringMatch};

#[derive(Arbitrary, Debug)]
enum Text {
    Exact(String),
    Prefix(String),
    Regex(String),
    Present,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Prefix(u8, String),
    Full(String),
    Regex(String, String),
}

#[derive(Arbitrary, Debug)]
struct Input {
    uri: Option<Text>,
    ignore_uri_case: bool,
    method: Option<Text>,
    headers: Vec<(String, Text)>,
    without: Vec<(String, Text)>,
    query: Vec<(String, Text)>,
    asked_method: String,
    asked: String,
    fields: Vec<(String, Vec<u8>)>,
    domains: Vec<String>,
    host: String,
    change: Change,
    port: Option<u16>,
    weights: Vec<u32>,
    random: u64,
}

fuzz_target!(|input: Input| {
    hosts(&input);
    split(&input);
    let Ok(uri) = input.asked.parse::<Uri>() else { return };
    let Ok(method) = Method::from_bytes(input.asked_method.as_bytes()) else { return };
    let headers = fields(&input);
    let head = Head {
        method: &method,
        path: uri.path(),
        query: uri.query(),
        authority: uri.authority().map_or("", |authority| authority.as_str()),
        scheme: uri.scheme_str().unwrap_or("http"),
        headers: &headers,
    };
    matches(&input, &head);
    change(&input, &head, &uri);
});

fn hosts(input: &Input) {
    let hosts = Hosts::new(input.domains.iter().enumerate().map(|(index, domain)| ([domain], index)));
    let host = input.host.to_ascii_lowercase();
    let slow = input.domains.iter().enumerate().filter_map(|(index, domain)| {
        let domain = domain.to_ascii_lowercase();
        let rank = match domain.strip_prefix('*') {
            Some("") => 0,
            Some(suffix) if host.len() > suffix.len() && host.ends_with(suffix) => suffix.len(),
            None if domain == host => usize::MAX,
            _ => return None,
        };
        Some((rank, usize::MAX - index))
    });
    assert_eq!(hosts.find(&input.host).copied(), slow.max().map(|(_, index)| usize::MAX - index));
}

fn split(input: &Input) {
    if let Ok(split) = Split::compile(&input.weights) {
        let index = split.pick(input.random);
        assert!(input.weights.len() == 1 || input.weights[index] > 0);
    }
}

fn fields(input: &Input) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in input.fields.iter().take(64) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn text(text: &Text) -> StringMatch {
    match text {
        Text::Exact(text) => StringMatch::Exact(text.clone()),
        Text::Prefix(text) => StringMatch::Prefix(text.clone()),
        Text::Regex(text) => StringMatch::Regex(text.clone()),
        Text::Present => StringMatch::Present,
    }
}

fn named(list: &[(String, Text)]) -> Vec<(String, StringMatch)> {
    list.iter().map(|(name, wanted)| (name.to_lowercase(), text(wanted))).collect()
}

fn matches(input: &Input, head: &Head<'_>) {
    let wanted = Match {
        uri: input.uri.as_ref().map(text),
        ignore_uri_case: input.ignore_uri_case,
        method: input.method.as_ref().map(text),
        headers: named(&input.headers),
        without_headers: named(&input.without),
        query: named(&input.query),
        ..Match::default()
    };
    let Ok(matcher) = Matcher::compile(&wanted) else { return };
    let found = matcher.matches(head);
    if let Some(slow) = slow(&wanted, head) {
        assert_eq!(found, slow, "{wanted:?} on {head:?}");
    }
}

/// The rule for literals and ordinary names; `None` where others stand.
fn slow(wanted: &Match, head: &Head<'_>) -> Option<bool> {
    let holds = |wanted: &StringMatch, text: Option<&[u8]>, ignore_case: bool| {
        let fold = |text: &[u8]| if ignore_case { text.to_ascii_lowercase() } else { text.to_vec() };
        Some(match (wanted, text) {
            (StringMatch::Regex(_), _) => return None,
            (StringMatch::Present, text) => text.is_some(),
            (StringMatch::Exact(wanted), Some(text)) => fold(wanted.as_bytes()) == fold(text),
            (StringMatch::Prefix(wanted), Some(text)) => fold(text).starts_with(&fold(wanted.as_bytes())),
            (_, None) => false,
        })
    };
    let header = |name: &str| {
        let all: Vec<_> = head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        (!all.is_empty()).then(|| all.join(&b','))
    };
    let value = |key: &str| {
        let mut pairs = head.query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let mut all = true;
    if let Some(uri) = &wanted.uri {
        all &= holds(uri, Some(head.path.as_bytes()), wanted.ignore_uri_case)?;
    }
    if let Some(method) = &wanted.method {
        all &= holds(method, Some(head.method.as_str().as_bytes()), false)?;
    }
    for (name, wanted) in &wanted.headers {
        if name == "host" || name.starts_with(':') {
            return None;
        }
        all &= holds(wanted, header(name).as_deref(), false)?;
    }
    for (name, wanted) in &wanted.without_headers {
        if name == "host" || name.starts_with(':') {
            return None;
        }
        all &= match wanted {
            StringMatch::Present => header(name).is_none(),
            _ => !holds(wanted, Some(&header(name).unwrap_or_default()), false)?,
        };
    }
    for (key, wanted) in &wanted.query {
        all &= holds(wanted, value(key).map(str::as_bytes), false)?;
    }
    Some(all)
}

fn change(input: &Input, head: &Head<'_>, uri: &Uri) {
    let rewrite = match &input.change {
        Change::Prefix(from_len, with) => {
            PathRewrite::Prefix { from_len: usize::from(*from_len), with: with.clone() }
        }
        Change::Full(with) => PathRewrite::Full(with.clone()),
        Change::Regex(pattern, with) => PathRewrite::Regex { pattern: pattern.clone(), with: with.clone() },
    };
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if let Ok(change) = PathChange::compile(&rewrite)
        && let Ok(new) = change.apply(&target)
    {
        assert!(new.path().starts_with('/'), "{rewrite:?} on {target}");
        if let Some(query) = target.query() {
            assert!(new.as_str().ends_with(query), "{rewrite:?} on {target}");
        }
    }
    let redirect = model::Redirect {
        path: Some(rewrite),
        authority: None,
        port: input.port.map(RedirectPort::Number),
        scheme: Some("https".into()),
        code: 302,
        headers: MessageOps::default(),
    };
    if let Ok(redirect) = Redirect::compile(&redirect)
        && let Some(location) = redirect.location(head, &target, 8080)
    {
        assert!(location.as_bytes().starts_with(b"https://"));
    }
}
