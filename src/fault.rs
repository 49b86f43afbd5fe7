//! Everything that can go wrong with an exchange, and what follows from it.
//!
//! One enum, one exhaustive table. Statuses and flags are Envoy's and Istio's where they exist, because
//! that is what people debug with. There is no `Other`: a new fault does not compile until it has a row.

use bytes::Bytes;
use http::HeaderMap;
use std::borrow::Cow;
use std::fmt;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller.
    Downstream,
    /// The destination.
    Upstream,
    /// This process.
    Proxy,
    /// The configuration.
    Operator,
}

/// Where in its life the exchange was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Taking the connection.
    Accept,
    /// The TLS handshake.
    Tls,
    /// Reading the request head.
    Head,
    /// Finding a route.
    Route,
    /// Authentication and authorization.
    Auth,
    /// Limits of this process.
    Admit,
    /// Held until a function starts or a slot frees.
    Park,
    /// Choosing an endpoint.
    Pick,
    /// Connecting to it.
    Connect,
    /// Sending the request.
    Send,
    /// Waiting for the response head.
    Wait,
    /// Carrying the response body.
    Body,
}

/// Whether the request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Nothing reached an application: always.
    Always,
    /// Something may have: only if the request is idempotent.
    IfIdempotent,
    /// It would not help, or it must not.
    Never,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Who is to blame.
    pub blame: Blame,
    /// Where it happened.
    pub stage: Stage,
    /// What the client gets; 0: nobody is there to get it.
    pub status: u16,
    /// The same for a gRPC client.
    pub grpc: u8,
    /// Whether the request may be sent again.
    pub replay: Replay,
    /// Envoy's short response flag; empty: none.
    pub flag: &'static str,
    /// Envoy's response code details.
    pub details: &'static str,
    /// The body of the answer; empty: no body.
    pub body: &'static str,
}

macro_rules! faults {
    ($( $(#[$doc:meta])+ $name:ident: $blame:ident, $stage:ident, $status:literal, $grpc:literal, $replay:ident,
        $flag:literal, $details:literal, $body:literal; )+) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $( $(#[$doc])+ $name, )+ }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Kind] = &[ $( Kind::$name, )+ ];

            /// The kind's row.
            pub const fn row(self) -> &'static Row {
                match self {
                    $( Kind::$name => &Row {
                        blame: Blame::$blame, stage: Stage::$stage, status: $status, grpc: $grpc,
                        replay: Replay::$replay, flag: $flag, details: $details, body: $body,
                    }, )+
                }
            }

            /// The name in logs and metrics: as the variant.
            pub const fn name(self) -> &'static str {
                match self { $( Kind::$name => stringify!($name), )+ }
            }
        }
    };
}

