//! Whether an exchange is tried again: pure, from facts to a verdict.
//!
//! Two things are apart. The route's policy is Envoy's: conditions, a count, a back-off, a budget. And there
//! is one free attempt, whatever the policy: where a reused connection turned out to be dead before a byte
//! of the answer, and sending again cannot do anything twice.

use crate::cluster::Rng;
use crate::fault::Kind;
use crate::snapshot::{Retry, RetryOn};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use std::time::Duration;

/// Retries in flight that a cluster may always have, whatever its load.
pub const MIN_BUDGET: u32 = 3;
/// Share of the requests in flight that may be retries.
pub const BUDGET_PERCENT: u32 = 20;
const LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const MAX_BACKOFF_FACTOR: u32 = 10;

/// What is known when a try has failed.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// How.
    pub kind: Kind,
    /// The connection had carried an exchange before, or its instance is known to come and go.
    pub stale: bool,
    /// Nothing of the request was written.
    pub unsent: bool,
    /// Doing it twice does no harm.
    pub idempotent: bool,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer with what there is.
    GiveUp,
    /// At once, on a fresh connection, uncounted.
    Free,
    /// At once, at another endpoint, uncounted: the one that was asked says that nothing was done.
    Elsewhere,
    /// After the back-off, counted. `budgeted`: an application may have seen the request.
    Again {
        /// Against the budget.
        budgeted: bool,
    },
}

/// The verdict on a try without a response.
pub fn on_failure(failure: Failure, retry: &Retry, tries_left: bool, free_left: bool) -> Verdict {
    let Failure { kind, stale, unsent, idempotent } = failure;
    let died = matches!(kind, Kind::NotSent | Kind::Disconnected | Kind::StreamRefused);
    if died && stale && free_left && (unsent || idempotent || kind == Kind::StreamRefused) {
        return Verdict::Free;
    }
    let reset = RetryOn::RESET.with(RetryOn::SERVER_ERROR).with(RetryOn::GATEWAY_ERROR);
    let wanted = match kind {
        Kind::ConnectFailure | Kind::ConnectTimeout => {
            reset.with(RetryOn::CONNECT_FAILURE).with(RetryOn::RESET_BEFORE_REQUEST)
        }
        Kind::NotSent => reset.with(RetryOn::CONNECT_FAILURE).with(RetryOn::RESET_BEFORE_REQUEST),
        Kind::StreamRefused => reset.with(RetryOn::REFUSED_STREAM),
        Kind::Disconnected | Kind::StreamReset | Kind::BadResponse | Kind::TryTimeout => reset,
        _ => return Verdict::GiveUp,
    };
    if !tries_left || !retry.on.any(wanted) {
        return Verdict::GiveUp;
    }
    let nothing_seen =
        matches!(kind, Kind::ConnectFailure | Kind::ConnectTimeout | Kind::NotSent | Kind::StreamRefused);
    Verdict::Again { budgeted: !nothing_seen }
}

/// The verdict on a response's head.
pub fn on_response(
    status: StatusCode,
    headers: &HeaderMap,
    grpc_status: Option<u8>,
    retry: &Retry,
    tries_left: bool,
) -> Verdict {
    if !tries_left {
        return Verdict::GiveUp;
    }
    let code = status.as_u16();
    let grpc = match grpc_status {
        Some(1) => RetryOn::GRPC_CANCELLED,
        Some(4) => RetryOn::GRPC_DEADLINE_EXCEEDED,
        Some(8) => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        Some(13) => RetryOn::GRPC_INTERNAL,
        Some(14) => RetryOn::GRPC_UNAVAILABLE,
        _ => RetryOn::default(),
    };
    // Looked for only where it may decide: most answers are good ones.
    let wants_limited = retry.on.any(RetryOn::RATE_LIMITED);
    let again = code >= 500 && retry.on.any(RetryOn::SERVER_ERROR)
        || matches!(code, 502..=504) && retry.on.any(RetryOn::GATEWAY_ERROR)
        || code == 409 && retry.on.any(RetryOn::RETRIABLE_4XX)
        || retry.on.any(RetryOn::STATUS_CODES) && retry.codes.contains(&code)
        || retry.on.any(grpc);
    if !again && !wants_limited {
        return Verdict::GiveUp;
    }
    let limited = headers.contains_key(LIMITED);
    if headers.contains_key(OVERLOADED) || limited && !wants_limited || !limited && !again {
        return Verdict::GiveUp;
    }
    Verdict::Again { budgeted: true }
}

