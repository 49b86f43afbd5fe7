//! Which heads a match block holds for, by tables and against the rule told the slow way.

use super::*;
use http::Uri;
use proptest::prelude::*;

struct Ask {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// A request written as `GET http://host/path?query | name: value | name: value`.
fn ask(text: &str) -> Ask {
    let mut parts = text.split(" | ");
    let (method, uri) = parts.next().unwrap().split_once(' ').unwrap();
    let mut headers = HeaderMap::new();
    for field in parts {
        let (name, value) = field.split_once(':').unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.trim().parse().unwrap());
    }
    Ask { method: method.parse().unwrap(), uri: uri.parse().unwrap(), headers }
}

impl Ask {
    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            path: self.uri.path(),
            query: self.uri.query(),
            authority: self.uri.authority().unwrap().as_str(),
            scheme: self.uri.scheme_str().unwrap(),
            headers: &self.headers,
        }
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(text.into())
}

fn check(wanted: Match, holds: &[&str], fails: &[&str]) {
    let matcher = Matcher::compile(&wanted).unwrap();
    for text in holds {
        assert!(matcher.matches(&ask(text).head()), "{wanted:?} must hold for {text}");
    }
    for text in fails {
        assert!(!matcher.matches(&ask(text).head()), "{wanted:?} must not hold for {text}");
    }
}

#[test]
fn the_empty_match_always_holds() {
    check(Match::default(), &["GET http://a/", "FOO https://b:1/x?y | a: b"], &[]);
}

#[test]
fn the_path_is_compared_raw_and_without_query() {
    let uri = |uri| Match { uri: Some(uri), ..Match::default() };
    check(
        uri(prefix("/api")),
        &["GET http://a/api", "GET http://a/apifoo", "GET http://a/api?x"],
        &["GET http://a/", "GET http://a/Api", "GET http://a/x/api", "GET http://a/%61pi"],
    );
    check(uri(exact("/api")), &["GET http://a/api?x=/y"], &["GET http://a/api/"]);
    check(uri(regex("/v[0-9]+/.*")), &["GET http://a/v12/x"], &["GET http://a/v/x", "GET http://a/b/v1/x"]);
    check(uri(StringMatch::Present), &["GET http://a/"], &[]);
    let caseless = |uri| Match { ignore_uri_case: true, ..Match { uri: Some(uri), ..Match::default() } };
    check(caseless(prefix("/Api")), &["GET http://a/aPI/x"], &["GET http://a/ap"]);
    check(caseless(regex("/Api")), &["GET http://a/Api"], &["GET http://a/api"]);
}

#[test]
fn method_scheme_and_authority_are_compared_as_sent() {
    check(Match { method: Some(exact("GET")), ..Match::default() }, &["GET http://a/"], &["get http://a/"]);
    check(
        Match { scheme: Some(exact("https")), ..Match::default() },
        &["GET https://a/"],
        &["GET http://a/"],
    );
    let authority = |text| Match { authority: Some(text), ..Match::default() };
    check(authority(exact("a:80")), &["GET http://a:80/"], &["GET http://a/"]);
    check(authority(prefix("a.")), &["GET http://a.b:1/"], &["GET http://b.a/"]);
}

#[test]
fn a_header_condition_needs_the_header_and_joins_several_values() {
    let header = |text| Match { headers: vec![("x-a".into(), text)], ..Match::default() };
    check(
        header(exact("1")),
        &["GET http://a/ | X-A: 1"],
        &["GET http://a/", "GET http://a/ | x-a: 1 | x-a: 1"],
    );
    check(
        header(exact("1,2")),
        &["GET http://a/ | x-a: 1 | x-a: 2", "GET http://a/ | x-a: 1,2"],
        &["GET http://a/ | x-a: 1, 2"],
    );
    check(header(exact("")), &["GET http://a/ | x-a:"], &["GET http://a/"]);
    check(header(prefix("b")), &["GET http://a/ | x-a: bc"], &["GET http://a/ | x-a: ab"]);
    check(header(regex(".*")), &["GET http://a/ | x-a:"], &["GET http://a/"]);
    check(header(regex("a,b,c")), &["GET http://a/ | x-a: a | x-a: b | x-a: c"], &["GET http://a/ | x-a: a"]);
    check(header(StringMatch::Present), &["GET http://a/ | x-a:"], &["GET http://a/ | x-b: 1"]);
}

#[test]
fn without_headers_take_an_absent_header_for_the_empty_string() {
    let without = |text| Match { without_headers: vec![("x-a".into(), text)], ..Match::default() };
    check(without(exact("1")), &["GET http://a/", "GET http://a/ | x-a: 2"], &["GET http://a/ | x-a: 1"]);
    check(without(exact("")), &["GET http://a/ | x-a: 2"], &["GET http://a/", "GET http://a/ | x-a:"]);
    check(without(regex(".*")), &[], &["GET http://a/", "GET http://a/ | x-a: 2"]);
    check(without(regex("v.+")), &["GET http://a/"], &["GET http://a/ | x-a: v1"]);
    check(without(prefix("b")), &["GET http://a/", "GET http://a/ | x-a: a"], &["GET http://a/ | x-a: bb"]);
    check(without(StringMatch::Present), &["GET http://a/"], &["GET http://a/ | x-a:"]);
}

