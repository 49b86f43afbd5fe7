//! The fields of a DestinationRule.

use crate::api::shape::Shape::{
    self, Bool, Choice, Duration, DurationOrZero, Float, Int, List, Map, Object, Text,
};
use crate::api::shape::{COUNT, Field, INT, LABELS, PORT, TEXTS, acts, deprecated, inert, required};

pub(crate) const SPEC: &[Field] = &[
    required("host", Text),
    acts("trafficPolicy", Object(TRAFFIC_POLICY)),
    acts("subsets", List(&Object(SUBSET))),
    inert("exportTo", TEXTS, "limiting visibility to namespaces"),
    inert("workloadSelector", Object(&[acts("matchLabels", LABELS)]), "limiting a rule to some callers"),
];

const SUBSET: &[Field] =
    &[required("name", Text), acts("labels", LABELS), acts("trafficPolicy", Object(TRAFFIC_POLICY))];

const TRAFFIC_POLICY: &[Field] = &[
    acts("loadBalancer", Object(LOAD_BALANCER)),
    acts("connectionPool", Object(CONNECTION_POOL)),
    acts("outlierDetection", Object(OUTLIER_DETECTION)),
    acts("tls", Object(TLS)),
    acts("portLevelSettings", List(&Object(PORT_LEVEL))),
    inert("tunnel", Object(TUNNEL), "tunnelling"),
    inert("proxyProtocol", Object(&[acts("version", Choice(&["V1", "V2"]))]), "the PROXY protocol"),
    inert("retryBudget", Object(RETRY_BUDGET), "a retry budget of its own"),
];

const PORT_LEVEL: &[Field] = &[
    required("port", Object(&[required("number", PORT)])),
    acts("loadBalancer", Object(LOAD_BALANCER)),
    acts("connectionPool", Object(CONNECTION_POOL)),
    acts("outlierDetection", Object(OUTLIER_DETECTION)),
    acts("tls", Object(TLS)),
];

/// `loadBalancer.simple`.
const SIMPLE: Shape =
    Choice(&["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]);

const LOAD_BALANCER: &[Field] = &[
    acts("simple", SIMPLE),
    inert("consistentHash", Object(CONSISTENT_HASH), "consistent hashing"),
    inert("localityLbSetting", Object(LOCALITY), "locality-aware balancing"),
    inert("zoneAwareLbSetting", Object(ZONE_AWARE), "zone-aware balancing"),
    inert("warmup", Object(WARMUP), "warm-up of new endpoints"),
    inert("warmupDurationSecs", Duration, "warm-up of new endpoints"),
];

const CONSISTENT_HASH: &[Field] = &[
    acts("httpHeaderName", Text),
    acts(
        "httpCookie",
        Object(&[
            required("name", Text),
            acts("path", Text),
            acts("ttl", DurationOrZero),
            acts("attributes", List(&Object(&[required("name", Text), acts("value", Text)]))),
        ]),
    ),
    acts("useSourceIp", Bool),
    acts("httpQueryParameterName", Text),
    acts("ringHash", Object(&[acts("minimumRingSize", COUNT)])),
    acts("maglev", Object(&[acts("tableSize", COUNT)])),
    deprecated("minimumRingSize", COUNT, "`ringHash: {minimumRingSize: …}`"),
];

const FAILOVER: Shape = List(&Object(&[acts("from", Text), acts("to", Text)]));

const LOCALITY: &[Field] = &[
    acts("enabled", Bool),
    acts("distribute", List(&Object(&[acts("from", Text), acts("to", Map(&COUNT))]))),
    acts("failover", FAILOVER),
    acts("failoverPriority", TEXTS),
];

const ZONE_AWARE: &[Field] = &[
    acts("enabled", Bool),
    acts("failover", FAILOVER),
    acts("failoverPriority", TEXTS),
    acts("minClusterSize", Int(1, u32::MAX as i64)),
];

const WARMUP: &[Field] = &[
    required("duration", Duration),
    acts("minimumPercent", Float(0.0, 100.0)),
    acts("aggression", Float(0.0, f64::MAX)),
];

pub(crate) const CONNECTION_POOL: &[Field] = &[
    acts(
        "tcp",
        Object(&[
            acts("maxConnections", INT),
            acts("connectTimeout", Duration),
            acts("maxConnectionDuration", Duration),
            inert("tcpKeepalive", Object(KEEPALIVE), "TCP keep-alive"),
            inert("idleTimeout", DurationOrZero, "an idle timeout of TCP proxying"),
        ]),
    ),
    acts(
        "http",
        Object(&[
            acts("http1MaxPendingRequests", INT),
            acts("http2MaxRequests", INT),
            acts("maxRequestsPerConnection", INT),
            acts("maxRetries", INT),
            acts("idleTimeout", Duration),
            acts("maxConcurrentStreams", INT),
            acts("h2UpgradePolicy", Choice(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"])),
            inert("useClientProtocol", Bool, "speaking the client's protocol upstream"),
            inert("http2KeepAlive", Object(HTTP2_KEEPALIVE), "HTTP/2 keep-alive"),
        ]),
    ),
];

const KEEPALIVE: &[Field] = &[acts("probes", COUNT), acts("time", Duration), acts("interval", Duration)];
const HTTP2_KEEPALIVE: &[Field] = &[acts("interval", Duration), acts("timeout", Duration)];

const OUTLIER_DETECTION: &[Field] = &[
    acts("consecutive5xxErrors", COUNT),
    acts("consecutiveGatewayErrors", COUNT),
    deprecated("consecutiveErrors", INT, "`consecutive5xxErrors`"),
    inert("consecutiveLocalOriginFailures", COUNT, "counting local failures apart"),
    inert("splitExternalLocalOriginErrors", Bool, "counting local failures apart"),
    acts("interval", Duration),
    acts("baseEjectionTime", Duration),
    acts("maxEjectionPercent", INT),
    acts("minHealthPercent", INT),
    inert("outlierDetectionHttpErrorCodes", List(&Int(100, 599)), "counting given status codes"),
];

const TLS: &[Field] = &[
    acts("mode", Choice(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
    acts("clientCertificate", Text),
    acts("privateKey", Text),
    acts("caCertificates", Text),
    acts("caCrl", Text),
    acts("credentialName", Text),
    acts("subjectAltNames", TEXTS),
    acts("sni", Text),
    acts("insecureSkipVerify", Bool),
];

const TUNNEL: &[Field] =
    &[acts("protocol", Text), required("targetHost", Text), required("targetPort", PORT)];

const RETRY_BUDGET: &[Field] = &[
    acts("percent", Float(0.0, 100.0)),
    acts("minRetryConcurrency", COUNT),
    acts("budgetInterval", DurationOrZero),
];