faults! {
    /// The head is not HTTP, or says something that must not be forwarded.
    BadRequest: Downstream, Head, 400, 13, Never, "DPE", "http1.codec_error", "bad request";
    /// A transfer coding this proxy does not speak.
    BadTransferCoding: Downstream, Head, 501, 12, Never, "DPE", "http1.invalid_transfer_encoding", "unsupported transfer coding";
    /// More fields than are taken.
    TooManyFields: Downstream, Head, 431, 8, Never, "DPE", "too_many_headers", "too many header fields";
    /// The head is larger than is taken.
    HeadTooLarge: Downstream, Head, 431, 8, Never, "DPE", "http1.headers_too_large", "request head too large";
    /// The head took too long to come.
    HeadStalled: Downstream, Head, 0, 4, Never, "", "request_header_timeout", "";
    /// The HTTP/2 connection broke the protocol and was ended.
    Http2Violation: Downstream, Head, 0, 13, Never, "DPE", "http2.violation.of.messaging.rule", "";
    /// The HTTP/2 connection asked for more work than anybody needs: resets, CONTINUATION, empty frames.
    Http2Flood: Downstream, Head, 0, 8, Never, "DPE", "http2.flood", "";
    /// CONNECT, which is off.
    ConnectRefused: Downstream, Head, 405, 12, Never, "", "connect_not_allowed", "CONNECT is not allowed";
    /// Plaintext where mutual TLS alone is accepted.
    PlaintextRefused: Downstream, Tls, 0, 16, Never, "NR", "filter_chain_not_found", "";
    /// An application's own TLS where the mesh's, or plaintext, is accepted.
    ForeignTls: Downstream, Tls, 0, 16, Never, "NR", "filter_chain_not_found", "";
    /// No server answers for the name a client asks for.
    UnknownServerName: Downstream, Tls, 0, 12, Never, "NR", "filter_chain_not_found", "";
    /// A client's certificate was refused.
    PeerRefused: Downstream, Tls, 0, 16, Never, "", "tls_peer_certificate_refused", "";
    /// A client's handshake failed.
    HandshakeFailed: Downstream, Tls, 0, 14, Never, "", "tls_handshake_failed", "";
    /// There is no certificate to answer a client's handshake with.
    NoCertificate: Operator, Tls, 0, 14, Never, "", "tls_certificate_missing", "";
    /// As many handshakes are under way as may be.
    HandshakeOverflow: Proxy, Tls, 0, 14, Never, "OM", "tls_handshake_overflow", "";
    /// The connection would be refused now: trust was tightened, or the client's certificate has ended.
    TrustEnded: Downstream, Auth, 503, 16, Never, "", "connection_no_longer_trusted", "this connection is no longer trusted; open another";
    /// The port that the request is for takes encrypted connections alone, or plaintext alone.
    PortRefused: Downstream, Auth, 403, 7, Never, "", "peer_authentication_refused", "this port does not take such connections";
    /// The request is for a host of another TLS server, with another certificate or other clients.
    Misdirected: Downstream, Route, 421, 14, Never, "", "misdirected_request", "this connection was opened for another host";
    /// The client went away.
    ClientGone: Downstream, Wait, 0, 1, Never, "DC", "downstream_remote_disconnect", "";
    /// The client's body ended before it was whole.
    RequestCut: Downstream, Send, 400, 1, Never, "DC", "downstream_remote_disconnect", "";
    /// No byte of the request body came for too long.
    RequestStalled: Downstream, Send, 408, 4, Never, "SI", "request_idle_timeout", "request body stalled";
    /// No virtual host or no route matches.
    NoRoute: Operator, Route, 404, 12, Never, "NR", "route_not_found", "";
    /// The mesh listener does not know the host, and may not dial it.
    UnknownHost: Operator, Route, 502, 14, Never, "", "direct_response", "";
    /// A token that does not count; the answer says why.
    BadToken: Downstream, Auth, 401, 16, Never, "", "jwt_authn_access_denied", "Jwt verification fails";
    /// A token that counts elsewhere.
    WrongAudience: Downstream, Auth, 403, 7, Never, "", "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}", "Audiences in Jwt are not allowed";
    /// An AuthorizationPolicy refuses it, or none that there is allows it.
    Forbidden: Downstream, Auth, 403, 7, Never, "", "rbac_access_denied_matched_policy[none]", "RBAC: access denied";
    /// A security object for its destination has errors and was never good, so that everything is refused.
    PolicyUnusable: Operator, Auth, 403, 7, Never, "", "rbac_access_denied_matched_policy[none]", "RBAC: access denied";
    /// The provider of a CUSTOM policy is to see the whole body, which is larger than it may be.
    BodyTooLarge: Downstream, Auth, 413, 8, Never, "", "request_payload_too_large", "Payload Too Large";
    /// The provider of a CUSTOM policy refuses it.
    ProviderDenied: Downstream, Auth, 403, 7, Never, "UAEX", "ext_authz_denied", "";
    /// The provider of a CUSTOM policy cannot be asked, or answers nonsense.
    ProviderFailed: Operator, Auth, 403, 7, Never, "UAEX", "ext_authz_error", "";
    /// The route names a cluster that does not exist.
    NoCluster: Operator, Route, 503, 14, Never, "NC", "cluster_not_found", "";
    /// This process is at its ceiling of requests.
    Overloaded: Proxy, Admit, 503, 14, Never, "OM", "overload", "overloaded";
    /// The memory that this process may have is nearly used up.
    MemoryShort: Proxy, Admit, 503, 14, Never, "OM", "overload_memory", "short of memory";
    /// As many requests wait for the function as may.
    HoldFull: Proxy, Park, 503, 14, Never, "UO", "hold_queue_full", "too many requests are waiting for this function";
    /// Requests that wait for the function keep as many bytes as they may.
    HoldBytesFull: Proxy, Park, 503, 14, Never, "UO", "hold_bytes_full", "requests that wait for this function keep too many bytes";
    /// As much is held in this process as may be, of all functions together.
    HoldCeiling: Proxy, Park, 503, 14, Never, "UO", "hold_ceiling", "too many requests are waiting in this proxy";
    /// The deadline is sooner than an instance can be expected; one is started for those who come later.
    StartTooLate: Proxy, Park, 504, 4, Never, "UT", "hold_deadline_too_short", "the function would start too late for this request's deadline; it is being started";
    /// More requests wait at max-scale than can be served before this one's deadline.
    WaitTooLong: Proxy, Park, 503, 14, Never, "UO", "hold_wait_too_long", "too many requests are waiting for this function to serve this one before its deadline";
    /// The deadline passed while the request was held.
    HoldTimeout: Proxy, Park, 504, 4, Never, "UT", "hold_timeout", "upstream request timeout";
    /// The request was held for as long as any may be.
    HoldAge: Proxy, Park, 504, 4, Never, "UT", "hold_age", "upstream request timeout";
    /// The request waits for a slot that an exchange holds which waits for this request.
    WaitsForItself: Operator, Park, 508, 9, Never, "UO", "function_waits_for_itself", "this call would wait for a slot that its own caller holds: the functions call each other in a circle";
    /// A health check of a function at zero, which wakes nothing.
    HealthCheckAtZero: Downstream, Park, 503, 14, Never, "UH", "health_check_at_zero", "the function is at zero; a health check does not start it";
    /// The deadline passed while an instance was started and did not listen yet.
    ListensLate: Upstream, Park, 504, 4, Never, "UT", "function_listens_late", "the function was started and did not listen on its port in time for this request";
    /// The function was started, and never listened on its port.
    NeverListened: Upstream, Park, 503, 14, Never, "UH", "function_never_listened", "the function did not listen on its port";
    /// The function did not become ready.
    NeverReady: Upstream, Park, 503, 14, Never, "UH", "function_not_ready", "the function did not become ready";
    /// The function exits instead of becoming ready.
    Crashed: Upstream, Park, 503, 14, Never, "UF", "function_crashed", "the function crashed while starting";
    /// The function listens, and exits before it is ready or right after.
    ExitedEarly: Upstream, Park, 503, 14, Never, "UF", "function_exited_early", "the function opened its port and exited at once";
    /// The function crashed at every one of its last starts; nothing is started for a while.
    CrashLoop: Upstream, Park, 503, 14, Never, "UF", "function_crash_loop", "the function crashes whenever it is started; it is tried again later";
    /// The function becomes ready and exits, again and again; nothing is started for a while.
    Flapping: Upstream, Park, 503, 14, Never, "UF", "function_flapping", "the function becomes ready and exits again and again; it is tried again later";
    /// The function used more memory than it may, and was killed for it.
    OutOfMemory: Upstream, Park, 503, 14, Never, "UF", "function_out_of_memory", "the function was killed because it used more memory than it may";
    /// Another process took the port that was chosen for the function.
    PortTaken: Upstream, Park, 503, 14, Never, "UF", "function_port_taken", "the port chosen for the function was taken by another process";
    /// The function's command cannot be run: it is not there, or not a program.
    CannotStart: Operator, Park, 503, 14, Never, "UH", "function_cannot_start", "the function's command cannot be run";
    /// As many instances were started lately as may be.
    StartsLimited: Proxy, Park, 503, 14, Never, "UO", "function_starts_limited", "too many functions were started lately";
    /// The function's command may not be run on this host.
    NotRunnable: Operator, Park, 503, 14, Never, "UH", "function_not_runnable", "the function may not be run here; the proxy's log says which flag allows it";
    /// The function was removed while the request was held.
    Removed: Operator, Park, 503, 14, Never, "UH", "function_removed", "the function was removed";
    /// No endpoint is healthy.
    NoHealthyUpstream: Upstream, Pick, 503, 14, Never, "UH", "no_healthy_upstream", "no healthy upstream";
    /// `http2MaxRequests` is reached.
    RequestOverflow: Operator, Pick, 503, 14, Never, "UO", "overflow", "upstream connect error or disconnect/reset before headers. reset reason: overflow";
    /// `http1MaxPendingRequests` is reached.
    PendingOverflow: Operator, Pick, 503, 14, Never, "UO", "overflow", "upstream connect error or disconnect/reset before headers. reset reason: overflow";
    /// The endpoint refused the connection or could not be reached.
    ConnectFailure: Upstream, Connect, 503, 14, Always, "UF", "upstream_reset_before_response_started{connection_failure}", "upstream connect error or disconnect/reset before headers. reset reason: connection failure";
    /// The endpoint did not accept within connectTimeout.
    ConnectTimeout: Upstream, Connect, 503, 14, Always, "UF", "upstream_reset_before_response_started{connection_timeout}", "upstream connect error or disconnect/reset before headers. reset reason: connection timeout";
    /// The TLS handshake with the endpoint failed; the reason says how.
    UpstreamTls: Upstream, Connect, 503, 14, Always, "UF", "upstream_reset_before_response_started{remote_connection_failure,TLS_error}", "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, transport failure reason: TLS_error";
    /// The endpoint is to be spoken to with TLS, and what it takes is missing here; nothing goes in plaintext.
    UpstreamTlsUnprepared: Operator, Connect, 503, 14, Never, "UF", "upstream_tls_unprepared", "the proxy has no usable certificate for this destination; its log says why";
    /// The connection ended before the request was written.
    NotSent: Upstream, Send, 503, 14, Always, "UC", "upstream_reset_before_response_started{connection_termination}", "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    /// The upstream refused the stream without looking at it.
    StreamRefused: Upstream, Wait, 503, 14, Always, "UR", "upstream_reset_before_response_started{remote_reset}", "upstream connect error or disconnect/reset before headers. reset reason: remote refused stream reset";
    /// The connection ended before a response head.
    Disconnected: Upstream, Wait, 503, 14, IfIdempotent, "UC", "upstream_reset_before_response_started{connection_termination}", "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    /// The upstream reset the stream before a response head.
    StreamReset: Upstream, Wait, 503, 14, IfIdempotent, "UR", "upstream_reset_before_response_started{remote_reset}", "upstream connect error or disconnect/reset before headers. reset reason: remote reset";
    /// The instance of a function exited before a response head.
    InstanceExited: Upstream, Wait, 503, 14, IfIdempotent, "UC", "function_exited", "the function exited while it worked on this request";
    /// The upstream's answer is not HTTP.
    BadResponse: Upstream, Wait, 502, 13, IfIdempotent, "UPE", "upstream_reset_before_response_started{protocol_error}", "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
    /// perTryTimeout passed.
    TryTimeout: Upstream, Wait, 504, 4, IfIdempotent, "UT", "upstream_per_try_timeout", "upstream request timeout";
    /// The route's timeout passed.
    RouteTimeout: Upstream, Wait, 504, 4, Never, "UT", "response_timeout", "upstream request timeout";
    /// The function's timeoutSeconds passed.
    FunctionTimeout: Upstream, Wait, 504, 4, Never, "UT", "function_timeout", "request timeout";
    /// The response body broke off.
    ResponseCut: Upstream, Body, 0, 14, Never, "UC", "upstream_reset_after_response_started{connection_termination}", "";
    /// A deadline passed while the response body was carried.
    ResponseTimeout: Upstream, Body, 0, 4, Never, "UT", "response_timeout", "";
    /// The client took nothing of its answers for too long.
    ResponseStalled: Downstream, Body, 0, 4, Never, "SI", "downstream_flush_timeout", "";
    /// The upgraded connection could not be joined.
    UpgradeFailed: Upstream, Body, 0, 13, Never, "UPE", "upgrade_failed", "";
}

