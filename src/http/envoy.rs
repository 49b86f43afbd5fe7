//! What a client asks of its own proxy in `x-envoy-…` fields: timeouts and retries.
//!
//! Read and removed before the request goes on. A sidecar honours them, since its client is the application
//! beside it; a gateway only removes them.

use super::headers::remove_where;
use super::seen::Seen;
use super::upgrade::tokens;
use http::header::{HeaderMap, HeaderValue};
use proxy_config::model::RetryOn;
use smallvec::SmallVec;
use std::time::Duration;

/// What was asked for; absent things leave the route's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Instead of the route's timeout; zero means none.
    pub timeout: Option<Duration>,
    /// Instead of the route's per-try timeout; zero means none.
    pub per_try_timeout: Option<Duration>,
    /// Instead of the route's number of retries.
    pub max_retries: Option<u32>,
    /// Besides the route's conditions.
    pub retry_on: RetryOn,
    /// Status codes that are tried again, besides the route's; read only with `RetryOn::STATUS_CODES`.
    pub codes: SmallVec<[u16; 4]>,
    /// A timeout is answered with 204 instead of 504.
    pub timeout_is_204: bool,
}

/// Fields that only the client's own proxy may see.
const CONSUMED: [&str; 16] = [
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-max-retries",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-is-timeout-retry",
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-attempt-count",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
];

/// Reads what is asked for, and removes the fields that asked. Costs nothing when there are none.
#[inline]
pub fn take(headers: &mut HeaderMap, seen: Seen, honour: bool) -> Asked {
    if !seen.any(Seen::ENVOY) {
        return Asked::default();
    }
    let asked = if honour { read(headers) } else { Asked::default() };
    remove_where(headers, |name| CONSUMED.contains(&name));
    asked
}

#[cold]
fn read(headers: &HeaderMap) -> Asked {
    let number = |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
    let list = |name: &str| headers.get_all(name).into_iter().map(HeaderValue::as_bytes).flat_map(tokens);
    let retry_on = list("x-envoy-retry-on").chain(list("x-envoy-retry-grpc-on")).filter_map(condition);
    Asked {
        timeout: number("x-envoy-upstream-rq-timeout-ms").map(Duration::from_millis),
        per_try_timeout: number("x-envoy-upstream-rq-per-try-timeout-ms").map(Duration::from_millis),
        max_retries: number("x-envoy-max-retries").and_then(|count| u32::try_from(count).ok()),
        retry_on: retry_on.fold(RetryOn::default(), RetryOn::with),
        codes: list("x-envoy-retriable-status-codes")
            .filter_map(|code| std::str::from_utf8(code).ok()?.parse().ok())
            .filter(|code| (100..600).contains(code))
            .take(16)
            .collect(),
        timeout_is_204: headers.contains_key("x-envoy-upstream-rq-timeout-alt-response"),
    }
}

/// A condition by Envoy's name; unknown ones count for nothing, as there.
fn condition(name: &[u8]) -> Option<RetryOn> {
    Some(match name {
        b"5xx" => RetryOn::SERVER_ERROR,
        b"gateway-error" => RetryOn::GATEWAY_ERROR,
        b"reset" => RetryOn::RESET,
        b"reset-before-request" => RetryOn::RESET_BEFORE_REQUEST,
        b"connect-failure" => RetryOn::CONNECT_FAILURE,
        b"retriable-4xx" => RetryOn::RETRIABLE_4XX,
        b"refused-stream" => RetryOn::REFUSED_STREAM,
        b"retriable-status-codes" => RetryOn::STATUS_CODES,
        b"envoy-ratelimited" => RetryOn::RATE_LIMITED,
        b"cancelled" => RetryOn::GRPC_CANCELLED,
        b"deadline-exceeded" => RetryOn::GRPC_DEADLINE_EXCEEDED,
        b"internal" => RetryOn::GRPC_INTERNAL,
        b"resource-exhausted" => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        b"unavailable" => RetryOn::GRPC_UNAVAILABLE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderName;

    fn check(fields: &[(&'static str, &str)], honour: bool, wanted: &Asked, left: &[&str]) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let seen = Seen::of(&headers);
        assert_eq!(take(&mut headers, seen, honour), *wanted, "{fields:?}");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, left, "{fields:?}");
    }

    #[test]
    fn what_is_asked_for_is_read_and_removed() {
        check(
            &[
                ("x-envoy-upstream-rq-timeout-ms", "1500"),
                ("x-envoy-upstream-rq-per-try-timeout-ms", "500"),
                ("x-envoy-max-retries", "4"),
                ("x-envoy-retry-on", "5xx, connect-failure,nonsense"),
                ("x-envoy-retry-on", "retriable-status-codes"),
                ("x-envoy-retry-grpc-on", "unavailable"),
                ("x-envoy-retriable-status-codes", "418, 503, 1000, x"),
                ("x-envoy-upstream-rq-timeout-alt-response", "1"),
                ("x-envoy-hedge-on-per-try-timeout", "true"),
                ("x-envoy-external-address", "1.2.3.4"),
                ("accept", "*/*"),
            ],
            true,
            &Asked {
                timeout: Some(Duration::from_millis(1500)),
                per_try_timeout: Some(Duration::from_millis(500)),
                max_retries: Some(4),
                retry_on: RetryOn::SERVER_ERROR
                    .with(RetryOn::CONNECT_FAILURE)
                    .with(RetryOn::STATUS_CODES)
                    .with(RetryOn::GRPC_UNAVAILABLE),
                codes: SmallVec::from_slice(&[418, 503]),
                timeout_is_204: true,
            },
            &["accept", "x-envoy-external-address"],
        );
    }

    #[test]
    fn a_gateway_removes_without_honouring_and_nonsense_asks_for_nothing() {
        let asked = [("x-envoy-max-retries", "4"), ("x-envoy-upstream-rq-timeout-ms", "1")];
        check(&asked, false, &Asked::default(), &[]);
        let nonsense = [
            ("x-envoy-max-retries", "-1"),
            ("x-envoy-upstream-rq-timeout-ms", "soon"),
            ("x-envoy-retry-on", ""),
        ];
        check(&nonsense, true, &Asked::default(), &[]);
        check(&[("accept", "*/*")], true, &Asked::default(), &["accept"]);
    }
}
