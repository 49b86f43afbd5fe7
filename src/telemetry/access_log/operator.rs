//! The words of Envoy's access log language: `%NAME(parameter):length%`.
//!
//! Knows what each operator means and which headers it needs; does not know how values are written.

use super::secure::Fact;
use super::time::TimeFormat;
use http::HeaderName;

/// What one `%…%` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    StartTime(TimeFormat),
    /// Two sources, the second where the first has nothing; at most so many bytes.
    Header(Source, Option<Source>, Option<usize>),
    Protocol,
    ResponseCode,
    Flags,
    FlagsLong,
    Details,
    TransportFailure,
    BytesReceived,
    BytesSent,
    Duration,
    Route,
    Cluster,
    Attempts,
    GrpcStatus(GrpcForm),
    Address(End, Part),
    Secured(Fact),
    /// Fixed when the format was compiled.
    Fixed(Box<str>),
    /// Part of the language, but this proxy has no value for it.
    Absent,
}

/// Where a header operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Method,
    /// The path as the client sent it.
    Path,
    Authority,
    Status,
    /// `x-envoy-upstream-service-time`, which the record knows better than any header.
    ServiceTime,
    /// A slot of `Captured`.
    Captured(usize),
    /// A header that is never there.
    Nothing,
}

/// Whose address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    UpstreamHost,
    UpstreamLocal,
    DownstreamLocal,
    DownstreamRemote,
}

/// How much of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Host,
    Port,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// The headers a format reads, each once. Response headers come after request headers in `Captured`, so
/// their slots are known only when all request headers are.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) request: Vec<HeaderName>,
    pub(super) response: Vec<HeaderName>,
}

impl Wanted {
    fn slot(names: &mut Vec<HeaderName>, name: HeaderName) -> usize {
        names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
    }
}

/// Response headers count from here until `Operator::settle`.
const RESPONSE: usize = usize::MAX / 2;

/// Operators of Envoy that concern what this proxy does not have.
const ABSENT: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DYNAMIC_METADATA",
    "FILTER_CHAIN_NAME",
    "FILTER_STATE",
    "METADATA",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESPONSE_DURATION",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "STREAM_ID",
    "TRACE_ID",
    "TRAILER",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

impl Operator {
    /// Compiles `NAME`, `(parameter)` and `:length`; the error says what is wrong, without a place.
    pub(super) fn parse(
        name: &str,
        parameter: Option<&str>,
        length: Option<usize>,
        wanted: &mut Wanted,
    ) -> Result<Operator, String> {
        if let Some(operator) = Operator::with_parameter(name, parameter, length, wanted)? {
            return Ok(operator);
        }
        if ABSENT.contains(&name) {
            return Ok(Operator::Absent);
        }
        let operator = Operator::bare(name)
            .or_else(|| address(name))
            .or_else(|| Fact::named(name).map(Operator::Secured))
            .ok_or_else(|| format!("%{name}% is not an access log operator"))?;
        if parameter.is_some() {
            return Err(format!("%{name}% takes no parameter"));
        }
        if length.is_some() {
            return Err(format!("%{name}% takes no length"));
        }
        Ok(operator)
    }

    fn with_parameter(
        name: &str,
        parameter: Option<&str>,
        length: Option<usize>,
        wanted: &mut Wanted,
    ) -> Result<Option<Operator>, String> {
        let named = || parameter.ok_or_else(|| format!("%{name}% needs a name: %{name}(X)%"));
        Ok(Some(match name {
            "REQ" => header(named()?, length, |name| request(name, wanted))?,
            "RESP" => header(named()?, length, |name| response(name, wanted))?,
            "START_TIME" => Operator::StartTime(match parameter.unwrap_or_default() {
                "" => TimeFormat::iso_millis(),
                pattern => TimeFormat::parse(pattern)
                    .map_err(|part| format!("%START_TIME% does not know the time specifier {part:?}"))?,
            }),
            "GRPC_STATUS" => Operator::GrpcStatus(match parameter.unwrap_or("CAMEL_STRING") {
                "CAMEL_STRING" => GrpcForm::Camel,
                "SNAKE_STRING" => GrpcForm::Snake,
                "NUMBER" => GrpcForm::Number,
                other => return Err(format!("%GRPC_STATUS% does not know the form {other:?}")),
            }),
            "ENVIRONMENT" => match std::env::var(named()?) {
                Ok(value) => Operator::Fixed(value.into()),
                Err(_) => Operator::Absent,
            },
            _ => return Ok(None),
        }))
    }

