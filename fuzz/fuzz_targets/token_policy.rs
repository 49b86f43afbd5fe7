//! Tokens and requests of any shape: nothing panics, nothing unsigned is believed, and what is passed on is clean.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use pilotlight::auth::jwt::{Cache, KeySet};
use pilotlight::auth::{self, Facts, Identity, KeyRing, Trust};
use proxy_config::model::{
    AuthorizationPolicy, Guard, JwtKeys, JwtRule, ObjectRef, PolicyAction, PolicyCondition, PolicyOperation,
    PolicyRule, PolicySource, Values,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NOW: u64 = 1_800_000_000;
/// A key that nobody has the other half of.
const KEYS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    token: String,
    query: String,
    cookie: Vec<u8>,
    keys: Vec<u8>,
    principal: String,
    path: String,
    host: String,
    pattern: String,
    key: String,
    header: Vec<Vec<u8>>,
}

fn rule(text: &str) -> JwtRule {
    JwtRule {
        origin: ObjectRef::default(),
        issuer: "i".into(),
        audiences: Vec::new(),
        keys: JwtKeys::Inline(text.into()),
        headers: vec![("authorization".into(), "Bearer ".into())],
        params: vec!["t".into()],
        cookies: vec!["c".into()],
        forward: false,
        payload_header: Some("x-payload".into()),
        claim_headers: vec![("x-sub".into(), "sub".into())],
        space_delimited: Vec::new(),
        timeout: Duration::from_secs(1),
    }
}

fuzz_target!(|input: Input| {
    let _ = KeySet::parse(&input.keys);
    let values = || Values { any: vec![input.pattern.clone()], none: Vec::new() };
    let source = PolicySource {
        principals: values(),
        request_principals: values(),
        namespaces: values(),
        ..PolicySource::default()
    };
    let operation = PolicyOperation { hosts: values(), paths: values(), ..PolicyOperation::default() };
    let when = vec![PolicyCondition { key: input.key.clone(), values: values() }];
    let policy = AuthorizationPolicy {
        origin: ObjectRef::default(),
        action: PolicyAction::Allow,
        dry_run: false,
        rules: vec![PolicyRule { from: vec![source], to: vec![operation], when }],
    };
    let guard = Guard { name: "g".into(), jwt: vec![rule(KEYS)], policies: vec![policy], ..Guard::default() };
    let compiled = auth::compile(&guard, &Trust::default(), &KeyRing::default(), &mut Vec::new());
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: &[u8]| {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    };
    add("authorization", format!("Bearer {}", input.token).as_bytes());
    add("cookie", &input.cookie);
    input.header.iter().for_each(|value| add("x-sub", value));
    let Some(jwt) = &compiled.jwt else { return };
    let found = jwt.verify(&headers, Some(&input.query), NOW, &mut Cache::default());
    assert!(!matches!(found, Ok(Some(_))), "nobody can sign for this key");
    jwt.clean(&mut headers);
    assert!(!headers.contains_key("x-sub") && !headers.contains_key("x-payload"));
    let facts = Facts {
        peer: Identity::parse(&input.principal),
        source: IpAddr::from([127, 0, 0, 1]),
        client: IpAddr::from([127, 0, 0, 1]),
        method: "GET",
        path: &input.path,
        target: &input.path,
        scheme: "http",
        host: &input.host,
        headers: &headers,
        destination: SocketAddr::from(([127, 0, 0, 1], 80)),
        sni: &input.host,
        claims: None,
    };
    // A rule about who a token was issued for never holds without one.
    assert!(compiled.authorize(&facts, |_| ()).is_err());
});
