use super::*;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proxy_config::model::{JwtRule, ObjectRef};
use serde_json::{Value, json};
use std::time::Duration;

const NOW: u64 = 1_800_000_000;

/// Signs as one algorithm does.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key with its public half as a JWK, and an algorithm it signs by.
struct Signer {
    algorithm: &'static str,
    jwk: Value,
    sign: Sign,
}

fn rsa(key: &'static RsaKeyPair, algorithm: &'static str, how: &'static dyn RsaEncoding) -> Signer {
    // A sequence of two numbers: 256 bytes of modulus behind nine of frame, and 65537.
    let der = key.public_key().as_ref();
    let (n, e) = (BASE64.encode(&der[9..265]), BASE64.encode([1, 0, 1]));
    let jwk = json!({"kty": "RSA", "kid": algorithm, "n": n, "e": e});
    let sign = move |message: &[u8]| {
        let mut out = vec![0; key.public_modulus_len()];
        key.sign(how, &SystemRandom::new(), message, &mut out).unwrap();
        out
    };
    Signer { algorithm, jwk, sign: Box::new(sign) }
}

fn ec(algorithm: &'static str, curve: &str, how: &'static EcdsaSigningAlgorithm) -> Signer {
    let key = EcdsaKeyPair::generate(how).unwrap();
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let jwk =
        json!({"kty": "EC", "crv": curve, "kid": algorithm, "x": BASE64.encode(x), "y": BASE64.encode(y)});
    let sign = move |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    Signer { algorithm, jwk, sign: Box::new(sign) }
}

fn ed() -> Signer {
    let key = Ed25519KeyPair::generate().unwrap();
    let x = BASE64.encode(key.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": x});
    let sign = move |message: &[u8]| key.sign(message).as_ref().to_vec();
    Signer { algorithm: "EdDSA", jwk, sign: Box::new(sign) }
}

fn secret(algorithm: &'static str, how: hmac::Algorithm) -> Signer {
    let key = hmac::Key::new(how, b"a secret of some length, as it should be");
    let jwk = json!({"kty": "oct", "kid": algorithm, "k": BASE64.encode(b"a secret of some length, as it should be")});
    Signer { algorithm, jwk, sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()) }
}

