//! Who may speak to whom: the certificates of listeners and clusters, and what is asked of callers.
//!
//! Patterns stay as written; whoever enforces them compiles them. References to files and Secrets are
//! resolved to where the PEM text comes from. Nothing here holds a key longer than its configuration, and no
//! `Debug` shows one.

use super::ObjectRef;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that is asked of the callers of one workload: a function's revision, the endpoints of an entry,
/// or the program behind a sidecar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guard {
    /// Unique; clusters and listeners name it: `default/orders-00001`.
    pub name: String,
    /// The workload's namespace.
    pub namespace: String,
    /// PeerAuthentication, all levels applied.
    pub mtls: MtlsPolicy,
    /// RequestAuthentication, all that select the workload together; none: tokens are not looked at.
    pub jwt: Vec<JwtRule>,
    /// AuthorizationPolicies that select the workload, by action as written, in order of namespace and name.
    pub policies: Vec<AuthorizationPolicy>,
    /// Security objects that select the workload, have errors and were never good: every request is refused.
    pub quarantined: Vec<ObjectRef>,
}

/// PeerAuthentication of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MtlsPolicy {
    /// For every port that is not named.
    pub mode: Mtls,
    /// By the workload's own port.
    pub ports: BTreeMap<u16, Mtls>,
}

impl MtlsPolicy {
    /// The mode at a workload port.
    pub fn at(&self, port: u16) -> Mtls {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// What a workload accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mtls {
    /// Plaintext alone.
    Disable,
    /// Both.
    #[default]
    Permissive,
    /// Mutual TLS alone.
    Strict,
}

/// One rule of a RequestAuthentication.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtRule {
    /// Who wrote it.
    pub origin: ObjectRef,
    /// `iss` of the tokens; empty only where `keys` is a URI: then any.
    pub issuer: String,
    /// `aud` must name one of them; empty: any.
    pub audiences: Vec<String>,
    /// What they are verified with.
    pub keys: JwtKeys,
    /// Name (lower case) and prefix; with `params` and `cookies` empty too: `authorization: Bearer ` and
    /// the parameter `access_token`.
    pub headers: Vec<(String, String)>,
    /// Names of query parameters.
    pub params: Vec<String>,
    /// Names of cookies.
    pub cookies: Vec<String>,
    /// The token goes on to the application.
    pub forward: bool,
    /// The payload goes to this field, in base64url.
    pub payload_header: Option<String>,
    /// Field, and the claim that goes there; nested ones with dots.
    pub claim_headers: Vec<(String, String)>,
    /// Claims that are lists separated by blanks, besides `scope` and `permission`.
    pub space_delimited: Vec<String>,
    /// Of fetching keys.
    pub timeout: Duration,
}

/// Where a rule's keys come from.
#[derive(Clone, Debug, PartialEq)]
pub enum JwtKeys {
    /// The JSON text of a JWKS.
    Inline(String),
    /// Fetched.
    Uri(String),
    /// Fetched from where `<issuer>/.well-known/openid-configuration` says.
    Discover,
}

/// One AuthorizationPolicy as it concerns one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// Who wrote it.
    pub origin: ObjectRef,
    /// What a match means.
    pub action: PolicyAction,
    /// Only counted and logged (`istio.io/dry-run`).
    pub dry_run: bool,
    /// One must match; none: nothing matches.
    pub rules: Vec<PolicyRule>,
}

/// `action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// Others are refused, once any policy allows.
    Allow,
    /// Refused.
    Deny,
    /// Told, with no effect.
    Audit,
    /// The provider of this name decides.
    Custom(String),
}

/// One rule: a source, an operation and all conditions must match; an empty list matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyRule {
    /// One must match.
    pub from: Vec<PolicySource>,
    /// One must match.
    pub to: Vec<PolicyOperation>,
    /// All must match.
    pub when: Vec<PolicyCondition>,
}

/// Values of a field and of its `not` twin, as written: one of `any` must match where there are some, none of
/// `none` may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The field.
    pub any: Vec<String>,
    /// Its `not` twin.
    pub none: Vec<String>,
}

