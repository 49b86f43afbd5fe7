//! The plain facts of one exchange, filled in along its path and read once at its end.
//!
//! A record is opened when a request head arrives and closed when the last byte of the answer is gone,
//! whatever happened between; metrics and access log are views of it. It decides nothing, and making one
//! never allocates: names are shared, headers are counted references.

mod cold;
mod secured;

pub use cold::{Birth, Cause, ColdStart};
pub use secured::{Certificate, Secured, parts};

use crate::clock::{Duration, Instant};
use crate::fault;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The HTTP version spoken with the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// As access logs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Http10 => "HTTP/1.0",
            Protocol::Http11 => "HTTP/1.1",
            Protocol::Http2 => "HTTP/2",
        }
    }
}

impl From<http::Version> for Protocol {
    fn from(version: http::Version) -> Protocol {
        match version {
            http::Version::HTTP_2 => Protocol::Http2,
            http::Version::HTTP_10 | http::Version::HTTP_09 => Protocol::Http10,
            _ => Protocol::Http11,
        }
    }
}

/// Which way the exchange passes this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// In from outside the mesh.
    Gateway,
    /// From the application here to others.
    Outbound,
    /// From others to the application here.
    Inbound,
}

/// Everything that is known about one exchange.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the request head had arrived.
    pub started: Instant,
    /// From `started` to the last byte of the answer; zero until the record is closed.
    pub duration: Duration,
    /// Spoken with the client.
    pub protocol: Protocol,
    /// Which way it went.
    pub direction: Direction,
    /// The request's method.
    pub method: Method,
    /// Path and query as the client sent them, before any rewrite.
    pub target: Option<PathAndQuery>,
    /// `:authority` or `Host` as the client sent it.
    pub authority: Option<HeaderValue>,
    /// The client's end of its connection.
    pub downstream_remote: SocketAddr,
    /// Our end of the client's connection.
    pub downstream_local: SocketAddr,
    /// What the handshake told, where the client's connection is encrypted.
    pub secured: Option<Arc<Secured>>,
    /// The name of the route taken.
    pub route: Option<Arc<str>>,
    /// The name of the cluster chosen.
    pub cluster: Option<Arc<str>>,
    /// The endpoint of the last attempt.
    pub upstream_host: Option<SocketAddr>,
    /// Our end of the connection to it.
    pub upstream_local: Option<SocketAddr>,
    /// The status sent to the client; 0: none was.
    pub status: u16,
    /// What went wrong last, if anything did.
    pub fault: Option<fault::Kind>,
    /// The transport's own words about it.
    pub reason: Option<Box<str>>,
    /// Envoy's response flags.
    pub flags: Flags,
    /// Envoy's response code details.
    pub details: Cow<'static, str>,
    /// Request body bytes taken from the client.
    pub bytes_received: u64,
    /// Response body bytes given to the client.
    pub bytes_sent: u64,
    /// How long it was held before an instance took it.
    pub hold: Duration,
    /// The cold start it waited for, if it did.
    pub cold: Option<Box<ColdStart>>,
    /// From dispatch to the upstream's response head: `x-envoy-upstream-service-time`.
    pub service_time: Option<Duration>,
    /// Whether the request is gRPC.
    pub grpc: bool,
    /// `grpc-status`, from the response's head or trailers.
    pub grpc_status: Option<u8>,
    /// How often it was sent upstream.
    pub attempts: u8,
    /// The headers that the active access log format wants; empty when logging is off.
    pub captured: Captured,
}

impl Record {
    /// Opens a record. Everything that the connection does not know is absent until it is set.
    #[inline(always)]
    pub fn new(
        started: Instant,
        direction: Direction,
        protocol: Protocol,
        method: Method,
        downstream_remote: SocketAddr,
        downstream_local: SocketAddr,
    ) -> Record {
        Record {
            started,
            duration: Duration::ZERO,
            protocol,
            direction,
            method,
            target: None,
            authority: None,
            downstream_remote,
            downstream_local,
            secured: None,
            route: None,
            cluster: None,
            upstream_host: None,
            upstream_local: None,
            status: 0,
            fault: None,
            reason: None,
            flags: Flags::NONE,
            details: Cow::Borrowed("via_upstream"),
            bytes_received: 0,
            bytes_sent: 0,
            hold: Duration::ZERO,
            cold: None,
            service_time: None,
            grpc: false,
            grpc_status: None,
            attempts: 0,
            captured: Captured::default(),
        }
    }

    /// Notes what went wrong: fault, reason, details and flag, and the status that the fault answers with
    /// (one that answers with nothing leaves the status as it is).
    pub fn fail(&mut self, fault: fault::Fault) {
        let row = fault.kind.row();
        self.fault = Some(fault.kind);
        self.reason = fault.reason;
        self.flags |= Flags::of(row.flag);
        self.details = match fault.told {
            Some(told) if !told.details.is_empty() => told.details,
            _ => Cow::Borrowed(row.details),
        };
        if row.status != 0 {
            self.status = row.status;
        }
    }
}

/// A few header values kept for the access log, in the order of the format's own list of names.
#[derive(Clone, Debug, Default)]
pub struct Captured(Vec<Option<HeaderValue>>);

impl Captured {
    /// Takes the first value of each of `request`, and leaves room for as many as `response` names. Both
    /// empty: nothing is touched, and a record without a log stays small.
    pub fn take(request: &[HeaderName], response: &[HeaderName], headers: &http::HeaderMap) -> Captured {
        let mut values = Vec::with_capacity(request.len() + response.len());
        values.extend(request.iter().map(|name| headers.get(name).cloned()));
        values.extend(response.iter().map(|_| None));
        Captured(values)
    }

