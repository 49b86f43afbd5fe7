//! Gateway: where traffic enters, and for which hosts.

mod decode;
mod shape;
mod tls;

pub(crate) use decode::decode;
pub(crate) use shape::{SPEC, TLS};
pub use tls::{ServerTls, TlsMode};

use crate::api::Meta;
use crate::report::{At, Place};
use std::collections::BTreeMap;

/// `networking.istio.io` Gateway. Its selector chooses no process, as one plays all gateways; it says who asks what of
/// callers.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Identity.
    pub meta: Meta,
    /// `spec.selector`.
    pub selector: BTreeMap<String, String>,
    /// `spec.servers`.
    pub servers: Vec<Server>,
}

/// `spec.servers[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where it begins.
    pub at: Place,
    /// `port.number`.
    pub port: At<u16>,
    /// `port.name`.
    pub port_name: String,
    /// `port.protocol`.
    pub protocol: At<ServerProtocol>,
    /// `hosts`, lower case, as written: `[namespace/]host`.
    pub hosts: Vec<At<String>>,
    /// `tls` of an encrypted server.
    pub tls: Option<ServerTls>,
    /// `tls.httpsRedirect` of an HTTP server.
    pub https_redirect: bool,
}

/// `port.protocol`. TCP is not served, which is warned about where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerProtocol {
    /// HTTP, HTTP2, GRPC or GRPC-WEB.
    Http,
    /// HTTPS.
    Https,
    /// TLS.
    Tls,
    /// TCP, MONGO, REDIS or MYSQL.
    Tcp,
}
