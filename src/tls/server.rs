//! What a listener does with clients that speak TLS: who answers for which name, with which certificate, and
//! what it asks of theirs.

use super::certificate::facts;
use super::cipher::{suite_name, version_name};
use super::hello::Hello;
use super::names::ByName;
use super::refusal::Refusal;
use super::verify::ClientCheck;
use super::{HTTP1, HTTP2, HTTP10, unix};
use crate::record::Secured;
use proxy_config::model::SniRoute;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::StartHandshake;

/// Bytes kept for a client that does not read; rustls's own default is four times as much.
const BUFFER: usize = 16 * 1024;

/// A client's encrypted stream.
pub type ServerStream<IO> = tokio_rustls::server::TlsStream<IO>;

/// One way to answer a handshake: a certificate, versions, and what is asked of the client.
pub struct Terms {
    pub(super) config: Arc<ServerConfig>,
    pub(super) check: Option<Arc<ClientCheck>>,
    /// Certificate and authorities in one word: who is on both sides.
    pub(super) face: Arc<str>,
    /// A request for a host of another server is misdirected.
    pub(super) misdirects: bool,
    /// The URI of our certificate.
    pub(super) uri: Option<Arc<str>>,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Terms({}, client certificates: {:?})",
            self.face,
            self.check.as_ref().map(|c| c.is_required())
        )
    }
}

/// The certificates a client showed.
#[derive(Clone, Debug)]
pub struct Chain(Vec<CertificateDer<'static>>);

/// A handshake that is done.
#[derive(Debug)]
pub struct Opened<IO> {
    /// The client's stream.
    pub stream: ServerStream<IO>,
    /// What the handshake told.
    pub secured: Secured,
    /// The certificates the client showed.
    pub chain: Option<Chain>,
    /// Whether HTTP/2 was agreed on; `None`: nothing was said.
    pub http2: Option<bool>,
}

impl Terms {
    /// Answers `hello`, up to the end of the handshake.
    ///
    /// # Errors
    /// Why there is no connection; the client has been told.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        hello: Hello,
        io: IO,
        now: SystemTime,
    ) -> Result<Opened<IO>, Refusal> {
        let sni = hello.seen().sni.as_deref().map(Box::from);
        let starting = StartHandshake::from_parts(hello.accepted, io);
        let accepting = starting.into_stream_with(self.config.clone(), |connection| {
            connection.set_buffer_limit(Some(BUFFER));
        });
        let stream = accepting.await.map_err(|error| Refusal::of_io(&error))?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().map(|chain| Chain(chain.to_vec()));
        let peer = chain.as_ref().and_then(|chain| facts(chain.0.first()?));
        // A resumed session has not been checked again.
        if peer.as_ref().is_some_and(|peer| peer.not_after <= now) {
            return Err(Refusal::Expired);
        }
        let secured = Secured {
            version: version_name(connection.protocol_version()),
            cipher: suite_name(connection.negotiated_cipher_suite()),
            sni,
            local_uri: self.uri.clone(),
            peer,
        };
        let http2 = match connection.alpn_protocol() {
            Some(name) if name == HTTP2 || name == b"istio-h2" => Some(true),
            Some(name) if name == HTTP1 || name.starts_with(b"istio-http/") || name == HTTP10 => Some(false),
            _ => None,
        };
        Ok(Opened { stream, secured, chain, http2 })
    }

    /// Why no peer of these trust domains would believe our certificate.
    pub(super) fn foreign(&self, domains: &[String]) -> Option<String> {
        let uri = self.uri.as_deref();
        let domain =
            uri.and_then(|uri| uri.strip_prefix("spiffe://")).and_then(|rest| rest.split('/').next());
        if domain.is_some_and(|domain| domains.iter().any(|own| own == domain)) {
            return None;
        }
        Some(format!(
            "the workload's certificate is for {}, which is of none of the mesh's trust domains ({}): peers will \
             refuse it; set trustDomain or trustDomainAliases in MeshConfig, or give a certificate of the mesh",
            uri.unwrap_or("no SPIFFE identity"),
            domains.join(", ")
        ))
    }

    /// Whether only members of the mesh are let in.
    pub fn asks_for_members(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.asks_for_members())
    }

    /// Whether the same is asked of clients here as there.
    pub fn asks_the_same(&self, other: &Terms) -> bool {
        match (&self.check, &other.check) {
            (Some(here), Some(there)) => Arc::ptr_eq(here, there),
            (None, None) => true,
            _ => false,
        }
    }

    /// Whether a client that is connected, and showed `chain`, would be let in now.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, chain: Option<&Chain>, now: SystemTime) -> Result<(), Refusal> {
        let Some(check) = &self.check else { return Ok(()) };
        match chain.and_then(|chain| chain.0.split_first()) {
            Some((leaf, others)) => check.admits(leaf, others, unix(now)),
            None if check.is_required() => Err(Refusal::NoCertificate),
            None => Ok(()),
        }
    }
}