/// What the answer says beyond the fault's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// Seconds after which it is worth trying again; 0: not said.
    pub retry_after: u16,
    /// The status in place of the row's; 0: the row's.
    pub status: u16,
}

/// A fault with what is only known where it happened.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// What else the answer says.
    pub advice: Advice,
    /// The transport's own words, for the log: `connection refused (os error 111)`.
    pub reason: Option<Box<str>>,
    /// What stands in place of the row's words.
    pub told: Option<Box<Told>>,
}

/// An answer whose words are only known where the fault happened.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Response code details; empty: the row's.
    pub details: Cow<'static, str>,
    /// The body; `None`: the row's.
    pub body: Option<Bytes>,
    /// Further fields.
    pub headers: HeaderMap,
}

impl Fault {
    /// A fault with the transport's own words.
    pub fn because(kind: Kind, reason: impl fmt::Display) -> Fault {
        Fault { reason: Some(reason.to_string().into_boxed_str()), ..Fault::from(kind) }
    }

    /// A fault whose answer says more than its row.
    pub fn advised(kind: Kind, advice: Advice) -> Fault {
        Fault { kind, advice, reason: None, told: None }
    }

    /// A fault that answers in words of its own.
    pub fn told(kind: Kind, told: Told) -> Fault {
        Fault { told: Some(Box::new(told)), ..Fault::from(kind) }
    }
}

