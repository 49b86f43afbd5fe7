//! A RequestAuthentication's tree to its struct, and the rules between its fields.

use super::{RequestAuthentication, selection};
use crate::api::Meta;
use crate::decode::Cursor;
use crate::model::{JwtKeys, JwtRule, ObjectRef};
use std::time::Duration;

const E: &str = "IST0106";
/// Istio's, of fetching keys.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn decode(root: &Cursor<'_>, meta: Meta) -> RequestAuthentication {
    let spec = root.field("spec");
    let selection = selection::decode(&spec, &meta);
    let rules = spec.field("jwtRules").items().map(|item| rule(&item, &meta.object)).collect();
    RequestAuthentication { selection, rules, meta }
}

fn rule(item: &Cursor<'_>, origin: &ObjectRef) -> JwtRule {
    let text = |name: &str| item.field(name).string().filter(|text| !text.is_empty());
    let uri = text("jwksUri").or_else(|| text("jwks_uri"));
    let (issuer, inline) = (text("issuer"), text("jwks"));
    if issuer.is_none() && uri.is_none() {
        item.error(E, "issuer or jwksUri must be non-empty string");
    }
    if uri.is_some() && inline.is_some() {
        item.error(E, "only one of jwks or jwksUri can be set");
    }
    if uri.as_ref().is_some_and(|u| !u.starts_with("http://") && !u.starts_with("https://")) {
        item.field("jwksUri").error(E, "url must have scheme http:// or https://");
    }
    if let Some(jwks) = &inline {
        check_jwks(&item.field("jwks"), jwks);
    }
    for list in ["audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"] {
        for empty in item.field(list).items().filter(|i| i.text() == Some("")) {
            empty.error(E, "must be a non-empty string");
        }
    }
    let strings = |name: &str| item.field(name).strings().into_iter().map(|text| text.value).collect();
    let keys = match (inline, uri) {
        (Some(inline), _) => JwtKeys::Inline(inline),
        (None, Some(uri)) => JwtKeys::Uri(uri),
        (None, None) => JwtKeys::Discover,
    };
    JwtRule {
        origin: origin.clone(),
        issuer: issuer.unwrap_or_default(),
        audiences: strings("audiences"),
        keys,
        headers: item.field("fromHeaders").items().filter_map(|header| from_header(&header)).collect(),
        params: strings("fromParams"),
        cookies: strings("fromCookies"),
        forward: item.field("forwardOriginalToken").boolean().unwrap_or(false),
        payload_header: header_name(&item.field("outputPayloadToHeader")),
        claim_headers: item.field("outputClaimToHeaders").items().filter_map(|c| claim_header(&c)).collect(),
        space_delimited: strings("spaceDelimitedClaims"),
        timeout: item.field("timeout").duration().unwrap_or(TIMEOUT),
    }
}

fn check_jwks(cursor: &Cursor<'_>, text: &str) {
    match serde_json::from_str::<serde_json::Value>(text) {
        Err(_) => cursor.error(E, "jwks parse error: not JSON"),
        Ok(value) if !value.get("keys").is_some_and(serde_json::Value::is_array) => {
            let help = "write a key set: {\"keys\": [{\"kty\": …}]}";
            cursor.error_with_help(E, "jwks parse error: no list `keys`", help);
        }
        Ok(_) => {}
    }
}

/// Name and prefix.
fn from_header(item: &Cursor<'_>) -> Option<(String, String)> {
    Some((header_name(&item.field("name"))?, item.field("prefix").string().unwrap_or_default()))
}

/// Field and claim.
fn claim_header(item: &Cursor<'_>) -> Option<(String, String)> {
    let claim = item.field("claim");
    if claim.text() == Some("") {
        claim.error(E, "must be a non-empty string");
    }
    Some((header_name(&item.field("header"))?, claim.string()?))
}

/// A field's name in lower case.
fn header_name(cursor: &Cursor<'_>) -> Option<String> {
    let name = cursor.string()?.to_ascii_lowercase();
    if !crate::api::istio::wire::is_token(&name) {
        cursor.error(E, format!("header name {name:?} is not a valid header name"));
        return None;
    }
    Some(name)
}