/// Blocks of addresses, with the same meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// The field: network and length of its prefix.
    pub any: Vec<(IpAddr, u8)>,
    /// Its `not` twin.
    pub none: Vec<(IpAddr, u8)>,
}

/// `from.source`: all fields must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySource {
    /// Without `spiffe://`.
    pub principals: Values,
    /// `issuer/subject`.
    pub request_principals: Values,
    /// Of the peer's principal.
    pub namespaces: Values,
    /// `namespace/name`, the policy's own namespace filled in.
    pub service_accounts: Values,
    /// Of the peer's principal.
    pub trust_domains: Values,
    /// The peer's address.
    pub ip_blocks: Blocks,
    /// The client's address, as trusted proxies tell it.
    pub remote_ip_blocks: Blocks,
}

/// `to.operation`: all fields must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyOperation {
    /// Without regard to case.
    pub hosts: Values,
    /// The workload's port.
    pub ports: Values,
    /// As sent.
    pub methods: Values,
    /// Normalised, without the query.
    pub paths: Values,
}

/// `when`: a key with its argument as written, such as `request.headers[x-token]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyCondition {
    /// Checked to be one that exists.
    pub key: String,
    /// What it may be and not be.
    pub values: Values,
}

/// A provider for CUSTOM policies, from MeshConfig `extensionProviders` (`envoyExtAuthzHttp`, `…Grpc`).
#[derive(Clone, Debug, PartialEq)]
pub struct ExtAuthz {
    /// Its name there.
    pub name: String,
    /// Asked over gRPC instead of HTTP.
    pub grpc: bool,
    /// The cluster to ask; absent from the configuration: every check fails.
    pub cluster: String,
    /// Authority of the check request.
    pub authority: String,
    /// Before the path of the check request.
    pub path_prefix: String,
    /// Of one check.
    pub timeout: Duration,
    /// A check that fails lets the request pass.
    pub fail_open: bool,
    /// What the client gets when a check fails.
    pub status_on_error: u16,
    /// Fields of the request that go along, besides `host`, method, path and `authorization`; patterns.
    pub include_headers: Vec<String>,
    /// Fields that are added to the check request.
    pub additional_headers: Vec<(String, String)>,
    /// Fields of the answer that replace those of the request; patterns.
    pub to_upstream_on_allow: Vec<String>,
    /// Fields of the answer that the client gets too; patterns.
    pub to_downstream_on_allow: Vec<String>,
    /// Fields of the refusal that the client gets; patterns; empty: all.
    pub to_downstream_on_deny: Vec<String>,
    /// Bytes of the request's body that go along, and whether a part of it will do.
    pub body: Option<(u32, bool)>,
}

impl Default for ExtAuthz {
    fn default() -> Self {
        ExtAuthz {
            name: String::new(),
            grpc: false,
            cluster: String::new(),
            authority: String::new(),
            path_prefix: String::new(),
            timeout: Duration::from_secs(600),
            fail_open: false,
            status_on_error: 403,
            include_headers: Vec::new(),
            additional_headers: Vec::new(),
            to_upstream_on_allow: Vec::new(),
            to_downstream_on_allow: Vec::new(),
            to_downstream_on_deny: Vec::new(),
            body: None,
        }
    }
}

/// What a listener does with TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ListenerTls {
    /// Nothing: plaintext.
    #[default]
    Plain,
    /// A gateway's: by the name the client asks for.
    Servers(Vec<TlsServer>),
    /// A sidecar's inbound: the workload's own certificate; the listener's guard says whether plaintext may
    /// come as well. The ports of the program, the first of which is meant where nothing says; none: the one
    /// that the listener is named for.
    Mesh(Vec<OwnPort>),
}