    /// Puts the value of slot `index`; a slot that was never made room for is ignored.
    pub fn put(&mut self, index: usize, value: Option<HeaderValue>) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = value;
        }
    }

    /// The value of slot `index`.
    pub fn get(&self, index: usize) -> Option<&HeaderValue> {
        self.0.get(index).and_then(Option::as_ref)
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of Envoy's response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flags(u32);

macro_rules! flags {
    ($( $(#[$doc:meta])+ $short:ident $long:ident; )+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Bit { $( $short, )+ }

        impl Flags {
            $( $(#[$doc])+ pub const $short: Flags = Flags(1 << Bit::$short as u32); )+

            /// Short and long names, in the order in which a set is written.
            const NAMES: &'static [(&'static str, &'static str)] =
                &[ $( (stringify!($short), stringify!($long)), )+ ];
        }
    };
}

flags! {
    /// The local health check failed.
    LH FailedLocalHealthCheck;
    /// No endpoint is healthy.
    UH NoHealthyUpstream;
    /// The upstream took too long.
    UT UpstreamRequestTimeout;
    /// The stream was reset here.
    LR LocalReset;
    /// The upstream reset the stream.
    UR UpstreamRemoteReset;
    /// No connection to the upstream.
    UF UpstreamConnectionFailure;
    /// The upstream closed the connection.
    UC UpstreamConnectionTermination;
    /// A limit of the cluster was reached.
    UO UpstreamOverflow;
    /// No route matches.
    NR NoRouteFound;
    /// A delay was injected.
    DI DelayInjected;
    /// A fault was injected.
    FI FaultInjected;
    /// Rate limited.
    RL RateLimited;
    /// External authorization refused.
    UAEX UnauthorizedExternalService;
    /// The rate limit service failed.
    RLSE RateLimitServiceError;
    /// The client went away.
    DC DownstreamConnectionTermination;
    /// The last allowed try failed too.
    URX UpstreamRetryLimitExceeded;
    /// The stream was idle for too long.
    SI StreamIdleTimeout;
    /// An x-envoy header has a value that means nothing.
    IH InvalidEnvoyRequestHeaders;
    /// The client broke the protocol.
    DPE DownstreamProtocolError;
    /// The upstream stream lived for too long.
    UMSDR UpstreamMaxStreamDurationReached;
    /// Answered from a cache.
    RFCF ResponseFromCacheFilter;
    /// A filter has no configuration.
    NFCF NoFilterConfigFound;
    /// The exchange or connection lived for too long.
    DT DurationTimeout;
    /// The upstream broke the protocol.
    UPE UpstreamProtocolError;
    /// The route's cluster does not exist.
    NC NoClusterFound;
    /// Refused by this process for its own sake.
    OM OverloadManagerTerminated;
    /// A name could not be resolved.
    DF DnsResolutionFailed;
    /// Dropped on purpose to shed load.
    DO DropOverload;
}

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);

    /// The flag with this short name; `NONE` for a name that is empty or unknown.
    pub fn of(short: &str) -> Flags {
        match Flags::NAMES.iter().position(|(name, _)| *name == short) {
            Some(bit) => Flags(1 << bit),
            None => Flags::NONE,
        }
    }

    /// The set as a number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set that `bits` gave.
    pub const fn from_bits(bits: u32) -> Flags {
        Flags(bits)
    }

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The short names of the flags that are set, in Envoy's order.
    pub fn short(self) -> impl Iterator<Item = &'static str> {
        self.names().map(|(short, _)| short)
    }

    /// The long names of the flags that are set, in Envoy's order.
    pub fn long(self) -> impl Iterator<Item = &'static str> {
        self.names().map(|(_, long)| long)
    }

    fn names(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let set = move |bit: &usize| self.0 & (1 << bit) != 0;
        (0..Flags::NAMES.len()).filter(set).map(|bit| Flags::NAMES[bit])
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// Short names joined by `,`; `-` for none.
impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (nth, name) in self.short().enumerate() {
            if nth > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    fn record() -> Record {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        Record::new(crate::clock::now(), Direction::Gateway, Protocol::Http11, Method::GET, address, address)
    }

    #[test]
    fn every_flag_of_the_fault_table_is_known() {
        for kind in Kind::ALL {
            let flag = kind.row().flag;
            assert_eq!(Flags::of(flag).is_empty(), flag.is_empty(), "{kind:?} {flag}");
        }
    }

    #[test]
    fn flags_are_written_in_envoys_order_whatever_order_they_were_set_in() {
        let rows = [
            (Flags::NONE, "-"),
            (Flags::URX | Flags::UF, "UF,URX"),
            (Flags::of("DC") | Flags::of("UH"), "UH,DC"),
            (Flags::of("nonsense"), "-"),
        ];
        for (flags, text) in rows {
            assert_eq!(flags.to_string(), text);
        }
        assert_eq!(Flags::UT.long().collect::<Vec<_>>(), ["UpstreamRequestTimeout"]);
    }

    #[test]
    fn a_fault_after_the_head_keeps_the_status_that_was_sent() {
        let mut record = record();
        record.status = 200;
        record.fail(Kind::ResponseCut.into());
        assert_eq!((record.status, record.flags), (200, Flags::UC));
        record.fail(fault::Fault::because(Kind::ConnectFailure, "refused"));
        assert_eq!((record.status, record.flags), (503, Flags::UC | Flags::UF));
        assert_eq!(record.reason.as_deref(), Some("refused"));
    }
}