#[test]
fn query_conditions_look_at_the_first_raw_value_of_a_key() {
    let query = |text| Match { query: vec![("k".into(), text)], ..Match::default() };
    check(
        query(exact("v")),
        &["GET http://a/?k=v", "GET http://a/?x=1&k=v&k=w"],
        &[
            "GET http://a/",
            "GET http://a/?k=w&k=v",
            "GET http://a/?k=%76",
            "GET http://a/?K=v",
            "GET http://a/?kk=v",
        ],
    );
    check(query(exact("")), &["GET http://a/?k", "GET http://a/?k="], &["GET http://a/?k=v"]);
    check(query(exact("a=b")), &["GET http://a/?k=a=b"], &[]);
    check(query(StringMatch::Present), &["GET http://a/?k", "GET http://a/?a&k=1"], &["GET http://a/?ak"]);
    check(query(regex("v[0-9]")), &["GET http://a/?k=v1"], &["GET http://a/?k=v12"]);
}

#[test]
fn the_request_line_can_be_matched_among_the_headers() {
    let header = |name: &str, text| Match { headers: vec![(name.into(), text)], ..Match::default() };
    check(header(":method", exact("PUT")), &["PUT http://a/"], &["GET http://a/"]);
    check(header(":path", exact("/x?y")), &["GET http://a/x?y"], &["GET http://a/x"]);
    check(header(":scheme", exact("http")), &["GET http://a/"], &["GET https://a/"]);
    check(header(":authority", exact("a")), &["GET http://a/"], &["GET http://b/"]);
    check(header("host", exact("a")), &["GET http://a/"], &["GET http://b/"]);
}

#[test]
fn all_conditions_must_hold() {
    let wanted = Match {
        uri: Some(prefix("/a")),
        method: Some(exact("GET")),
        headers: vec![("x".into(), exact("1")), ("y".into(), StringMatch::Present)],
        without_headers: vec![("z".into(), StringMatch::Present)],
        query: vec![("q".into(), exact("1"))],
        ..Match::default()
    };
    check(
        wanted,
        &["GET http://h/a?q=1 | x: 1 | y: 2"],
        &[
            "GET http://h/b?q=1 | x: 1 | y: 2",
            "PUT http://h/a?q=1 | x: 1 | y: 2",
            "GET http://h/a?q=2 | x: 1 | y: 2",
            "GET http://h/a?q=1 | x: 2 | y: 2",
            "GET http://h/a?q=1 | x: 1",
            "GET http://h/a?q=1 | x: 1 | y: 2 | z: 3",
        ],
    );
}

#[test]
fn a_condition_that_cannot_be_compiled_is_an_error() {
    for wrong in [
        Match { uri: Some(regex("(")), ..Match::default() },
        Match { headers: vec![("a b".into(), exact("1"))], ..Match::default() },
        Match { headers: vec![(":status".into(), exact("1"))], ..Match::default() },
    ] {
        assert!(Matcher::compile(&wrong).is_err(), "{wrong:?}");
    }
}

/// The rule, told the slow way, for literals.
fn naive(wanted: &Match, ask: &Ask) -> bool {
    let holds = |wanted: &StringMatch, text: Option<&str>| match (wanted, text) {
        (StringMatch::Exact(wanted), Some(text)) => wanted == text,
        (StringMatch::Prefix(wanted), Some(text)) => text.starts_with(wanted.as_str()),
        (StringMatch::Present, text) => text.is_some(),
        _ => false,
    };
    let header = |name: &str| {
        let all: Vec<_> = ask.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
        (!all.is_empty()).then(|| all.join(","))
    };
    let query = |key: &str| {
        let pairs = ask.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).next()
    };
    wanted.uri.as_ref().is_none_or(|m| holds(m, Some(ask.uri.path())))
        && wanted.method.as_ref().is_none_or(|m| holds(m, Some(ask.method.as_str())))
        && wanted.headers.iter().all(|(name, m)| holds(m, header(name).as_deref()))
        && wanted.without_headers.iter().all(|(name, m)| match m {
            StringMatch::Present => header(name).is_none(),
            _ => !holds(m, Some(&header(name).unwrap_or_default())),
        })
        && wanted.query.iter().all(|(key, m)| holds(m, query(key).as_deref()))
}

fn text_match(text: &'static str) -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        text.prop_map(StringMatch::Exact),
        text.prop_map(StringMatch::Prefix),
        Just(StringMatch::Present)
    ]
}

fn named() -> impl Strategy<Value = Vec<(String, StringMatch)>> {
    prop::collection::vec(("[xy]", text_match("[ab,]{0,2}")), 0..3)
}

prop_compose! {
    fn a_match()(
        uri in prop::option::of(text_match("/[ab]{0,2}")), method in prop::option::of(text_match("[GP]")),
        headers in named(), without_headers in named(), query in named(),
    ) -> Match {
        Match { uri, method, headers, without_headers, query, ..Match::default() }
    }
}

prop_compose! {
    fn a_request()(
        method in "[GP]", path in "/[ab]{0,3}", query in "(\\?([xy](=[ab]{0,2})?)?(&[xy](=[ab]{0,2})?){0,2})?",
        fields in prop::collection::vec(("[xy]", "[ab,]{0,2}"), 0..4),
    ) -> Ask {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        Ask { method: method.parse().unwrap(), uri: format!("http://h{path}{query}").parse().unwrap(), headers }
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?}", self.method, self.uri, self.headers)
    }
}

proptest! {
    #[test]
    fn matchers_agree_with_the_rule_told_the_slow_way(wanted in a_match(), asks in prop::collection::vec(a_request(), 1..8)) {
        let matcher = Matcher::compile(&wanted).unwrap();
        for ask in &asks {
            prop_assert_eq!(matcher.matches(&ask.head()), naive(&wanted, ask), "{:?}", ask);
        }
    }
}