    fn bare(name: &str) -> Option<Operator> {
        Some(match name {
            "PROTOCOL" => Operator::Protocol,
            "RESPONSE_CODE" => Operator::ResponseCode,
            "RESPONSE_FLAGS" => Operator::Flags,
            "RESPONSE_FLAGS_LONG" => Operator::FlagsLong,
            "RESPONSE_CODE_DETAILS" => Operator::Details,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::TransportFailure,
            "BYTES_RECEIVED" => Operator::BytesReceived,
            "BYTES_SENT" => Operator::BytesSent,
            "DURATION" => Operator::Duration,
            "ROUTE_NAME" => Operator::Route,
            "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::Cluster,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::Attempts,
            "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcForm::Number),
            "HOSTNAME" => match std::fs::read_to_string("/proc/sys/kernel/hostname") {
                Ok(name) => Operator::Fixed(name.trim_end().into()),
                Err(_) => Operator::Absent,
            },
            _ => return None,
        })
    }

    /// Gives response headers their slots, behind those of the request.
    pub(super) fn settle(&mut self, requests: usize) {
        if let Operator::Header(first, second, _) = self {
            for source in [Some(first), second.as_mut()].into_iter().flatten() {
                if let Source::Captured(slot) = source
                    && *slot >= RESPONSE
                {
                    *slot = *slot - RESPONSE + requests;
                }
            }
        }
    }
}

/// `UPSTREAM_HOST`, `DOWNSTREAM_REMOTE_PORT`, `DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT` and their like.
fn address(name: &str) -> Option<Operator> {
    let ends = [
        ("UPSTREAM_HOST", End::UpstreamHost),
        ("UPSTREAM_REMOTE_ADDRESS", End::UpstreamHost),
        ("UPSTREAM_LOCAL_ADDRESS", End::UpstreamLocal),
        ("DOWNSTREAM_LOCAL_ADDRESS", End::DownstreamLocal),
        ("DOWNSTREAM_REMOTE_ADDRESS", End::DownstreamRemote),
        // Without proxies in front whose word is taken, both are the same.
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", End::DownstreamRemote),
        ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", End::DownstreamLocal),
    ];
    ends.into_iter().find_map(|(whole, end)| {
        let part = match name.strip_prefix(whole) {
            Some("") => Part::Whole,
            Some("_WITHOUT_PORT") => Part::Host,
            _ if whole.strip_suffix("ADDRESS")? == name.strip_suffix("PORT")? => Part::Port,
            _ => return None,
        };
        Some(Operator::Address(end, part))
    })
}

/// `FIRST` or `FIRST?SECOND`.
fn header(
    names: &str,
    length: Option<usize>,
    mut source: impl FnMut(&str) -> Result<Source, String>,
) -> Result<Operator, String> {
    // The record knows the path before any rewrite, which is what the pair asks for.
    if names.eq_ignore_ascii_case("x-envoy-original-path?:path") {
        return Ok(Operator::Header(Source::Path, None, length));
    }
    let (first, second) = match names.split_once('?') {
        Some((first, second)) => (source(first)?, Some(source(second)?)),
        None => (source(names)?, None),
    };
    Ok(Operator::Header(first, second, length))
}

fn request(name: &str, wanted: &mut Wanted) -> Result<Source, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => Source::Method,
        ":path" => Source::Path,
        ":authority" | "host" => Source::Authority,
        ":scheme" | ":protocol" => Source::Nothing,
        _ => Source::Captured(Wanted::slot(&mut wanted.request, field(name)?)),
    })
}

fn response(name: &str, wanted: &mut Wanted) -> Result<Source, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":status" => Source::Status,
        "x-envoy-upstream-service-time" => Source::ServiceTime,
        _ => Source::Captured(Wanted::slot(&mut wanted.response, field(name)?) + RESPONSE),
    })
}

fn field(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is not a header name"))
}

/// The names of gRPC's statuses, camel and snake.
pub(super) const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];
