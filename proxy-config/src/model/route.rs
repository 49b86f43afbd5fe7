//! Routes: what a request must look like, and what then happens to it.

use super::ObjectRef;
use std::time::Duration;

/// One match block and its action. A rule with several blocks becomes several routes.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// `http[].name`, with `.match name` behind it, else `default`.
    pub name: String,
    /// All conditions must hold; the empty match holds always.
    pub matches: Match,
    /// What happens.
    pub action: Action,
    /// The object this route was written in (or the function or Service it follows from).
    pub origin: ObjectRef,
}

/// Conditions on a request head; absent ones hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// On the path without query.
    pub uri: Option<StringMatch>,
    /// Exact and prefix `uri` ignore ASCII case.
    pub ignore_uri_case: bool,
    /// On `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Case-sensitive.
    pub method: Option<StringMatch>,
    /// On the authority as sent, port included.
    pub authority: Option<StringMatch>,
    /// Lower-case names; several values of one name are joined with `,`.
    pub headers: Vec<(String, StringMatch)>,
    /// None of these may hold; an absent header counts as the empty string (absent for `Present`).
    pub without_headers: Vec<(String, StringMatch)>,
    /// On the first raw value of a key, not percent-decoded.
    pub query: Vec<(String, StringMatch)>,
}

/// One condition on a string.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatch {
    /// The whole string.
    Exact(String),
    /// Its beginning, byte for byte.
    Prefix(String),
    /// RE2 syntax; the whole string must match. Known to compile.
    Regex(String),
    /// There at all.
    Present,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send it to a cluster.
    Forward(Forward),
    /// Answer 3xx.
    Redirect(Redirect),
    /// Answer from the configuration.
    Direct(DirectResponse),
}

/// Where a request goes and under what terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// At least one; weights are relative and sum above zero.
    pub destinations: Vec<WeightedDestination>,
    /// Whole exchange, retries included; `None`: none.
    pub timeout: Option<Duration>,
    /// The route's retry policy, defaults filled in.
    pub retry: Retry,
    /// Changes of path and authority.
    pub rewrite: Rewrite,
    /// Applied for every destination of the route.
    pub headers: HeaderOps,
}

/// One share of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedDestination {
    /// A cluster's `name`, whether it exists or not.
    pub cluster: String,
    /// Relative; never 0 when there are several.
    pub weight: u32,
    /// Applied for this destination besides the route's.
    pub headers: HeaderOps,
    /// What the destination was written as, for messages: `reviews subset v9`.
    pub written: String,
}

/// Changes to the heads of request and response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderOps {
    /// On the way to the destination.
    pub request: MessageOps,
    /// On the way back.
    pub response: MessageOps,
}

/// Changes to one head, applied as: remove, then set, then add. Names are lower case; values may hold
/// Envoy's `%VAR%` operators. `host` in `set` of a request rewrites the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MessageOps {
    /// Overwrite.
    pub set: Vec<(String, String)>,
    /// Append.
    pub add: Vec<(String, String)>,
    /// Remove.
    pub remove: Vec<String>,
}

/// The `%OPERATOR%`s that header values may hold; `REQ` and `RESP` take `(NAME)`, `(NAME?OTHER)` and a length
/// behind a colon.
pub const HEADER_OPERATORS: [&str; 16] = [
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "HOSTNAME",
    "PROTOCOL",
    "REQ",
    "RESP",
    "RESPONSE_CODE",
    "START_TIME",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_HOST",
    "UPSTREAM_REMOTE_ADDRESS",
];

/// When and how an exchange is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// Further tries after the first; 0: off.
    pub attempts: u32,
    /// From dispatch of one try; `None`: only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// The conditions.
    pub on: RetryOn,
    /// Status codes that are tried again, besides `on`.
    pub codes: Vec<u16>,
    /// Base of the fully jittered exponential back-off; the cap is ten times it.
    pub backoff: Duration,
    /// Avoid endpoints already tried where another is there.
    pub avoid_tried: bool,
}

