//! Random policies and requests from a small vocabulary, so that they meet often.

use super::interpreter::{self, Asked};
use super::tables::decide;
use pilotlight::auth::Trust;
use proptest::prelude::*;
use proptest::sample::select;
use proxy_config::model::{
    AuthorizationPolicy, Blocks, Guard, ObjectRef, PolicyAction, PolicyCondition, PolicyOperation,
    PolicyRule, PolicySource, Values,
};
use serde_json::json;
use std::net::IpAddr;

const DOMAINS: [&str; 2] = ["td", "old-td"];

/// Up to two values on either side; mostly none, so that rules match now and then.
fn values(of: &'static [&'static str]) -> impl Strategy<Value = Values> {
    let some = |most| prop::collection::vec(select(of).prop_map(str::to_owned), 0..=most);
    prop_oneof![
        3 => Just(Values::default()),
        3 => some(2).prop_map(|any| Values { any, none: Vec::new() }),
        1 => (some(1), some(1)).prop_map(|(any, none)| Values { any, none }),
    ]
}

/// The same with at least one value.
fn some_values(of: &'static [&'static str]) -> impl Strategy<Value = Values> {
    (select(of), values(of)).prop_map(|(one, mut values)| {
        if values == Values::default() {
            values.any.push(one.to_owned());
        }
        values
    })
}

fn blocks() -> impl Strategy<Value = Blocks> {
    let block = || {
        select(&[("10.0.0.0", 8), ("10.1.0.0", 16), ("10.1.2.3", 32), ("2001:db8::", 32), ("0.0.0.0", 0)][..])
            .prop_map(|(network, prefix)| (network.parse::<IpAddr>().unwrap(), prefix))
    };
    prop_oneof![
        4 => Just(Blocks::default()),
        1 => (prop::collection::vec(block(), 0..=2), prop::collection::vec(block(), 0..=1))
            .prop_map(|(any, none)| Blocks { any, none }),
    ]
}

const PRINCIPALS: &[&str] = &[
    "*",
    "td/ns/a/sa/x",
    "old-td/ns/a/sa/x",
    "cluster.local/ns/b/sa/y",
    "*/sa/x",
    "td/ns/a/*",
    "*td/ns/a/sa/x",
    "other/ns/a/sa/x",
    "td*",
];
const REQUESTERS: &[&str] =
    &["*", "https://i/s", "https://i/*", "*/s", "https*", "*i/s", "https://i/u*", "s"];
const NAMESPACES: &[&str] = &["a", "b", "a*", "*", "*b", "a*b"];
const ACCOUNTS: &[&str] = &["a/x", "x", "b/y"];
const TRUSTED: &[&str] = &["td", "*td", "other", "*"];
const HOSTS: &[&str] = &["h.example", "H.EXAMPLE", "*.example", "h*", "h.example:8080", "*"];
const PORTS: &[&str] = &["8080", "9090"];
const METHODS: &[&str] = &["GET", "POST", "P*", "*T", "*", "get"];
const PATHS: &[&str] = &[
    "/",
    "/api",
    "/api/*",
    "*/x",
    "*",
    "/api/{*}",
    "/api/{**}",
    "/{*}/x",
    "/api/{*}/x/{**}",
    "/api/{**}/x",
    "*api*",
];
const WORDS: &[&str] = &["v", "v*", "*w", "*", "v,w", "8080"];

fn source() -> impl Strategy<Value = PolicySource> {
    let who = (values(PRINCIPALS), values(REQUESTERS), values(NAMESPACES), values(ACCOUNTS));
    (who, values(TRUSTED), blocks(), blocks()).prop_map(
        |(who, trust_domains, ip_blocks, remote_ip_blocks)| {
            let (principals, request_principals, namespaces, service_accounts) = who;
            PolicySource {
                principals,
                request_principals,
                namespaces,
                service_accounts,
                trust_domains,
                ip_blocks,
                remote_ip_blocks,
            }
        },
    )
}

fn operation() -> impl Strategy<Value = PolicyOperation> {
    (values(HOSTS), values(PORTS), values(METHODS), values(PATHS))
        .prop_map(|(hosts, ports, methods, paths)| PolicyOperation { hosts, ports, methods, paths })
}

