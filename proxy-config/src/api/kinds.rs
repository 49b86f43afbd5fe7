//! The kinds that are known, by group, version and name, and how each is read.

use super::shape::Shape::{Any, Object as Fields, Text};
use super::shape::{Field, LABELS, acts, ignored, nearest, required};
use super::{Meta, Object, istio, knative, kubernetes};
use crate::decode::Cursor;

/// One kind.
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) name: &'static str,
    /// Newest first.
    pub(super) versions: &'static [&'static str],
    /// Its fields from the root on; `None`: read for a few only, the rest is not checked.
    pub(super) fields: Option<&'static [Field]>,
    pub(super) role: KindRole,
}

/// What becomes of a kind's objects. A reader gives nothing only after it has reported why.
#[derive(Clone, Copy)]
pub(super) enum KindRole {
    /// They act.
    Acts(fn(&Cursor<'_>, Meta) -> Option<Object>),
    /// They are checked and do not act yet.
    Later(fn(&Cursor<'_>)),
    /// They are only known by name, but for the one that holds the MeshConfig.
    MayHoldMesh,
}

impl Kind {
    /// The fields of `spec`, where they are known.
    pub(super) fn spec_fields(&self) -> &'static [Field] {
        let spec = self.fields.and_then(|fields| fields.iter().find(|f| f.name == "spec"));
        match spec.map(|f| f.shape) {
            Some(Fields(fields)) => fields,
            _ => &[],
        }
    }

    /// `networking.istio.io/v1`.
    pub(super) fn api_version(&self) -> String {
        let version = self.versions.first().copied().unwrap_or_default();
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

const METADATA: &[Field] = &[
    acts("name", Text),
    acts("namespace", Text),
    acts("labels", LABELS),
    acts("annotations", LABELS),
    ignored("generateName", Text),
    ignored("uid", Any),
    ignored("resourceVersion", Any),
    ignored("generation", Any),
    ignored("creationTimestamp", Any),
    ignored("deletionTimestamp", Any),
    ignored("deletionGracePeriodSeconds", Any),
    ignored("managedFields", Any),
    ignored("ownerReferences", Any),
    ignored("finalizers", Any),
    ignored("selfLink", Any),
];

const API_VERSION: Field = required("apiVersion", Text);
const KIND: Field = required("kind", Text);
const META: Field = required("metadata", Fields(METADATA));
const STATUS: Field = ignored("status", Any);

/// An object whose `spec` must be there.
const fn with_spec(spec: &'static [Field]) -> [Field; 5] {
    [API_VERSION, KIND, META, required("spec", Fields(spec)), STATUS]
}

/// An object whose `spec` may be left out.
const fn with_optional_spec(spec: &'static [Field]) -> [Field; 5] {
    [API_VERSION, KIND, META, acts("spec", Fields(spec)), STATUS]
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const ISTIO_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const V1: &[&str] = &["v1"];

fn nothing_more(_: &Cursor<'_>) {}

const fn acting(
    group: &'static str,
    name: &'static str,
    versions: &'static [&'static str],
    fields: Option<&'static [Field]>,
    read: fn(&Cursor<'_>, Meta) -> Option<Object>,
) -> Kind {
    Kind { group, name, versions, fields, role: KindRole::Acts(read) }
}

const fn later(
    group: &'static str,
    name: &'static str,
    versions: &'static [&'static str],
    fields: &'static [Field],
    rules: fn(&Cursor<'_>),
) -> Kind {
    Kind { group, name, versions, fields: Some(fields), role: KindRole::Later(rules) }
}

const fn unused(
    group: &'static str,
    name: &'static str,
    versions: &'static [&'static str],
    role: KindRole,
) -> Kind {
    Kind { group, name, versions, fields: None, role }
}

static GATEWAY: [Field; 5] = with_spec(istio::gateway::SPEC);
static VIRTUAL_SERVICE: [Field; 5] = with_spec(istio::virtual_service::SPEC);
static DESTINATION_RULE: [Field; 5] = with_spec(istio::destination_rule::SPEC);
static SERVICE_ENTRY: [Field; 5] = with_spec(istio::service_entry::SPEC);
static SIDECAR: [Field; 5] = with_optional_spec(istio::later::SIDECAR);
static WORKLOAD_ENTRY: [Field; 5] = with_spec(istio::later::WORKLOAD_ENTRY);
static WORKLOAD_GROUP: [Field; 5] = with_spec(istio::later::WORKLOAD_GROUP);
static PROXY_CONFIG: [Field; 5] = with_optional_spec(istio::later::PROXY_CONFIG);
static ENVOY_FILTER: [Field; 5] = with_optional_spec(istio::later::ENVOY_FILTER);
static PEER_AUTHENTICATION: [Field; 5] = with_optional_spec(istio::security::PEER_AUTHENTICATION);
static REQUEST_AUTHENTICATION: [Field; 5] = with_optional_spec(istio::security::REQUEST_AUTHENTICATION);
static AUTHORIZATION_POLICY: [Field; 5] = with_optional_spec(istio::security::AUTHORIZATION_POLICY);
static TELEMETRY: [Field; 5] = with_optional_spec(istio::later::TELEMETRY);
static WASM_PLUGIN: [Field; 5] = with_spec(istio::later::WASM_PLUGIN);
static SERVICE: [Field; 5] = with_optional_spec(kubernetes::SERVICE);
static FUNCTION: [Field; 5] = with_spec(knative::SPEC);
static ENDPOINT_SLICE: [Field; 6] = [
    API_VERSION,
    KIND,
    META,
    required("addressType", Text),
    acts("endpoints", kubernetes::ENDPOINTS),
    acts("ports", kubernetes::SLICE_PORTS),
];

fn pod(root: &Cursor<'_>, meta: Meta) -> Option<Object> {
    Some(Object::Pod(kubernetes::pod(root, meta)))
}

fn workload(root: &Cursor<'_>, meta: Meta) -> Option<Object> {
    Some(Object::Workload(kubernetes::workload(root, meta)))
}

pub(super) static KINDS: [Kind; 25] = [
    acting(NETWORKING, "Gateway", ISTIO_VERSIONS, Some(&GATEWAY), |root, meta| {
        Some(Object::Gateway(istio::gateway::decode(root, meta)))
    }),
    acting(NETWORKING, "VirtualService", ISTIO_VERSIONS, Some(&VIRTUAL_SERVICE), |root, meta| {
        Some(Object::VirtualService(istio::virtual_service::decode(root, meta)))
    }),
    acting(NETWORKING, "DestinationRule", ISTIO_VERSIONS, Some(&DESTINATION_RULE), |root, meta| {
        istio::destination_rule::decode(root, meta).map(Object::DestinationRule)
    }),
    acting(NETWORKING, "ServiceEntry", ISTIO_VERSIONS, Some(&SERVICE_ENTRY), |root, meta| {
        Some(Object::ServiceEntry(istio::service_entry::decode(root, meta)))
    }),
    acting("", "Service", V1, Some(&SERVICE), |root, meta| {
        Some(Object::Service(kubernetes::service(root, meta)))
    }),
    acting("discovery.k8s.io", "EndpointSlice", V1, Some(&ENDPOINT_SLICE), |root, meta| {
        Some(Object::EndpointSlice(kubernetes::endpoint_slice(root, meta)))
    }),
    acting("serving.knative.dev", "Service", V1, Some(&FUNCTION), |root, meta| {
        knative::decode(root, meta).map(Object::Function)
    }),
    acting("", "Pod", V1, None, pod),
    acting("apps", "Deployment", V1, None, workload),
    acting("apps", "StatefulSet", V1, None, workload),
    acting("apps", "DaemonSet", V1, None, workload),
    acting("apps", "ReplicaSet", V1, None, workload),
    later(NETWORKING, "Sidecar", ISTIO_VERSIONS, &SIDECAR, istio::later::sidecar),
    later(NETWORKING, "WorkloadEntry", ISTIO_VERSIONS, &WORKLOAD_ENTRY, istio::later::workload_entry),
    later(NETWORKING, "WorkloadGroup", ISTIO_VERSIONS, &WORKLOAD_GROUP, nothing_more),
    later(NETWORKING, "ProxyConfig", &["v1beta1"], &PROXY_CONFIG, nothing_more),
    later(NETWORKING, "EnvoyFilter", &["v1alpha3"], &ENVOY_FILTER, nothing_more),
    acting(SECURITY, "PeerAuthentication", SECURITY_VERSIONS, Some(&PEER_AUTHENTICATION), |root, meta| {
        Some(Object::PeerAuthentication(istio::security::peer_authentication(root, meta)))
    }),
    acting(
        SECURITY,
        "RequestAuthentication",
        SECURITY_VERSIONS,
        Some(&REQUEST_AUTHENTICATION),
        |root, meta| Some(Object::RequestAuthentication(istio::security::request_authentication(root, meta))),
    ),
    acting(SECURITY, "AuthorizationPolicy", SECURITY_VERSIONS, Some(&AUTHORIZATION_POLICY), |root, meta| {
        Some(Object::AuthorizationPolicy(istio::security::authorization_policy(root, meta)))
    }),
    later("telemetry.istio.io", "Telemetry", &["v1", "v1alpha1"], &TELEMETRY, istio::later::telemetry),
    later("extensions.istio.io", "WasmPlugin", &["v1alpha1"], &WASM_PLUGIN, nothing_more),
    unused("", "ConfigMap", V1, KindRole::MayHoldMesh),
    unused("install.istio.io", "IstioOperator", &["v1alpha1"], KindRole::MayHoldMesh),
    acting("", "Secret", V1, None, |root, meta| Some(Object::Secret(kubernetes::secret(root, meta)))),
];

/// What an `apiVersion` and `kind` stand for.
pub(super) enum Found {
    /// A kind of ours.
    Kind(&'static Kind),
    /// A kind of ours under a group or version that does not have it.
    Wrong(&'static Kind),
    /// MeshConfig, which is not a kind at all.
    MeshConfig,
    /// None of ours.
    Unknown,
    /// No kind of its group, but nearly this one.
    Misspelt(&'static Kind),
}

pub(super) fn find(group: &str, version: &str, name: &str) -> Found {
    if let Some(kind) = KINDS.iter().find(|k| k.group == group && k.name == name) {
        let served = kind.versions.contains(&version);
        return if served { Found::Kind(kind) } else { Found::Wrong(kind) };
    }
    if name == "MeshConfig" && group.ends_with("istio.io") {
        return Found::MeshConfig;
    }
    // A group of another project may well have a kind of that name.
    let known_group = KINDS.iter().any(|k| k.group == group) || group == "extensions";
    if let Some(kind) = KINDS.iter().find(|k| k.name == name && known_group) {
        return Found::Wrong(kind);
    }
    let of_group = || KINDS.iter().filter(|k| k.group == group);
    let near = nearest(name, of_group().map(|k| k.name));
    match near.and_then(|near| of_group().find(|k| k.name == near)) {
        Some(kind) => Found::Misspelt(kind),
        None => Found::Unknown,
    }
}
