//! Keys that tokens are verified with, each bound to the algorithms of its kind.
//!
//! From a JWKS. What of it cannot be used is left out: a key of another kind, for another use, of another size.

use super::Mistake;
use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::fmt;

/// Of one set, at most: a token without a key's name is tried with each.
const MAX_KEYS: usize = 64;

/// Signature algorithms of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// By the name in a token's header.
    pub(super) fn named(name: &str) -> Option<Algorithm> {
        use Algorithm::*;
        Some(match name {
            "HS256" => Hs256,
            "HS384" => Hs384,
            "HS512" => Hs512,
            "RS256" => Rs256,
            "RS384" => Rs384,
            "RS512" => Rs512,
            "PS256" => Ps256,
            "PS384" => Ps384,
            "PS512" => Ps512,
            "ES256" => Es256,
            "ES384" => Es384,
            "ES512" => Es512,
            "EdDSA" => EdDsa,
            _ => return None,
        })
    }
}

/// The material of a key.
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

/// One key.
struct Key {
    kid: Option<Box<str>>,
    /// Where the key names one, only this.
    algorithm: Option<Algorithm>,
    material: Material,
}

/// A set of keys.
pub struct KeySet(Vec<Key>);

impl fmt::Debug for KeySet {
    /// Some of them may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({})", self.0.len())
    }
}

impl KeySet {
    /// From the text of a JWKS.
    ///
    /// # Errors
    /// It is none, or has no key that can be used.
    pub fn parse(text: &[u8]) -> Result<KeySet, Mistake> {
        let json: Value = serde_json::from_slice(text).map_err(|_| Mistake::JwksParse)?;
        let keys = json.get("keys").and_then(Value::as_array).ok_or(Mistake::JwksParse)?;
        let keys: Vec<Key> = keys.iter().filter_map(Key::parse).take(MAX_KEYS).collect();
        if keys.is_empty() { Err(Mistake::JwksNoKeys) } else { Ok(KeySet(keys)) }
    }

    /// Whether `signature` is of `message`, by the key that the token names, or by any of the set.
    ///
    /// # Errors
    /// It is not, or there is no such key.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Mistake> {
        let mut fits = false;
        for key in &self.0 {
            let other = matches!((kid, &key.kid), (Some(wanted), Some(own)) if wanted != &**own);
            if other || key.algorithm.is_some_and(|only| only != algorithm) {
                continue;
            }
            fits = true;
            if key.verifies(algorithm, message, signature) {
                return Ok(());
            }
        }
        Err(if fits { Mistake::Verification } else { Mistake::NoSuchKey })
    }
}

impl Key {
    fn parse(json: &Value) -> Option<Key> {
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let algorithm = match json.get("alg") {
            None | Some(Value::Null) => None,
            Some(name) => Some(Algorithm::named(name.as_str()?)?),
        };
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa { n: number(bytes("n")?)?, e: number(bytes("e")?)? },
            ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            ("EC", Some("P-521")) => Material::P521(point(&bytes("x")?, &bytes("y")?, 66)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            ("oct", _) => Material::Secret(bytes("k").filter(|k| !k.is_empty())?),
            _ => return None,
        };
        Some(Key { kid: text("kid").map(Into::into), algorithm, material })
    }

    /// An algorithm of another kind of key verifies nothing, whatever the token says.
    fn verifies(&self, algorithm: Algorithm, message: &[u8], sig: &[u8]) -> bool {
        use Algorithm::*;
        let plain = |how: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(how, key).verify(message, sig).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => {
                let how = match algorithm {
                    Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                signature::RsaPublicKeyComponents { n, e }.verify(how, message, sig).is_ok()
            }
            (Material::P256(point), Es256) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), Es384) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::P521(point), Es512) => plain(&signature::ECDSA_P521_SHA512_FIXED, point),
            (Material::Ed25519(key), EdDsa) => plain(&signature::ED25519, key),
            (Material::Secret(secret), Hs256 | Hs384 | Hs512) => {
                let how = match algorithm {
                    Hs256 => hmac::HMAC_SHA256,
                    Hs384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::verify(&hmac::Key::new(how, secret), message, sig).is_ok()
            }
            _ => false,
        }
    }
}

/// A number without leading zeros, which some write.
fn number(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let start = bytes.iter().position(|byte| *byte != 0)?;
    Some(bytes[start..].to_vec())
}

/// Both coordinates, each in its full width.
fn point(x: &[u8], y: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for part in [x, y] {
        point.resize(point.len() + width.checked_sub(part.len())?, 0);
        point.extend_from_slice(part);
    }
    Some(point)
}