fn signers() -> Vec<Signer> {
    let key: &'static RsaKeyPair = Box::leak(Box::new(RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap()));
    vec![
        rsa(key, "RS256", &signature::RSA_PKCS1_SHA256),
        rsa(key, "RS384", &signature::RSA_PKCS1_SHA384),
        rsa(key, "RS512", &signature::RSA_PKCS1_SHA512),
        rsa(key, "PS256", &signature::RSA_PSS_SHA256),
        rsa(key, "PS384", &signature::RSA_PSS_SHA384),
        rsa(key, "PS512", &signature::RSA_PSS_SHA512),
        ec("ES256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        ec("ES384", "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        ec("ES512", "P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        ed(),
        secret("HS256", hmac::HMAC_SHA256),
        secret("HS384", hmac::HMAC_SHA384),
        secret("HS512", hmac::HMAC_SHA512),
    ]
}

impl Signer {
    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm, "kid": self.jwk["kid"]}), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = BASE64.encode((self.sign)(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

fn jwks<'a>(signers: impl IntoIterator<Item = &'a Signer>) -> String {
    json!({"keys": signers.into_iter().map(|signer| signer.jwk.clone()).collect::<Vec<_>>()}).to_string()
}

fn rule(issuer: &str, keys: JwtKeys) -> JwtRule {
    JwtRule {
        origin: ObjectRef::default(),
        issuer: issuer.into(),
        audiences: Vec::new(),
        keys,
        headers: Vec::new(),
        params: Vec::new(),
        cookies: Vec::new(),
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
        timeout: Duration::from_secs(5),
    }
}

fn compiled(rules: &[JwtRule]) -> Jwt {
    Jwt::compile(rules, &KeyRing::default(), &mut Vec::new()).0.unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

/// What the rules say to a token in the usual place: the subject, or what is wrong.
fn ask(rules: &[JwtRule], token: &str) -> Result<Option<String>, Mistake> {
    let jwt = compiled(rules);
    let accepted = jwt.verify(&bearer(token), None, NOW, &mut Cache::default())?;
    Ok(accepted.map(|accepted| accepted.claims().subject().unwrap_or_default().to_owned()))
}

fn claims() -> Value {
    json!({"iss": "i", "sub": "s", "exp": NOW + 10})
}

#[test]
fn every_algorithm_verifies_with_its_own_kind_of_key_alone() {
    let signers = signers();
    for signer in &signers {
        let good = signer.token(&claims());
        let rules = [rule("i", JwtKeys::Inline(jwks([signer])))];
        assert_eq!(ask(&rules, &good), Ok(Some("s".into())), "{}", signer.algorithm);
        let mut bytes = good.clone().into_bytes();
        let at = bytes.len() - 10;
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(bytes).unwrap();
        assert_eq!(ask(&rules, &tampered), Err(Mistake::Verification), "{}", signer.algorithm);
        // Without names every key is tried, and none of another kind verifies.
        let nameless = |signer: &Signer| {
            let mut jwk = signer.jwk.clone();
            jwk.as_object_mut().unwrap().remove("kid");
            jwk
        };
        let family = |signer: &Signer| (signer.jwk["kty"].clone(), signer.jwk["crv"].clone());
        let others: Vec<Value> =
            signers.iter().filter(|other| family(other) != family(signer)).map(nameless).collect();
        let rules = [rule("i", JwtKeys::Inline(json!({ "keys": others }).to_string()))];
        assert_eq!(ask(&rules, &good), Err(Mistake::Verification), "{}", signer.algorithm);
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let signers = signers();
    let public = signers[0].jwk["n"].as_str().unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
    let forged = Signer {
        algorithm: "HS256",
        jwk: json!({"kid": "RS256"}),
        sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()),
    };
    let rules = [rule("i", JwtKeys::Inline(jwks([&signers[0]])))];
    assert_eq!(ask(&rules, &forged.token(&claims())), Err(Mistake::Verification));
}

#[test]
fn what_is_wrong_is_said_in_istios_words() {
    let signer = ed();
    let keys = || JwtKeys::Inline(jwks([&signer]));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        signer.token(&claims)
    };
    let headed = |header: Value| signer.token_with(&header, &claims());
    let rows: Vec<(String, Mistake)> = vec![
        (String::new(), Mistake::Form),
        ("a.b".into(), Mistake::Form),
        ("a.b.c.d".into(), Mistake::Form),
        ("!.e30.".into(), Mistake::HeaderBase64),
        ("bm8.e30.".into(), Mistake::HeaderJson),
        (headed(json!({})), Mistake::HeaderAlg),
        (headed(json!({"alg": 7})), Mistake::HeaderAlg),
        (headed(json!({"alg": "none"})), Mistake::UnknownAlg),
        (headed(json!({"alg": "EdDSA", "kid": 7})), Mistake::HeaderKid),
        (headed(json!({"alg": "EdDSA", "crit": ["b64"], "b64": false})), Mistake::Verification),
        (headed(json!({"alg": "EdDSA", "kid": "other"})), Mistake::NoSuchKey),
        (format!("{}.!.AA", BASE64.encode("{\"alg\":\"EdDSA\"}")), Mistake::PayloadBase64),
        (format!("{}.bm8.AA", BASE64.encode("{\"alg\":\"EdDSA\"}")), Mistake::PayloadJson),
        (with(&|c| c["iss"] = json!(7)), Mistake::Iss),
        (with(&|c| c["sub"] = json!(7)), Mistake::Sub),
        (with(&|c| c["aud"] = json!({})), Mistake::Aud),
        (with(&|c| c["exp"] = json!("soon")), Mistake::Exp),
        (with(&|c| c["exp"] = json!(-1)), Mistake::ExpRange),
        (with(&|c| c["nbf"] = json!("soon")), Mistake::Nbf),
        (with(&|c| c["iss"] = json!("j")), Mistake::Issuer),
        (with(&|c| c["exp"] = json!(NOW - 61)), Mistake::Expired),
        (with(&|c| c["nbf"] = json!(NOW + 61)), Mistake::NotYet),
    ];
    for (token, mistake) in rows {
        assert_eq!(ask(&[rule("i", keys())], &token), Err(mistake), "{token}");
    }
    for within in
        [json!({"iss": "i", "exp": NOW - 60}), json!({"iss": "i", "nbf": NOW + 60}), json!({"iss": "i"})]
    {
        assert!(ask(&[rule("i", keys())], &signer.token(&within)).is_ok(), "{within}");
    }
    for (text, mistake) in
        [("nonsense", Mistake::JwksParse), ("{\"keys\":[{\"kty\":\"RSA\"}]}", Mistake::JwksNoKeys)]
    {
        assert_eq!(ask(&[rule("i", JwtKeys::Inline(text.into()))], &signer.token(&claims())), Err(mistake));
    }
}

#[test]
fn an_audience_counts_without_scheme_and_last_slash() {
    let signer = ed();
    let audiences = |wanted: &str| JwtRule {
        audiences: vec![wanted.into()],
        ..rule("i", JwtKeys::Inline(jwks([&signer])))
    };
    let token = |aud: Value| signer.token(&json!({"iss": "i", "sub": "s", "aud": aud}));
    for (wanted, aud, holds) in [
        ("a", json!("a"), true),
        ("a", json!(["b", "a"]), true),
        ("https://a", json!("a/"), true),
        ("a", json!("b"), false),
        ("a", json!([]), false),
        ("a", Value::Null, false),
    ] {
        let token = if aud.is_null() { signer.token(&json!({"iss": "i"})) } else { token(aud.clone()) };
        let found = ask(&[audiences(wanted)], &token);
        assert_eq!(found.is_ok(), holds, "{wanted} {aud}");
        assert!(holds || found == Err(Mistake::Audience));
    }
    assert!(Mistake::Audience.is_forbidden() && !Mistake::Expired.is_forbidden());
}

#[test]
fn of_several_rules_one_must_be_satisfied_and_of_several_tokens_of_a_rule_all_good() {
    let (a, b) = (ed(), ec("ES256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING));
    let rules = [rule("i", JwtKeys::Inline(jwks([&a]))), rule("j", JwtKeys::Inline(jwks([&b])))];
    let of = |signer: &Signer, issuer: &str, exp: u64| {
        signer.token(&json!({"iss": issuer, "sub": issuer, "exp": exp}))
    };
    assert_eq!(ask(&rules, &of(&a, "i", NOW)), Ok(Some("i".into())));
    assert_eq!(ask(&rules, &of(&b, "j", NOW)), Ok(Some("j".into())));
    assert_eq!(ask(&rules, &of(&b, "i", NOW)), Err(Mistake::NoSuchKey));
    assert_eq!(ask(&rules, &of(&a, "k", NOW)), Err(Mistake::Issuer));
    assert_eq!(ask(&rules, &of(&b, "j", NOW - 100)), Err(Mistake::Expired));
    let jwt = compiled(&rules[..1]);
    let mut cache = Cache::default();
    let headers = bearer(&of(&a, "i", NOW));
    let mut verify = |headers: &HeaderMap, query: Option<&str>| {
        jwt.verify(headers, query, NOW, &mut cache).map(|accepted| accepted.is_some())
    };
    let bad = format!("access_token={}", of(&a, "i", NOW - 100));
    let good = format!("access_token={}", of(&a, "i", NOW));
    assert_eq!(verify(&headers, Some(&bad)), Err(Mistake::Expired));
    assert_eq!(verify(&headers, Some(&good)), Ok(true));
    assert_eq!(verify(&HeaderMap::new(), Some(&bad)), Err(Mistake::Expired));
    assert_eq!(verify(&HeaderMap::new(), None), Ok(false));
}

#[test]
fn what_a_token_says_is_passed_on_and_the_token_is_not() {
    let signer = ed();
    let keys = JwtKeys::Inline(jwks([&signer]));
    let claim = |header: &str, claim: &str| (header.to_owned(), claim.to_owned());
    let rule = JwtRule {
        payload_header: Some("x-payload".into()),
        claim_headers: vec![
            claim("x-sub", "sub"),
            claim("x-deep", "a.b"),
            claim("x-list", "list"),
            claim("x-odd", "odd"),
        ],
        ..rule("i", keys)
    };
    let body = json!({"iss": "i", "sub": "s", "a": {"b": 7}, "list": ["x"], "odd": "a\nb"});
    let token = signer.token(&body);
    for forward in [false, true] {
        let jwt = compiled(&[JwtRule { forward, ..rule.clone() }]);
        let mut headers = bearer(&token);
        for forged in ["x-sub", "x-payload", "x-list", "x-odd"] {
            headers.insert(HeaderName::from_static(forged), "forged".parse().unwrap());
        }
        let query = format!("a=1&access_token={token}");
        let mut cache = Cache::default();
        let accepted = jwt.verify(&headers, Some(&query), NOW, &mut cache).unwrap().unwrap();
        jwt.clean(&mut headers);
        let changed = accepted.apply(&mut headers, Some(&query));
        assert_eq!(changed.as_deref(), (!forward).then_some("a=1"));
        assert_eq!(headers.contains_key("authorization"), forward);
        assert_eq!((&headers["x-sub"], &headers["x-deep"]), (&"s".parse().unwrap(), &"7".parse().unwrap()));
        assert_eq!(headers["x-payload"], BASE64.encode(body.to_string()).as_str());
        assert!(!headers.contains_key("x-list") && !headers.contains_key("x-odd"));
    }
}

#[test]
fn a_token_is_remembered_until_it_ends_or_its_keys_change() {
    let (old, new) = (ed(), ed());
    let ring = KeyRing::default();
    let rules = [rule("i", JwtKeys::Uri("http://keys".into()))];
    let jwt = Jwt::compile(&rules, &ring, &mut Vec::new()).0.unwrap();
    let remote = ring.remotes().pop().unwrap();
    let mut cache = Cache::default();
    let token = bearer(&old.token(&claims()));
    let mut verify = |headers: &HeaderMap, now: u64| {
        jwt.verify(headers, None, now, &mut cache).map(|accepted| accepted.map(|a| a.remembered))
    };
    assert_eq!(verify(&token, NOW), Err(Mistake::JwksFetch));
    remote.put(KeySet::parse(jwks([&old]).as_bytes()).unwrap());
    assert_eq!(verify(&token, NOW), Ok(Some(false)));
    assert_eq!(verify(&token, NOW), Ok(Some(true)));
    assert_eq!(verify(&token, NOW + 70), Ok(Some(true)));
    assert_eq!(verify(&token, NOW + 71), Err(Mistake::Expired));
    assert_eq!(verify(&HeaderMap::new(), NOW), Ok(None));
    let other = bearer(&new.token_with(&json!({"alg": "EdDSA", "kid": "new"}), &claims()));
    assert!(!remote.take_missed());
    assert_eq!(verify(&other, NOW), Err(Mistake::NoSuchKey));
    assert!(remote.take_missed() && !remote.take_missed());
    remote.put(KeySet::parse(jwks([&new]).as_bytes()).unwrap());
    assert_eq!(verify(&token, NOW), Err(Mistake::Verification), "the key it was verified with is gone");
}

#[test]
fn the_memory_of_tokens_is_bounded_and_keeps_what_is_used() {
    let signer = secret("HS256", hmac::HMAC_SHA256);
    let jwt = compiled(&[rule("i", JwtKeys::Inline(jwks([&signer])))]);
    let mut cache = Cache::default();
    let token = |n: u32| bearer(&signer.token(&json!({"iss": "i", "n": n})));
    let used = token(0);
    for n in 1..3000 {
        let mut verify =
            |headers: &HeaderMap| jwt.verify(headers, None, NOW, &mut cache).unwrap().unwrap().remembered;
        verify(&token(n));
        assert!(verify(&used) || n == 1, "{n}");
        assert!(cache.len() <= 1024);
    }
}

#[test]
fn a_browser_that_asks_beforehand_needs_no_token() {
    let jwt = compiled(&[rule("i", JwtKeys::Inline(jwks([&ed()])))]);
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, "http://a".parse().unwrap());
    assert!(!jwt.passes_over(&Method::OPTIONS, &headers));
    headers.insert(PREFLIGHT, "PUT".parse().unwrap());
    assert!(jwt.passes_over(&Method::OPTIONS, &headers) && !jwt.passes_over(&Method::GET, &headers));
}