/// A port of the program that a sidecar stands beside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnPort {
    /// Its number.
    pub port: u16,
    /// The ports by which callers mean it: its own, and those of Services that lead there.
    pub dialled: BTreeSet<u16>,
    /// The cluster that leads there.
    pub cluster: String,
    /// No Service says that it speaks HTTP: what the program encrypts itself may go there unopened.
    pub opaque: bool,
}

/// One TLS server of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsServer {
    /// Who wrote it.
    pub origin: ObjectRef,
    /// Names it answers for: exact, `*.suffix` or `*`.
    pub hosts: Vec<String>,
    /// What it does.
    pub mode: ServerMode,
    /// Its certificate; also the authorities of clients, where they show one.
    pub credential: Credential,
    /// The names a client's certificate must have one of; empty: any.
    pub client_names: Vec<String>,
    /// SHA-256 of a client certificate's key, in base64; one must fit; empty: any.
    pub client_spki: Vec<String>,
    /// SHA-256 of a client certificate, in hexadecimal; one must fit; empty: any.
    pub client_hash: Vec<String>,
    /// Oldest and newest version.
    pub versions: (TlsVersion, TlsVersion),
    /// In OpenSSL's names, as written; empty: the default.
    pub ciphers: Vec<String>,
    /// Where a connection goes that passes through, by the name asked for; the first wins.
    pub sni_routes: Vec<SniRoute>,
    /// Hosts that VirtualServices have bound to its Gateway and it admits; empty where the port has one Gateway alone.
    pub routed: Vec<String>,
}

/// A TLS route of a VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct SniRoute {
    /// Who wrote it.
    pub origin: ObjectRef,
    /// Exact or `*.suffix`.
    pub names: Vec<String>,
    /// Clusters and their weights.
    pub clusters: Vec<(String, u32)>,
}

/// Versions of TLS that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// 1.2.
    V12,
    /// 1.3.
    V13,
}

/// `tls.mode` of a Gateway's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerMode {
    /// The server shows a certificate.
    Simple,
    /// Both do.
    Mutual,
    /// The client may.
    OptionalMutual,
    /// Both do, the workload's own.
    IstioMutual,
    /// Not opened: routed by the name asked for.
    Passthrough,
}

/// PEM texts, and where they come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credential {
    /// Certificate chain and key.
    pub pair: Option<(Pem, Pem)>,
    /// Authorities that the other side's certificate must come from; `None`: the system's, or the mesh's own
    /// where the mode says so.
    pub roots: Option<Pem>,
    /// Certificates that were taken back.
    pub revoked: Option<Pem>,
    /// Why it cannot be had, such as a Secret that does not exist; what needs it is refused.
    pub missing: Option<String>,
}

/// One PEM text.
#[derive(Clone, PartialEq)]
pub enum Pem {
    /// Read when it is needed, and again when it changes.
    File(PathBuf),
    /// From a Secret or ConfigMap.
    Text {
        /// The object and its key, for messages.
        from: String,
        /// The text.
        text: Arc<str>,
    },
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "file {}", path.display()),
            Pem::Text { from, .. } => write!(f, "{from} (redacted)"),
        }
    }
}

/// How a cluster's endpoints are spoken to, where not in plaintext.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTls {
    /// Kind.
    pub mode: ClientMode,
    /// Our certificate (MUTUAL), and the authorities of theirs.
    pub credential: Credential,
    /// Names of which their certificate must have one; for the mesh's own: SPIFFE URIs without `spiffe://`
    /// of the endpoints' service accounts; empty: any of the trust domain, or the name asked for.
    pub names: Vec<String>,
    /// The name asked for; `None`: the request's host (SIMPLE, MUTUAL).
    pub sni: Option<String>,
    /// Their certificate is not looked at.
    pub insecure: bool,
}

/// `tls.mode` of a DestinationRule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientMode {
    /// They show a certificate.
    Simple,
    /// Both do.
    Mutual,
    /// Both do, the workload's own.
    IstioMutual,
    /// No rule says anything: the mesh's own for endpoints that have a proxy, plaintext for others.
    Auto,
}

/// The workload that a sidecar stands beside, or that `run` plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}
