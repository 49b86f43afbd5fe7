//! The fields of kinds that do not act yet.

use crate::api::istio::destination_rule::CONNECTION_POOL;
use crate::api::istio::gateway::TLS;
use crate::api::istio::security::{SELECTOR, TARGET};
use crate::api::istio::service_entry::WORKLOAD;
use crate::api::shape::Shape::{self, Any, Bool, Choice, Duration, Float, Int, List, Map, Object, Text};
use crate::api::shape::{COUNT, Field, LABELS, PORT, TEXTS, acts, required, stray};

const PROVIDERS: Shape = List(&Object(&[required("name", Text)]));
const SIDES: Shape = Choice(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]);

pub(crate) const TELEMETRY: &[Field] = &[
    acts("selector", SELECTOR),
    acts("targetRef", Object(TARGET)),
    acts("targetRefs", List(&Object(TARGET))),
    acts("accessLogging", List(&Object(ACCESS_LOGGING))),
    acts("tracing", List(&Object(TRACING))),
    acts("metrics", List(&Object(METRICS))),
];

const ACCESS_LOGGING: &[Field] = &[
    acts("match", Object(&[acts("mode", SIDES)])),
    acts("providers", PROVIDERS),
    acts("disabled", Bool),
    acts("filter", Object(&[acts("expression", Text)])),
    stray("file", "write `providers: [{name: envoy}]`, which logs to standard output"),
];

const TRACING: &[Field] = &[
    acts("match", Object(&[acts("mode", SIDES)])),
    acts("providers", PROVIDERS),
    acts("randomSamplingPercentage", Float(0.0, 100.0)),
    acts("disableSpanReporting", Bool),
    acts("disableContextPropagation", Bool),
    acts("enableIstioTags", Bool),
    acts("useRequestIdForTraceSampling", Bool),
    acts("customTags", Map(&Object(CUSTOM_TAG))),
];

const CUSTOM_TAG: &[Field] = &[
    acts("literal", Object(&[required("value", Text)])),
    acts("formatter", Object(&[required("value", Text)])),
    acts("environment", Object(&[required("name", Text), acts("defaultValue", Text)])),
    acts("header", Object(&[required("name", Text), acts("defaultValue", Text)])),
];

const METRIC_NAMES: &[&str] = &[
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
];

const METRIC_MATCH: Shape =
    Object(&[acts("metric", Choice(METRIC_NAMES)), acts("customMetric", Text), acts("mode", SIDES)]);

const METRICS: &[Field] = &[
    acts("providers", PROVIDERS),
    acts("reportingInterval", Duration),
    acts(
        "overrides",
        List(&Object(&[
            acts("match", METRIC_MATCH),
            acts("disabled", Bool),
            acts(
                "tagOverrides",
                Map(&Object(&[acts("operation", Choice(&["UPSERT", "REMOVE"])), acts("value", Text)])),
            ),
        ])),
    ),
];

const CAPTURE: Shape = Choice(&["DEFAULT", "IPTABLES", "NONE"]);
const SIDECAR_PORT: Shape =
    Object(&[acts("number", PORT), acts("name", Text), acts("protocol", Text), acts("targetPort", PORT)]);

pub(crate) const SIDECAR: &[Field] = &[
    acts("workloadSelector", Object(&[acts("labels", LABELS)])),
    acts(
        "ingress",
        List(&Object(&[
            required("port", SIDECAR_PORT),
            acts("bind", Text),
            acts("captureMode", CAPTURE),
            acts("defaultEndpoint", Text),
            acts("tls", Object(TLS)),
            acts("connectionPool", Object(CONNECTION_POOL)),
        ])),
    ),
    acts(
        "egress",
        List(&Object(&[
            acts("port", SIDECAR_PORT),
            acts("bind", Text),
            acts("captureMode", CAPTURE),
            required("hosts", TEXTS),
        ])),
    ),
    acts("inboundConnectionPool", Object(CONNECTION_POOL)),
    acts(
        "outboundTrafficPolicy",
        Object(&[
            acts("mode", Choice(&["REGISTRY_ONLY", "ALLOW_ANY"])),
            acts(
                "egressProxy",
                Object(&[
                    required("host", Text),
                    acts("subset", Text),
                    acts("port", Object(&[acts("number", PORT)])),
                ]),
            ),
        ]),
    ),
];

pub(crate) const WORKLOAD_ENTRY: &[Field] = WORKLOAD;

const SECONDS: Shape = Int(0, i32::MAX as i64);

pub(crate) const WORKLOAD_GROUP: &[Field] = &[
    acts("metadata", Object(&[acts("labels", LABELS), acts("annotations", LABELS)])),
    required("template", Object(WORKLOAD)),
    acts(
        "probe",
        Object(&[
            acts("initialDelaySeconds", SECONDS),
            acts("timeoutSeconds", SECONDS),
            acts("periodSeconds", SECONDS),
            acts("successThreshold", SECONDS),
            acts("failureThreshold", SECONDS),
            acts(
                "httpGet",
                Object(&[
                    acts("path", Text),
                    required("port", PORT),
                    acts("host", Text),
                    acts("scheme", Choice(&["HTTP", "HTTPS"])),
                    acts("httpHeaders", List(&Object(&[acts("name", Text), acts("value", Text)]))),
                ]),
            ),
            acts("tcpSocket", Object(&[acts("host", Text), required("port", PORT)])),
            acts("exec", Object(&[required("command", TEXTS)])),
            acts("grpc", Object(&[acts("port", PORT), acts("service", Text)])),
        ]),
    ),
];

pub(crate) const PROXY_CONFIG: &[Field] = &[
    acts("selector", SELECTOR),
    acts("concurrency", COUNT),
    acts("environmentVariables", Map(&Text)),
    acts("image", Object(&[acts("imageType", Text)])),
];

pub(crate) const ENVOY_FILTER: &[Field] = &[
    acts("workloadSelector", Object(&[acts("labels", LABELS)])),
    acts("targetRefs", List(&Object(TARGET))),
    acts("configPatches", List(&Object(&[acts("applyTo", Text), acts("match", Any), acts("patch", Any)]))),
    acts("priority", Int(i32::MIN as i64, i32::MAX as i64)),
];

pub(crate) const WASM_PLUGIN: &[Field] = &[
    acts("selector", SELECTOR),
    acts("targetRef", Object(TARGET)),
    acts("targetRefs", List(&Object(TARGET))),
    required("url", Text),
    acts("sha256", Text),
    acts("imagePullPolicy", Choice(&["UNSPECIFIED_POLICY", "IfNotPresent", "Always"])),
    acts("imagePullSecret", Text),
    acts("verificationKey", Text),
    acts("pluginConfig", Any),
    acts("pluginName", Text),
    acts("phase", Choice(&["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"])),
    acts("priority", Any),
    acts("failStrategy", Choice(&["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"])),
    acts("vmConfig", Any),
    acts("match", Any),
    acts("type", Choice(&["UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"])),
];
