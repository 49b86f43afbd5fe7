//! One token taken apart: what it says of itself before anybody has verified it.

use super::Mistake;
use super::keys::Algorithm;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// A token in its form, its signature not looked at.
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) claims: Map<String, Value>,
    /// The payload as it stands in the token.
    pub(super) payload: &'t str,
    /// What is signed.
    pub(super) signed: &'t str,
    pub(super) signature: Vec<u8>,
    pub(super) expires: Option<u64>,
    pub(super) not_before: Option<u64>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    pub(super) fn parse(text: &'t str) -> Result<Token<'t>, Mistake> {
        let mut sections = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Mistake::Form);
        };
        let head = URL_SAFE_NO_PAD.decode(header).map_err(|_| Mistake::HeaderBase64)?;
        let Ok(Value::Object(head)) = serde_json::from_slice(&head) else { return Err(Mistake::HeaderJson) };
        let name = head.get("alg").and_then(Value::as_str).ok_or(Mistake::HeaderAlg)?;
        let algorithm = Algorithm::named(name).ok_or(Mistake::UnknownAlg)?;
        let kid = match head.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Mistake::HeaderKid),
        };
        // It asks for something that must be understood, and nothing is (RFC 7515, 4.1.11).
        if head.contains_key("crit") {
            return Err(Mistake::Verification);
        }
        let body = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Mistake::PayloadBase64)?;
        let Ok(Value::Object(claims)) = serde_json::from_slice(&body) else {
            return Err(Mistake::PayloadJson);
        };
        check(&claims)?;
        let expires = time(&claims, "exp", Mistake::Exp, Mistake::ExpRange)?;
        let not_before = time(&claims, "nbf", Mistake::Nbf, Mistake::NbfRange)?;
        time(&claims, "iat", Mistake::Iat, Mistake::IatRange)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Mistake::SignatureBase64)?;
        let signed = &text[..header.len() + 1 + payload.len()];
        Ok(Token { algorithm, kid, claims, payload, signed, signature, expires, not_before })
    }

    /// `iss`; empty: none.
    pub(super) fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether `aud` names one of `wanted`; scheme and a last slash do not count.
    pub(super) fn is_for(&self, wanted: &[Box<str>]) -> bool {
        let fits = |audience: &str| wanted.iter().any(|one| bare(one) == bare(audience));
        wanted.is_empty()
            || match self.claims.get("aud") {
                Some(Value::String(one)) => fits(one),
                Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(fits),
                _ => false,
            }
    }
}

fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or(audience.strip_prefix("http://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// The claims that everybody reads are of their kind.
fn check(claims: &Map<String, Value>) -> Result<(), Mistake> {
    let text = |name: &str| claims.get(name).is_none_or(Value::is_string);
    if !text("iss") {
        return Err(Mistake::Iss);
    }
    if !text("sub") {
        return Err(Mistake::Sub);
    }
    if !text("jti") {
        return Err(Mistake::Jti);
    }
    match claims.get("aud") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => Ok(()),
        Some(_) => Err(Mistake::Aud),
    }
}

/// Seconds since 1970.
fn time(
    claims: &Map<String, Value>,
    name: &str,
    kind: Mistake,
    range: Mistake,
) -> Result<Option<u64>, Mistake> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    match value.as_f64() {
        // Some write fractions of seconds.
        Some(seconds) if (0.0..9.0e15).contains(&seconds) => Ok(Some(seconds as u64)),
        Some(_) => Err(range),
        None => Err(kind),
    }
}
