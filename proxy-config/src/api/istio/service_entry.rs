//! ServiceEntry: hosts that are not Services of the input, and where they are found.

mod decode;
mod shape;

pub(crate) use decode::decode;
pub(crate) use shape::{SPEC, WORKLOAD};

use crate::api::Meta;
use crate::report::{At, Place};

/// `networking.istio.io` ServiceEntry.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// Identity.
    pub meta: Meta,
    /// `spec.hosts`, lower case: exact or `*.suffix`.
    pub hosts: Vec<At<String>>,
    /// `spec.ports`; numbers are unique.
    pub ports: Vec<EntryPort>,
    /// `spec.location`: whether it is MESH_EXTERNAL; `None` where it is not written (Istio: it is).
    pub external: Option<bool>,
    /// `spec.resolution`.
    pub resolution: At<Resolution>,
    /// `spec.subjectAltNames`.
    pub names: Vec<At<String>>,
    /// `spec.endpoints`.
    pub endpoints: Vec<WorkloadAddress>,
    /// `spec.workloadSelector.labels`: endpoints are the Pods that carry them.
    pub workload_selector: Vec<(String, String)>,
}

/// `spec.ports[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryPort {
    /// `number`.
    pub number: At<u16>,
    /// `name`.
    pub name: String,
    /// `protocol` as written, upper case; empty where it is not written.
    pub protocol: String,
    /// `targetPort`.
    pub target_port: Option<u16>,
}

/// `spec.resolution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The address the client dialled; it has no endpoints of its own.
    None,
    /// `endpoints` are addresses.
    Static,
    /// Names are looked up (DNS); without endpoints the hosts themselves are.
    Dns,
    /// As `Dns`, with one endpoint at most (DNS_ROUND_ROBIN).
    DnsRoundRobin,
    /// The name is that of the request (DYNAMIC_DNS); does not act yet.
    DynamicDns,
}

/// `spec.endpoints[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadAddress {
    /// Where it begins.
    pub at: Place,
    /// `address`: IP, DNS name or `unix://` path.
    pub address: At<String>,
    /// `ports`: port name to number.
    pub ports: Vec<(String, u16)>,
    /// `labels`.
    pub labels: Vec<(String, String)>,
    /// `serviceAccount`.
    pub service_account: Option<String>,
    /// `weight`; `None`: 1.
    pub weight: Option<u32>,
}
