//! `retries` of a rule.

use super::Retries;
use crate::decode::Cursor;
use crate::model::RetryOn;
use crate::report::At;

pub(super) fn decode(cursor: &Cursor<'_>) -> Option<Retries> {
    if !cursor.is_object() {
        return None;
    }
    let attempts = cursor.field("attempts").number::<i64>().unwrap_or(0);
    if attempts < 0 {
        cursor.field("attempts").error("IST0106", "attempts cannot be negative");
    }
    let needs_attempts = ["perTryTimeout", "retryOn", "retryRemoteLocalities", "backoff"];
    if attempts == 0 && needs_attempts.iter().any(|name| cursor.field(name).is_present()) {
        cursor.error_with_help(
            "IST0106",
            "http retry policy configured when attempts are set to 0 (disabled)",
            "write `attempts: 2`, or `retries: {}` alone to switch retries off",
        );
    }
    let timeout = cursor.field("perTryTimeout");
    Some(Retries {
        attempts: u32::try_from(attempts).unwrap_or(0),
        per_try_timeout: timeout.duration().map(|d| At::new(d, timeout.at())),
        retry_on: retry_on(&cursor.field("retryOn")),
        backoff: cursor.field("backoff").duration(),
        ignore_previous_hosts: cursor.field("retryIgnorePreviousHosts").boolean().unwrap_or(true),
    })
}

/// Conditions that are known; `None` for those which do not act yet.
const CONDITIONS: [(&str, Option<RetryOn>); 17] = [
    ("5xx", Some(RetryOn::SERVER_ERROR)),
    ("gateway-error", Some(RetryOn::GATEWAY_ERROR)),
    ("reset", Some(RetryOn::RESET)),
    ("reset-before-request", Some(RetryOn::RESET_BEFORE_REQUEST)),
    ("connect-failure", Some(RetryOn::CONNECT_FAILURE)),
    ("retriable-4xx", Some(RetryOn::RETRIABLE_4XX)),
    ("refused-stream", Some(RetryOn::REFUSED_STREAM)),
    ("retriable-status-codes", Some(RetryOn::STATUS_CODES)),
    ("retriable-headers", None),
    ("envoy-ratelimited", Some(RetryOn::RATE_LIMITED)),
    ("http3-post-connect-failure", None),
    ("cancelled", Some(RetryOn::GRPC_CANCELLED)),
    ("deadline-exceeded", Some(RetryOn::GRPC_DEADLINE_EXCEEDED)),
    ("internal", Some(RetryOn::GRPC_INTERNAL)),
    ("resource-exhausted", Some(RetryOn::GRPC_RESOURCE_EXHAUSTED)),
    ("unavailable", Some(RetryOn::GRPC_UNAVAILABLE)),
    ("", Some(RetryOn(0))),
];

/// `retryOn`: conditions and status codes, comma-separated. Empty is as good as absent.
fn retry_on(cursor: &Cursor<'_>) -> Option<At<(RetryOn, Vec<u16>)>> {
    let text = cursor.text().filter(|t| !t.trim().is_empty())?;
    let (mut on, mut codes) = (RetryOn(0), Vec::new());
    for token in text.split(',').map(str::trim) {
        if let Some((_, known)) = CONDITIONS.iter().find(|(name, _)| *name == token) {
            match known {
                Some(condition) => on = on.with(*condition),
                None => cursor.warn("SC007", format!("retryOn {token:?} does not act yet")),
            }
        } else if let Some(code) = token.parse::<u16>().ok().filter(|c| (100..=599).contains(c)) {
            on = on.with(RetryOn::STATUS_CODES);
            codes.push(code);
        } else {
            let message = format!("{token:?} is not a valid retryOn policy");
            let known = CONDITIONS.iter().map(|(name, _)| *name).filter(|n| !n.is_empty());
            match crate::api::shape::nearest(token, known) {
                Some(near) => cursor.error_with_help("IST0106", message, format!("did you mean `{near}`?")),
                None => cursor.error("IST0106", message),
            }
        }
    }
    Some(At::new((on, codes), cursor.at()))
}