/// A set of Envoy's retry conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// Any 5xx, or no response at all.
    pub const SERVER_ERROR: RetryOn = RetryOn(1 << 0);
    /// 502, 503, 504, or no response.
    pub const GATEWAY_ERROR: RetryOn = RetryOn(1 << 1);
    /// No response: disconnect, reset, per-try timeout.
    pub const RESET: RetryOn = RetryOn(1 << 2);
    /// Reset before anything of the request was sent.
    pub const RESET_BEFORE_REQUEST: RetryOn = RetryOn(1 << 3);
    /// TCP connect failed or timed out.
    pub const CONNECT_FAILURE: RetryOn = RetryOn(1 << 4);
    /// 409.
    pub const RETRIABLE_4XX: RetryOn = RetryOn(1 << 5);
    /// HTTP/2 REFUSED_STREAM.
    pub const REFUSED_STREAM: RetryOn = RetryOn(1 << 6);
    /// The codes in `Retry::codes`.
    pub const STATUS_CODES: RetryOn = RetryOn(1 << 7);
    /// Responses marked `x-envoy-ratelimited`.
    pub const RATE_LIMITED: RetryOn = RetryOn(1 << 8);
    /// gRPC status in response headers.
    pub const GRPC_CANCELLED: RetryOn = RetryOn(1 << 9);
    /// gRPC status in response headers.
    pub const GRPC_DEADLINE_EXCEEDED: RetryOn = RetryOn(1 << 10);
    /// gRPC status in response headers.
    pub const GRPC_INTERNAL: RetryOn = RetryOn(1 << 11);
    /// gRPC status in response headers.
    pub const GRPC_RESOURCE_EXHAUSTED: RetryOn = RetryOn(1 << 12);
    /// gRPC status in response headers.
    pub const GRPC_UNAVAILABLE: RetryOn = RetryOn(1 << 13);

    /// Whether any of `other` is in the set.
    pub fn any(self, other: RetryOn) -> bool {
        self.0 & other.0 != 0
    }

    /// The union.
    #[must_use]
    pub fn with(self, other: RetryOn) -> RetryOn {
        RetryOn(self.0 | other.0)
    }

    /// Istio's default: connect-failure, refused-stream, unavailable, cancelled, retriable-status-codes.
    pub fn istio_default() -> RetryOn {
        RetryOn::CONNECT_FAILURE
            .with(RetryOn::REFUSED_STREAM)
            .with(RetryOn::GRPC_UNAVAILABLE)
            .with(RetryOn::GRPC_CANCELLED)
            .with(RetryOn::STATUS_CODES)
    }
}

impl Retry {
    /// What Istio does where a route says nothing: two retries on safe conditions.
    pub fn istio_default() -> Retry {
        Retry {
            attempts: 2,
            per_try_timeout: None,
            on: RetryOn::istio_default(),
            codes: Vec::new(),
            backoff: Duration::from_millis(25),
            avoid_tried: true,
        }
    }

    /// No retries (`retries: {}`, or a direct response).
    pub fn off() -> Retry {
        Retry { attempts: 0, ..Retry::istio_default() }
    }
}

/// Changes to path and authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// The new path; the query stays.
    pub path: Option<PathRewrite>,
    /// The new authority.
    pub authority: Option<String>,
}

/// How a path changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathRewrite {
    /// The matched prefix (of `from_len` bytes) gives way to `with`.
    Prefix {
        /// Bytes of the matched prefix.
        from_len: usize,
        /// What stands there instead.
        with: String,
    },
    /// The whole path.
    Full(String),
    /// Every match of the RE2 `pattern` on the path gives way to `with`, `\1` naming groups.
    Regex {
        /// Known to compile.
        pattern: String,
        /// The substitution.
        with: String,
    },
}

/// A 3xx answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// The new path; `None`: as it was.
    pub path: Option<PathRewrite>,
    /// The new authority, else the request's.
    pub authority: Option<String>,
    /// The new port.
    pub port: Option<RedirectPort>,
    /// `http` or `https`, else the request's.
    pub scheme: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
    /// Changes to the response head.
    pub headers: MessageOps,
}

/// The port of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The default of the scheme (so none is written).
    FromProtocol,
    /// That of the request.
    FromRequest,
}

/// An answer from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// At most 1 MiB.
    pub body: Vec<u8>,
    /// Changes to the response head.
    pub headers: MessageOps,
}
