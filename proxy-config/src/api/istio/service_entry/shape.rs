//! The fields of a ServiceEntry.

use crate::api::shape::Shape::{Choice, List, Map, Object, Text};
use crate::api::shape::{COUNT, Field, LABELS, PORT, TEXTS, acts, inert, required};

pub(crate) const SPEC: &[Field] = &[
    required("hosts", TEXTS),
    inert("addresses", TEXTS, "addresses of a host (requests are routed by name)"),
    acts("ports", List(&Object(ENTRY_PORT))),
    acts("location", Choice(&["MESH_EXTERNAL", "MESH_INTERNAL"])),
    acts("resolution", Choice(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"])),
    acts("endpoints", List(&Object(WORKLOAD))),
    acts("workloadSelector", Object(&[acts("labels", LABELS)])),
    inert("exportTo", TEXTS, "limiting visibility to namespaces"),
    acts("subjectAltNames", TEXTS),
];

const ENTRY_PORT: &[Field] =
    &[required("number", PORT), required("name", Text), acts("protocol", Text), acts("targetPort", PORT)];

/// An endpoint; WorkloadEntry and WorkloadGroup have the same fields.
pub(crate) const WORKLOAD: &[Field] = &[
    acts("address", Text),
    acts("ports", Map(&PORT)),
    acts("labels", LABELS),
    acts("weight", COUNT),
    inert("network", Text, "multi-network routing"),
    inert("locality", Text, "locality-aware balancing"),
    acts("serviceAccount", Text),
];