fn condition() -> impl Strategy<Value = PolicyCondition> {
    let of = |keys: &'static [&'static str], words| {
        (select(keys), some_values(words))
            .prop_map(|(key, values)| PolicyCondition { key: key.to_owned(), values })
    };
    let claims = &["request.auth.claims[c]", "request.auth.claims[d][e]", "request.auth.claims[scope]"];
    prop_oneof![
        of(&["request.headers[x-a]", "request.headers[x-b]"], WORDS),
        of(claims, WORDS),
        of(&["request.auth.audiences", "request.auth.presenter", "connection.sni"], WORDS),
        of(&["request.auth.principal"], REQUESTERS),
        of(&["source.namespace"], NAMESPACES),
        of(&["source.principal"], PRINCIPALS),
        of(&["source.serviceAccount"], ACCOUNTS),
        of(&["source.trustDomain"], TRUSTED),
        of(&["source.ip", "remote.ip"], &["10.0.0.0/8", "10.1.2.3", "192.0.2.0/24"]),
        of(&["destination.port"], PORTS),
    ]
}

fn rule() -> impl Strategy<Value = PolicyRule> {
    let from = prop::collection::vec(source(), 0..=2);
    let to = prop::collection::vec(operation(), 0..=2);
    let when = prop::collection::vec(condition(), 0..=1);
    (from, to, when).prop_map(|(from, to, when)| PolicyRule { from, to, when })
}

fn policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let action = select(&[PolicyAction::Allow, PolicyAction::Deny, PolicyAction::Audit][..]);
    (action, prop::bool::weighted(0.1), prop::collection::vec(rule(), 0..=3)).prop_map(
        |(action, dry_run, rules)| AuthorizationPolicy {
            origin: ObjectRef { namespace: "a".into(), name: "p".into(), ..ObjectRef::default() },
            action,
            dry_run,
            rules,
        },
    )
}

fn guard() -> impl Strategy<Value = Guard> {
    prop::collection::vec(policy(), 0..=3).prop_map(|policies| Guard {
        name: "g".into(),
        namespace: "a".into(),
        policies,
        ..Guard::default()
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let principal = select(&["td/ns/a/sa/x", "old-td/ns/ab/sa/x", "other/ns/b/sa/y", "td/odd"][..]);
    let address =
        || select(&["10.1.2.3", "10.9.9.9", "192.0.2.7", "2001:db8::1"][..]).prop_map(|a| a.parse().unwrap());
    let method = select(&["GET", "POST", "PUT", "get"][..]);
    let path =
        select(&["/", "/api", "/api/", "/api/x", "/api/y/x/z", "/api/y/x", "/q/x", "/api/{*}", "*api*"][..]);
    let host = select(&["h.example", "H.Example", "h.example:8080", "z", ""][..]);
    let word = || select(&["v", "w", "vw", "", "8080"][..]).prop_map(str::to_owned);
    let headers = prop::collection::vec((select(&["x-a", "x-b"][..]).prop_map(str::to_owned), word()), 0..=3);
    let claims = prop::option::of((word(), word(), select(&["s", "us", "v"][..]), any::<bool>()).prop_map(
        |(c, e, sub, list)| {
            json!({"iss": "https://i", "sub": sub, "azp": c, "aud": if list { json!([c, e]) } else { json!(c) },
                   "c": if list { json!([e, 7, c]) } else { json!(c) }, "d": {"e": e}, "scope": format!("{c} {e}")})
        },
    ));
    let place = (select(&[8080u16, 9090][..]), word());
    (prop::option::of(principal), address(), address(), (method, path, host), headers, place, claims)
        .prop_map(|(principal, source, client, (method, path, host), headers, (port, sni), claims)| Asked {
            principal: principal.map(str::to_owned),
            source,
            client,
            method: method.into(),
            path: path.into(),
            host: host.into(),
            headers,
            port,
            sni,
            claims,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_is_compiled_decides_as_the_documentation_words_it(guard in guard(), all in prop::collection::vec(asked(), 1..=4)) {
        let trust = Trust { domain: DOMAINS[0].into(), aliases: vec![DOMAINS[1].into()] };
        for asked in &all {
            let found = decide(&guard, &trust, asked);
            prop_assert_eq!(found.passes, interpreter::passes(&guard, &DOMAINS, asked), "{:?}", asked);
            prop_assert_eq!(found.audited, interpreter::audited(&guard, &DOMAINS, asked), "{:?}", asked);
        }
    }
}

#[test]
fn both_verdicts_are_frequent_among_random_questions() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut passed = 0;
    for _ in 0..500 {
        let (guard, asked) = (guard(), asked()).new_tree(&mut runner).unwrap().current();
        passed += u32::from(interpreter::passes(&guard, &DOMAINS, &asked));
    }
    assert!((100..=400).contains(&passed), "{passed} of 500 pass");
}