/// Who answers for a name.
#[derive(Clone, Debug)]
pub enum Choice {
    /// This process, on these terms.
    Terminate(Arc<Terms>),
    /// A destination.
    Passthrough(Arc<Passthrough>),
    /// Nobody: the certificate cannot be had.
    Unprepared,
}

/// Where connections go that are not opened.
#[derive(Debug, Default)]
pub struct Passthrough {
    names: ByName<usize>,
    routes: Vec<Vec<(String, u32)>>,
}

impl Passthrough {
    pub(super) fn new(routes: &[SniRoute]) -> Passthrough {
        let mut out = Passthrough::default();
        for (at, route) in routes.iter().enumerate() {
            out.routes.push(route.clusters.clone());
            for name in &route.names {
                out.names.add(name, at);
            }
        }
        out
    }

    /// Names of clusters and their weights for a connection that asks for `sni`.
    pub fn find(&self, sni: Option<&str>) -> Option<&[(String, u32)]> {
        self.names.find(sni).and_then(|at| self.routes.get(*at)).map(Vec::as_slice)
    }
}

/// The TLS servers of a gateway's port.
#[derive(Debug, Default)]
pub struct Servers {
    by_name: ByName<Server>,
    /// Those that came too late for a name.
    late: ByName<Server>,
    /// They are of several Gateways.
    several: bool,
}

#[derive(Clone, Debug)]
struct Server {
    choice: Choice,
    /// Hosts that are routed behind its Gateway, where there are several.
    routed: Arc<ByName<()>>,
}

/// Why a request is on the wrong connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// It belongs on one that asks for its host.
    Misdirected,
    /// Its host is routed behind another Gateway.
    Unrouted,
}

impl Servers {
    /// Has `choice` answer for `hosts`; those that another server has already are given back. `routed`: what is behind
    /// its Gateway.
    pub(super) fn add<'h>(
        &mut self,
        hosts: &'h [String],
        routed: &[String],
        choice: &Choice,
    ) -> Vec<&'h String> {
        let mut names = ByName::default();
        for host in routed {
            names.add(host, ());
        }
        self.several |= !routed.is_empty();
        let server = Server { choice: choice.clone(), routed: Arc::new(names) };
        let late: Vec<_> = hosts.iter().filter(|host| !self.by_name.add(host, server.clone())).collect();
        for host in &late {
            self.late.add(host, server.clone());
        }
        late
    }

    /// Who answers a client that asks for `sni`.
    pub fn find(&self, sni: Option<&str>) -> Option<&Choice> {
        self.by_name.find(sni).map(|server| &server.choice)
    }

    /// Whether a request for `host`, on a connection that was opened for `sni`, belongs on another: one whose
    /// certificate or whose clients' authorities are not the same. Clients that could not know it, as they asked for no
    /// name or are of the mesh, reach what is routed behind the Gateway that let them in, and no other.
    #[inline]
    pub fn elsewhere(&self, sni: Option<&str>, host: &str) -> Option<Elsewhere> {
        match sni {
            Some(name) if name.eq_ignore_ascii_case(host) && self.late.is_empty() => None,
            None if !self.several => None,
            _ => self.compare(sni, host),
        }
    }

    fn compare(&self, sni: Option<&str>, host: &str) -> Option<Elsewhere> {
        let (mine, theirs) = (self.by_name.find(sni)?, self.by_name.find(Some(host))?);
        let Choice::Terminate(terms) = &mine.choice else { return None };
        let alike =
            |server: &Server| matches!(&server.choice, Choice::Terminate(other) if other.face == terms.face);
        let theirs = match (alike(theirs), self.late.find(Some(host))) {
            (false, _) if sni.is_some() && terms.misdirects => return Some(Elsewhere::Misdirected),
            (false, _) => theirs,
            // What is routed behind a server that never answers is not for clients of the one that does.
            (true, Some(late)) if !alike(late) => late,
            (true, _) => return None,
        };
        let behind = |server: &Server| server.routed.find(Some(host)).is_some();
        (behind(theirs) && !behind(mine)).then_some(Elsewhere::Unrouted)
    }
}
