//! Pods and what makes them: read for labels, addresses and port names alone.

use crate::api::Meta;
use crate::api::mesh::ProxySettings;

/// Core `v1` Pod. Its labels are `meta.labels`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Identity.
    pub meta: Meta,
    /// `status.podIP`, or the first of `status.podIPs`.
    pub ip: Option<String>,
    /// `spec.serviceAccountName`, `default` where it is not written.
    pub service_account: String,
    /// Unless the condition `Ready` of its status says otherwise.
    pub ready: bool,
    /// `spec.containers[].ports[]`.
    pub ports: Vec<ContainerPort>,
    /// `proxy.istio.io/config`.
    pub proxy: ProxySettings,
}

/// Deployment, StatefulSet, DaemonSet or ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Identity.
    pub meta: Meta,
    /// `spec.template.metadata.labels`.
    pub template_labels: Vec<(String, String)>,
    /// `spec.template.spec.containers[].ports[]`.
    pub ports: Vec<ContainerPort>,
    /// `proxy.istio.io/config` of its Pods.
    pub proxy: ProxySettings,
}

/// `containers[].ports[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// `name`; empty where it is not written.
    pub name: String,
    /// `containerPort`.
    pub port: u16,
}