impl From<Kind> for Fault {
    fn from(kind: Kind) -> Fault {
        Fault::advised(kind, Advice::default())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.row().details)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

/// The table as Markdown, for the README and for `tests`.
pub fn table() -> String {
    let mut out = String::from(
        "| fault | blame | stage | HTTP | gRPC | flag | replay | details |\n|---|---|---|---|---|---|---|---|\n",
    );
    for kind in Kind::ALL {
        let row = kind.row();
        let status = if row.status == 0 { "-".to_owned() } else { row.status.to_string() };
        let flag = if row.flag.is_empty() { "-" } else { row.flag };
        out.push_str(&format!(
            "| {} | {:?} | {:?} | {status} | {} | {flag} | {:?} | `{}` |\n",
            kind.name(),
            row.blame,
            row.stage,
            row.grpc,
            row.replay,
            row.details
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_is_always_allowed_only_where_nothing_can_have_reached_an_application() {
        for kind in Kind::ALL {
            let row = kind.row();
            if row.replay == Replay::Always {
                assert_eq!(row.blame, Blame::Upstream, "{kind:?}");
                assert!(matches!(row.stage, Stage::Connect | Stage::Send | Stage::Wait), "{kind:?}");
            }
        }
    }

    #[test]
    fn every_fault_that_answers_has_an_error_status_and_a_grpc_error() {
        for kind in Kind::ALL {
            let row = kind.row();
            assert!(row.status == 0 || (400..=599).contains(&row.status), "{kind:?}");
            assert!((1..=16).contains(&row.grpc), "{kind:?}");
            assert!(!row.details.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn statuses_and_flags_are_those_people_debug_with() {
        let rows = [
            (Kind::NoRoute, 404, "NR"),
            (Kind::NoCluster, 503, "NC"),
            (Kind::NoHealthyUpstream, 503, "UH"),
            (Kind::RequestOverflow, 503, "UO"),
            (Kind::ConnectFailure, 503, "UF"),
            (Kind::Disconnected, 503, "UC"),
            (Kind::RouteTimeout, 504, "UT"),
            (Kind::UnknownHost, 502, ""),
            (Kind::ClientGone, 0, "DC"),
        ];
        for (kind, status, flag) in rows {
            assert_eq!((kind.row().status, kind.row().flag), (status, flag), "{kind:?}");
        }
    }
}
