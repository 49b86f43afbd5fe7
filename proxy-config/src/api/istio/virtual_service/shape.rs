//! The fields of a VirtualService.

use crate::api::shape::Shape::{self, Any, Bool, Choice, Duration, Float, List, Map, Object, Text};
use crate::api::shape::{COUNT, Field, INT, LABELS, PORT, TEXTS, acts, deprecated, inert, required};

pub(crate) const SPEC: &[Field] = &[
    acts("hosts", TEXTS),
    acts("gateways", TEXTS),
    acts("http", List(&Object(HTTP))),
    acts("tls", List(&Object(TLS))),
    inert("tcp", List(&Object(TCP)), "routing of TCP connections"),
    inert("exportTo", TEXTS, "limiting visibility to namespaces"),
];

const HTTP: &[Field] = &[
    acts("name", Text),
    acts("match", List(&Object(MATCH))),
    acts("route", List(&Object(ROUTE))),
    acts("redirect", Object(REDIRECT)),
    acts("directResponse", Object(DIRECT_RESPONSE)),
    inert("delegate", Object(&[acts("name", Text), acts("namespace", Text)]), "delegation"),
    acts("rewrite", Object(REWRITE)),
    acts("timeout", Duration),
    acts("retries", Object(RETRIES)),
    inert("fault", Object(FAULT), "fault injection"),
    inert("mirror", Object(DESTINATION), "traffic mirroring"),
    inert("mirrors", List(&Object(MIRROR)), "traffic mirroring"),
    inert("mirrorPercentage", Object(PERCENT), "traffic mirroring"),
    deprecated("mirrorPercent", COUNT, "`mirrorPercentage: {value: …}`"),
    deprecated("mirror_percent", COUNT, "`mirrorPercentage: {value: …}`"),
    inert("corsPolicy", Object(CORS), "CORS"),
    acts("headers", HEADERS),
];

/// `exact`, `prefix` or `regex`.
pub(crate) const STRING_MATCH: Shape =
    Object(&[acts("exact", Text), acts("prefix", Text), acts("regex", Text)]);

const MATCH: &[Field] = &[
    acts("name", Text),
    acts("uri", STRING_MATCH),
    acts("ignoreUriCase", Bool),
    acts("scheme", STRING_MATCH),
    acts("method", STRING_MATCH),
    acts("authority", STRING_MATCH),
    acts("headers", Map(&STRING_MATCH)),
    acts("withoutHeaders", Map(&STRING_MATCH)),
    acts("queryParams", Map(&STRING_MATCH)),
    acts("port", PORT),
    acts("gateways", TEXTS),
    inert(
        "sourceLabels",
        LABELS,
        "matching on the calling workload (so nothing on the mesh listener matches)",
    ),
    inert(
        "sourceNamespace",
        Text,
        "matching on the calling workload (so nothing on the mesh listener matches)",
    ),
    inert("statPrefix", Text, "statistics of a single route"),
];

// `destination` is required; the decoder says so, with the remedy for a misplaced `weight`.
const ROUTE: &[Field] =
    &[acts("destination", Object(DESTINATION)), acts("weight", INT), acts("headers", HEADERS)];

const DESTINATION: &[Field] =
    &[required("host", Text), acts("subset", Text), acts("port", Object(&[acts("number", PORT)]))];

const OPS: Shape = Object(&[acts("set", Map(&Text)), acts("add", Map(&Text)), acts("remove", TEXTS)]);
const HEADERS: Shape = Object(&[acts("request", OPS), acts("response", OPS)]);

const REDIRECT: &[Field] = &[
    acts("uri", Text),
    acts("prefixRewrite", Text),
    acts("authority", Text),
    acts("port", PORT),
    acts("derivePort", Choice(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
    acts("scheme", Text),
    acts("redirectCode", COUNT),
];

const DIRECT_RESPONSE: &[Field] =
    &[required("status", COUNT), acts("body", Object(&[acts("string", Text), acts("bytes", Text)]))];

const REWRITE: &[Field] = &[
    acts("uri", Text),
    acts("authority", Text),
    acts("uriRegexRewrite", Object(&[acts("match", Text), acts("rewrite", Text)])),
];

const RETRIES: &[Field] = &[
    acts("attempts", INT),
    acts("perTryTimeout", Duration),
    acts("retryOn", Text),
    acts("retryIgnorePreviousHosts", Bool),
    inert("retryRemoteLocalities", Bool, "retrying in other localities"),
    acts("backoff", Duration),
];

const PERCENT: &[Field] = &[acts("value", Float(0.0, 100.0))];

const FAULT: &[Field] = &[
    acts(
        "delay",
        Object(&[
            acts("fixedDelay", Duration),
            acts("exponentialDelay", Duration),
            deprecated("percent", INT, "`percentage: {value: …}`"),
            acts("percentage", Object(PERCENT)),
        ]),
    ),
    acts(
        "abort",
        Object(&[
            acts("httpStatus", INT),
            acts("grpcStatus", Text),
            acts("http2Error", Text),
            acts("percentage", Object(PERCENT)),
        ]),
    ),
];

const MIRROR: &[Field] = &[required("destination", Object(DESTINATION)), acts("percentage", Object(PERCENT))];

const CORS: &[Field] = &[
    acts("allowOrigins", List(&STRING_MATCH)),
    deprecated("allowOrigin", TEXTS, "`allowOrigins: [{exact: …}]`"),
    acts("allowMethods", TEXTS),
    acts("allowHeaders", TEXTS),
    acts("exposeHeaders", TEXTS),
    acts("maxAge", Duration),
    acts("allowCredentials", Bool),
    acts("unmatchedPreflights", Choice(&["UNSPECIFIED", "FORWARD", "IGNORE"])),
];

const L4_ROUTE: &[Field] = &[required("destination", Object(DESTINATION)), acts("weight", INT)];

const TLS: &[Field] = &[
    required(
        "match",
        List(&Object(&[
            required("sniHosts", TEXTS),
            inert(
                "destinationSubnets",
                TEXTS,
                "matching on the address dialled (so the block matches nothing)",
            ),
            acts("port", PORT),
            acts("sourceLabels", LABELS),
            acts("sourceNamespace", Text),
            acts("gateways", TEXTS),
        ])),
    ),
    acts("route", List(&Object(L4_ROUTE))),
];

const TCP: &[Field] = &[
    acts(
        "match",
        List(&Object(&[
            acts("destinationSubnets", TEXTS),
            acts("port", PORT),
            acts("sourceLabels", LABELS),
            acts("sourceNamespace", Text),
            acts("sourceSubnet", Any),
            acts("gateways", TEXTS),
        ])),
    ),
    acts("route", List(&Object(L4_ROUTE))),
];
