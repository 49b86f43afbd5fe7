//! How a cluster's endpoints are spoken to: which certificate is shown, what theirs must be.

use super::certificate::facts;
use super::refusal::Refusal;
use crate::record::Certificate;
use proxy_config::model::ClientMode;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

const BUFFER: usize = 64 * 1024;

/// A destination's encrypted stream.
pub type ClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// What is to be spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// How one cluster is spoken to.
pub struct Client {
    /// Never used again for another.
    pub(super) id: u64,
    pub(super) mode: ClientMode,
    pub(super) config: Result<Arc<ClientConfig>, Arc<str>>,
    pub(super) sni: Option<ServerName<'static>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {:?}, {:?})", self.id, self.mode, self.sni)
    }
}

impl Client {
    /// Whether an endpoint is spoken to with TLS; `mesh`: it has a proxy of the mesh in front.
    #[inline]
    pub fn applies(&self, mesh: bool) -> bool {
        self.mode != ClientMode::Auto || mesh
    }

    /// Whether those that are spoken to with TLS prove to be of the mesh.
    #[inline]
    pub fn is_mesh(&self) -> bool {
        matches!(self.mode, ClientMode::IstioMutual | ClientMode::Auto)
    }

    /// Whether its endpoints are outside the mesh, where TLS is the scheme `https`.
    pub fn is_outside(&self) -> bool {
        matches!(self.mode, ClientMode::Simple | ClientMode::Mutual)
    }

    /// Whether the name asked for is the request's host.
    #[inline]
    pub fn asks_for_host(&self) -> bool {
        self.sni.is_none()
    }

    /// What tells connections apart that must not be taken for one another: the certificates in force and the
    /// name asked for. Never 0.
    #[inline]
    pub fn key(&self, host: &str) -> u64 {
        if self.sni.is_some() { self.id } else { self.key_of_host(host) }
    }

    fn key_of_host(&self, host: &str) -> u64 {
        static STATE: OnceLock<foldhash::quality::RandomState> = OnceLock::new();
        let mut hasher = STATE.get_or_init(Default::default).build_hasher();
        hasher.write_u64(self.id);
        host.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        // Ids are small numbers.
        hasher.finish() | 1 << 63
    }

    /// Does the handshake; `host` is the request's.
    ///
    /// # Errors
    /// Why there is no connection, in one of a fixed number of words and in all that is known.
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        io: IO,
        now: SystemTime,
    ) -> Result<ClientStream<IO>, (Refusal, String)> {
        let config = self.config.as_ref().map_err(|why| (Refusal::Unprepared, why.to_string()))?;
        let name = match &self.sni {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|_| (Refusal::Name, format!("{host:?} is not a name that can be asked for")))?,
        };
        let connecting = TlsConnector::from(config.clone()).connect_with(name, io, |connection| {
            connection.set_buffer_limit(Some(BUFFER));
        });
        let stream = connecting.await.map_err(|error| {
            let refusal = Refusal::of_io(&error);
            (refusal, format!("{refusal} ({error})"))
        })?;
        // A resumed session has not been checked again.
        match peer(&stream) {
            Some(peer) if peer.not_after <= now => Err((Refusal::Expired, Refusal::Expired.to_string())),
            _ => Ok(stream),
        }
    }

    /// Why there can be no connection.
    pub fn trouble(&self) -> Option<&str> {
        self.config.as_ref().err().map(|why| &**why)
    }
}

fn peer<IO>(stream: &ClientStream<IO>) -> Option<Certificate> {
    facts(stream.get_ref().1.peer_certificates()?.first()?)
}
