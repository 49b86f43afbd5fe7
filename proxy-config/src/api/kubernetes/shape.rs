//! The fields of Kubernetes' kinds. Workloads are read for a few of theirs only, so the rest is not checked.

use crate::api::shape::Shape::{self, Any, Bool, List, Map, Object, Text, TextOrInt};
use crate::api::shape::{Field, INT, LABELS, PORT, TEXTS, acts, ignored, inert, required};

pub(crate) const SERVICE: &[Field] = &[
    acts("ports", List(&Object(SERVICE_PORT))),
    acts("selector", LABELS),
    acts("clusterIP", Text),
    acts("clusterIPs", TEXTS),
    acts("type", Shape::Choice(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])),
    acts("externalName", Text),
    acts("publishNotReadyAddresses", Bool),
    ignored("externalIPs", TEXTS),
    inert("sessionAffinity", Text, "session affinity"),
    inert("sessionAffinityConfig", Any, "session affinity"),
    inert("trafficDistribution", Text, "traffic distribution"),
    ignored("loadBalancerIP", Text),
    ignored("loadBalancerSourceRanges", TEXTS),
    ignored("loadBalancerClass", Text),
    ignored("externalTrafficPolicy", Text),
    ignored("internalTrafficPolicy", Text),
    ignored("healthCheckNodePort", INT),
    ignored("allocateLoadBalancerNodePorts", Bool),
    ignored("ipFamilies", TEXTS),
    ignored("ipFamilyPolicy", Text),
];

const SERVICE_PORT: &[Field] = &[
    acts("name", Text),
    required("port", PORT),
    acts("targetPort", TextOrInt),
    acts("protocol", Text),
    acts("appProtocol", Text),
    ignored("nodePort", INT),
];

pub(crate) const ENDPOINTS: Shape = List(&Object(&[
    required("addresses", TEXTS),
    acts(
        "conditions",
        Object(&[acts("ready", Bool), ignored("serving", Bool), ignored("terminating", Bool)]),
    ),
    acts("targetRef", Any),
    ignored("hostname", Text),
    ignored("nodeName", Text),
    ignored("zone", Text),
    ignored("hints", Any),
    ignored("deprecatedTopology", Map(&Text)),
]));

pub(crate) const SLICE_PORTS: Shape = List(&Object(&[
    acts("name", Text),
    acts("port", PORT),
    acts("protocol", Text),
    acts("appProtocol", Text),
]));