/// Whether a request of this method may be sent twice.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether some condition of `retry` is judged after the request was sent, so that a copy must be kept.
pub fn needs_copy(retry: &Retry, grpc: bool) -> bool {
    let before = RetryOn::CONNECT_FAILURE.with(RetryOn::RESET_BEFORE_REQUEST);
    let grpc_only = RetryOn::GRPC_CANCELLED
        .with(RetryOn::GRPC_DEADLINE_EXCEEDED)
        .with(RetryOn::GRPC_INTERNAL)
        .with(RetryOn::GRPC_RESOURCE_EXHAUSTED)
        .with(RetryOn::GRPC_UNAVAILABLE);
    let mut after = RetryOn(retry.on.0 & !before.0);
    if !grpc {
        after = RetryOn(after.0 & !grpc_only.0);
    }
    if retry.codes.is_empty() {
        after = RetryOn(after.0 & !RetryOn::STATUS_CODES.0);
    }
    retry.attempts > 0 && after != RetryOn::default()
}

/// Envoy's fully jittered back-off before retry number `n` (from 1): uniform below (2^n − 1) times the
/// base, at most ten times the base.
pub fn backoff(base: Duration, n: u32, rng: &mut Rng) -> Duration {
    let factor = (1_u32.checked_shl(n).unwrap_or(u32::MAX)).saturating_sub(1).min(MAX_BACKOFF_FACTOR);
    let most = base.saturating_mul(factor).as_nanos().min(u128::from(u64::MAX)) as u64;
    Duration::from_nanos(if most == 0 { 0 } else { rng.u64(..most) })
}

