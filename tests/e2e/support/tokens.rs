//! Tokens and the keys that they are signed with, made on the spot.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use std::time::SystemTime;

/// Who signs tokens.
pub struct Issuer {
    key: Ed25519KeyPair,
    kid: String,
}

impl Issuer {
    pub fn new(kid: &str) -> Issuer {
        Issuer { key: Ed25519KeyPair::generate().unwrap(), kid: kid.to_owned() }
    }

    /// The public key, as a JWKS has it.
    pub fn jwk(&self) -> Value {
        let x = BASE64.encode(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x})
    }

    pub fn jwks(&self) -> String {
        json!({"keys": [self.jwk()]}).to_string()
    }

    /// A token of `issuer` for `subject` with further claims, good for a minute.
    pub fn token(&self, claims: Value) -> String {
        self.token_until(60, claims)
    }

    /// The same, ending so many seconds from now.
    pub fn token_until(&self, seconds: i64, mut claims: Value) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        claims["exp"] = json!(now + seconds);
        let header = json!({"alg": "EdDSA", "kid": self.kid});
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = BASE64.encode(self.key.sign(text.as_bytes()).as_ref());
        format!("{text}.{signature}")
    }
}
