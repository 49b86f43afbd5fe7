//! Mutual TLS around a proxy that is measured: one part of the rig encrypts the load, another opens what goes to
//! the upstream. Both only carry bytes, and are not counted.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pilotlight::cli::certs::{Authority, Names};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name that is asked for everywhere.
pub const HOST: &str = "hop.test";

/// Certificates of one authority for all parts, in `directory`.
pub fn issue(directory: &Path) -> io::Result<()> {
    let authority = Authority::new("cluster.local").map_err(io::Error::other)?;
    let issued = authority.issue(&Names::Host(HOST), Duration::from_secs(3600)).map_err(io::Error::other)?;
    issued.write(directory, ["tls.crt", "tls.key", "ca.crt"]).map_err(io::Error::other)
}

type Material = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, Arc<RootCertStore>);

fn material(directory: &Path) -> io::Result<Material> {
    let read = |name: &str| fs::read(directory.join(name));
    let chain = CertificateDer::pem_slice_iter(&read("tls.crt")?).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key")?).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(&read("ca.crt")?).map_err(io::Error::other)?;
    roots.add(root).map_err(io::Error::other)?;
    Ok((chain.map_err(io::Error::other)?, key, Arc::new(roots)))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Of a client that shows its certificate.
pub fn client(directory: &Path) -> io::Result<ClientConfig> {
    let (chain, key, roots) = material(directory)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes plaintext and goes on encrypted.
pub fn wrap(to: SocketAddr, directory: &Path) -> io::Result<()> {
    let connector = TlsConnector::from(Arc::new(client(directory)?));
    serve(async move |stream| {
        let up = TcpStream::connect(to).await?;
        up.set_nodelay(true)?;
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        join(stream, connector.clone().connect(name, up).await?).await
    })
}

/// Of a server that asks for certificates.
fn server(directory: &Path) -> io::Result<ServerConfig> {
    let (chain, key, roots) = material(directory)?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(io::Error::other)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Does handshakes, and waits for the end of what they open.
pub fn accept(directory: &Path) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(server(directory)?));
    serve(async move |stream| {
        let mut opened = acceptor.clone().accept(stream).await?;
        let mut rest = [0; 1024];
        while opened.read(&mut rest).await? > 0 {}
        opened.shutdown().await
    })
}

/// Takes what is encrypted and goes on in plaintext.
pub fn unwrap(to: SocketAddr, directory: &Path) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(server(directory)?));
    serve(async move |stream| {
        let opened = acceptor.clone().accept(stream).await?;
        let up = TcpStream::connect(to).await?;
        up.set_nodelay(true)?;
        join(opened, up).await
    })
}

async fn join(
    mut one: impl AsyncRead + AsyncWrite + Unpin,
    mut other: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional(&mut one, &mut other).await.map(|_| ())
}

/// Serves until the process is ended.
fn serve(carry: impl AsyncFn(TcpStream) -> io::Result<()> + 'static) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        crate::process::announce(listener.local_addr()?);
        let carry = std::rc::Rc::new(carry);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let carry = carry.clone();
            tokio::task::spawn_local(async move {
                let _ = carry(stream).await;
            });
        }
    })
}