/// How many retries a cluster with `requests` in flight may have in flight.
pub fn budget(requests: u32) -> u32 {
    (u64::from(requests) * u64::from(BUDGET_PERCENT) / 100).max(u64::from(MIN_BUDGET)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Again, Free, GiveUp};

    fn retry(on: RetryOn) -> Retry {
        Retry { on, ..Retry::istio_default() }
    }

    #[test]
    fn a_dead_reused_connection_costs_nothing_when_sending_again_is_safe() {
        // kind, stale, unsent, idempotent, free left -> verdict under `retries: {}`
        let rows = [
            (Kind::NotSent, true, true, false, true, Free),
            (Kind::NotSent, true, true, false, false, GiveUp),
            (Kind::NotSent, false, true, true, true, GiveUp),
            (Kind::Disconnected, true, false, true, true, Free),
            (Kind::Disconnected, true, false, false, true, GiveUp),
            (Kind::Disconnected, false, false, true, true, GiveUp),
            (Kind::StreamReset, true, false, true, true, GiveUp),
            (Kind::TryTimeout, true, false, true, true, GiveUp),
        ];
        for (kind, stale, unsent, idempotent, free_left, expected) in rows {
            let failure = Failure { kind, stale, unsent, idempotent };
            assert_eq!(on_failure(failure, &Retry::off(), false, free_left), expected, "{failure:?}");
        }
    }

    #[test]
    fn conditions_are_envoys() {
        let rows = [
            (Kind::ConnectFailure, RetryOn::CONNECT_FAILURE, Again { budgeted: false }),
            (Kind::ConnectTimeout, RetryOn::SERVER_ERROR, Again { budgeted: false }),
            (Kind::ConnectFailure, RetryOn::REFUSED_STREAM, GiveUp),
            (Kind::Disconnected, RetryOn::CONNECT_FAILURE, GiveUp),
            (Kind::Disconnected, RetryOn::RESET, Again { budgeted: true }),
            (Kind::TryTimeout, RetryOn::istio_default(), GiveUp),
            (Kind::TryTimeout, RetryOn::GATEWAY_ERROR, Again { budgeted: true }),
            (Kind::RequestOverflow, RetryOn::SERVER_ERROR, GiveUp),
            (Kind::RouteTimeout, RetryOn::SERVER_ERROR, GiveUp),
        ];
        for (kind, on, expected) in rows {
            let failure = Failure { kind, stale: false, unsent: false, idempotent: true };
            assert_eq!(on_failure(failure, &retry(on), true, true), expected, "{kind:?} {on:?}");
            assert_eq!(on_failure(failure, &retry(on), false, false), GiveUp, "no tries left");
        }
    }

    #[test]
    fn statuses_are_retried_only_when_the_policy_says_so() {
        /// Status, gRPC status, policy, codes of the policy, whether it is tried again.
        type Row = (u16, Option<u8>, RetryOn, &'static [u16], bool);
        let rows: [Row; 9] = [
            (503, None, RetryOn::istio_default(), &[], false),
            (503, None, RetryOn::SERVER_ERROR, &[], true),
            (500, None, RetryOn::GATEWAY_ERROR, &[], false),
            (502, None, RetryOn::GATEWAY_ERROR, &[], true),
            (409, None, RetryOn::RETRIABLE_4XX, &[], true),
            (404, None, RetryOn::STATUS_CODES, &[404], true),
            (404, None, RetryOn::RESET, &[404], false),
            (200, Some(14), RetryOn::istio_default(), &[], true),
            (200, Some(13), RetryOn::istio_default(), &[], false),
        ];
        for (code, grpc, on, codes, again) in rows {
            let policy = Retry { codes: codes.to_vec(), ..retry(on) };
            let status = StatusCode::from_u16(code).unwrap();
            let verdict = on_response(status, &HeaderMap::new(), grpc, &policy, true);
            assert_eq!(verdict != GiveUp, again, "{code} {grpc:?} {on:?}");
        }
    }

    #[test]
    fn what_is_limited_or_overloaded_is_left_alone_unless_asked_for() {
        let rows = [
            (429, "x-envoy-ratelimited", RetryOn::RATE_LIMITED, true),
            (429, "x-envoy-ratelimited", RetryOn::SERVER_ERROR, false),
            (503, "x-envoy-ratelimited", RetryOn::SERVER_ERROR, false),
            (503, "x-envoy-overloaded", RetryOn::SERVER_ERROR, false),
            (429, "x-other", RetryOn::RATE_LIMITED, false),
            (503, "x-other", RetryOn::SERVER_ERROR, true),
        ];
        for (code, name, on, again) in rows {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "true".parse().unwrap())]);
            let status = StatusCode::from_u16(code).unwrap();
            let verdict = on_response(status, &headers, None, &retry(on), true);
            assert_eq!(verdict != GiveUp, again, "{code} {name} {on:?}");
        }
    }

    #[test]
    fn back_off_is_jittered_and_bounded() {
        let (base, mut rng) = (Duration::from_millis(25), Rng::with_seed(3));
        for (n, most) in [(1, 25), (2, 75), (3, 175), (4, 250), (40, 250)] {
            for _ in 0..200 {
                assert!(backoff(base, n, &mut rng) < Duration::from_millis(most), "retry {n}");
            }
        }
        assert_eq!(backoff(Duration::ZERO, 1, &mut rng), Duration::ZERO);
    }

    #[test]
    fn the_budget_is_a_fifth_and_never_below_three() {
        for (requests, most) in [(0, 3), (10, 3), (15, 3), (100, 20)] {
            assert_eq!(budget(requests), most);
        }
    }
}
