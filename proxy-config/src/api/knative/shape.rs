//! The fields of a Knative Service, and where its annotations are often put by mistake.

use crate::api::shape::Shape::{self, Any, Bool, Int, List, Map, Object, Text, TextOrInt};
use crate::api::shape::{Field, INT, LABELS, PORT, TEXTS, acts, ignored, inert, misplaced, required};

const MIN: &str = "write the annotation `autoscaling.knative.dev/min-scale: \"1\"` (a string) under \
                   spec.template.metadata.annotations";
const MAX: &str = "write the annotation `autoscaling.knative.dev/max-scale: \"10\"` (a string) under \
                   spec.template.metadata.annotations";
const TO_TEMPLATE_SPEC: &str = "it belongs to spec.template.spec";
const TO_TEMPLATE_METADATA: &str = "it belongs to spec.template.metadata";

pub(crate) const SPEC: &[Field] = &[
    required("template", Object(TEMPLATE)),
    acts("traffic", List(&Object(TRAFFIC))),
    misplaced("minScale", MIN),
    misplaced("maxScale", MAX),
    misplaced("min-scale", MIN),
    misplaced("max-scale", MAX),
    misplaced("containerConcurrency", TO_TEMPLATE_SPEC),
    misplaced("timeoutSeconds", TO_TEMPLATE_SPEC),
    misplaced("containers", TO_TEMPLATE_SPEC),
    misplaced("annotations", TO_TEMPLATE_METADATA),
];

const TEMPLATE: &[Field] = &[
    acts("metadata", Object(TEMPLATE_METADATA)),
    required("spec", Object(TEMPLATE_SPEC)),
    misplaced("annotations", TO_TEMPLATE_METADATA),
    misplaced("labels", TO_TEMPLATE_METADATA),
    misplaced("containers", TO_TEMPLATE_SPEC),
];

const TEMPLATE_METADATA: &[Field] = &[
    acts("name", Text),
    acts("annotations", LABELS),
    acts("labels", LABELS),
    ignored("namespace", Text),
    ignored("creationTimestamp", Any),
];

const TEMPLATE_SPEC: &[Field] = &[
    required("containers", List(&Object(CONTAINER))),
    acts("containerConcurrency", INT),
    acts("timeoutSeconds", INT),
    inert("responseStartTimeoutSeconds", INT, "a timeout for the first byte"),
    inert("idleTimeoutSeconds", INT, "a timeout between bytes"),
    inert("volumes", List(&Any), "volumes"),
    inert("initContainers", List(&Any), "init containers"),
    acts("serviceAccountName", Text),
    ignored("imagePullSecrets", Any),
    ignored("enableServiceLinks", Bool),
    ignored("automountServiceAccountToken", Bool),
    ignored("affinity", Any),
    ignored("tolerations", Any),
    ignored("nodeSelector", Any),
    ignored("topologySpreadConstraints", Any),
    ignored("runtimeClassName", Text),
    ignored("securityContext", Any),
    ignored("priorityClassName", Text),
    ignored("schedulerName", Text),
    ignored("hostAliases", Any),
    ignored("dnsPolicy", Text),
    ignored("dnsConfig", Any),
    ignored("shareProcessNamespace", Bool),
    misplaced("annotations", TO_TEMPLATE_METADATA),
    misplaced("labels", TO_TEMPLATE_METADATA),
    misplaced("minScale", MIN),
    misplaced("maxScale", MAX),
];

const CONTAINER: &[Field] = &[
    acts("name", Text),
    acts("image", Text),
    acts("command", TEXTS),
    acts("args", TEXTS),
    acts("env", List(&Object(ENV))),
    acts("ports", List(&Object(CONTAINER_PORT))),
    acts("startupProbe", PROBE),
    acts("readinessProbe", PROBE),
    acts("livenessProbe", PROBE),
    inert("envFrom", List(&Any), "environment from ConfigMaps and Secrets"),
    inert("volumeMounts", List(&Any), "volumes"),
    inert("workingDir", Text, "a working directory (a local process starts in that of its YAML file)"),
    acts("resources", Object(RESOURCES)),
    ignored("imagePullPolicy", Text),
    ignored("securityContext", Any),
    ignored("terminationMessagePath", Text),
    ignored("terminationMessagePolicy", Text),
    misplaced("containerConcurrency", TO_TEMPLATE_SPEC),
    misplaced("timeoutSeconds", TO_TEMPLATE_SPEC),
];

const AMOUNTS: Shape = Map(&Shape::Quantity);
const RESOURCES: &[Field] = &[acts("limits", AMOUNTS), acts("requests", AMOUNTS), ignored("claims", Any)];

const ENV: &[Field] = &[
    required("name", Text),
    acts("value", Text),
    inert("valueFrom", Any, "environment from ConfigMaps and Secrets"),
];

const CONTAINER_PORT: &[Field] =
    &[acts("containerPort", PORT), acts("name", Text), ignored("protocol", Text)];

const SECONDS: Shape = Int(0, 3600);

const PROBE: Shape = Object(&[
    acts(
        "httpGet",
        Object(&[
            acts("path", Text),
            acts("port", TextOrInt),
            acts("scheme", Shape::Choice(&["HTTP", "HTTPS"])),
            acts("host", Text),
            acts("httpHeaders", List(&Object(&[required("name", Text), required("value", Text)]))),
        ]),
    ),
    acts("tcpSocket", Object(&[acts("port", TextOrInt), acts("host", Text)])),
    acts("exec", Object(&[acts("command", TEXTS)])),
    acts("grpc", Object(&[acts("port", TextOrInt), acts("service", Text)])),
    acts("initialDelaySeconds", SECONDS),
    acts("periodSeconds", SECONDS),
    acts("timeoutSeconds", SECONDS),
    acts("successThreshold", SECONDS),
    acts("failureThreshold", SECONDS),
    acts("terminationGracePeriodSeconds", SECONDS),
]);

const TRAFFIC: &[Field] = &[
    acts("percent", INT),
    acts("tag", Text),
    acts("revisionName", Text),
    acts("latestRevision", Bool),
    acts("configurationName", Text),
    ignored("url", Text),
];
