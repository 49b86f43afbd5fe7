//! What a guarded proxy asks of every request: a token that one key signed, and a policy of ten rules of which only
//! the last lets the load in.

use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

/// How long the token is good: longer than any run.
const GOOD: Duration = Duration::from_secs(24 * 3600);

/// The token of this run, and the key it is verified with.
struct Issued {
    token: String,
    jwks: String,
}

static ISSUED: OnceLock<Issued> = OnceLock::new();

/// Makes the token that every request of this run carries.
#[allow(clippy::disallowed_methods)]
pub fn issue() -> io::Result<()> {
    let key = Ed25519KeyPair::generate().map_err(io::Error::other)?;
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + GOOD;
    let claims = format!(
        r#"{{"iss":"https://issuer.test","sub":"load","aud":["hop"],"groups":["readers","writers"],"exp":{}}}"#,
        until.as_secs()
    );
    let text = format!("{}.{}", BASE64.encode(r#"{"alg":"EdDSA","kid":"hop"}"#), BASE64.encode(claims));
    let token = format!("{text}.{}", BASE64.encode(key.sign(text.as_bytes()).as_ref()));
    let x = BASE64.encode(key.public_key().as_ref());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"hop","x":"{x}"}}]}}"#);
    let _ = ISSUED.set(Issued { token, jwks });
    Ok(())
}

/// The token, where requests carry one.
pub fn token() -> Option<&'static str> {
    ISSUED.get().map(|issued| &*issued.token)
}

/// The YAML that asks for it; empty where requests carry none.
pub fn objects() -> String {
    let Some(issued) = ISSUED.get() else { return String::new() };
    let selector = "selector: {matchLabels: {istio: ingressgateway}}";
    let mut text = format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: hop, namespace: \
         istio-system}}\nspec:\n  {selector}\n  jwtRules: [{{issuer: https://issuer.test, audiences: [hop], \
         forwardOriginalToken: true, jwks: '{}'}}]\n---\napiVersion: security.istio.io/v1\nkind: \
         AuthorizationPolicy\nmetadata: {{name: hop, namespace: istio-system}}\nspec:\n  {selector}\n  action: ALLOW\n  \
         rules:\n",
        issued.jwks
    );
    for number in 0..9 {
        let _ = writeln!(
            text,
            "  - from: [{{source: {{requestPrincipals: ['https://issuer.test/*']}}}}]\n    to: [{{operation: \
             {{methods: [GET, POST], paths: ['/area-{number}/*']}}}}]\n    when: [{{key: \
             'request.auth.claims[groups]', values: [group-{number}]}}]"
        );
    }
    text.push_str(
        "  - from: [{source: {requestPrincipals: ['https://issuer.test/load']}}]\n    to: [{operation: {methods: [GET], \
         paths: ['/hello/*']}}]\n    when: [{key: 'request.auth.claims[groups]', values: [writers]}]\n",
    );
    text
}
