//! Certificates, keys and authorities, and what is made of them: the TLS of listeners and clusters.
//!
//! PEM texts become materials, materials become rustls configurations, kept as long as nothing they come from
//! changes. A change of anything makes a new configuration with new ticket keys, so that no session is resumed
//! across a change of trust. This room opens no socket and decides nothing about requests.

mod certificate;
mod cipher;
mod client;
mod configure;
mod hello;
mod inbound;
mod kept;
mod keyring;
mod material;
mod names;
mod refusal;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod verify;
mod vouch;

pub use certificate::{expiry, facts};
pub use client::{Client, ClientStream, Protocols};
pub use hello::{Hello, MAX_HELLO, Seen};
pub use inbound::Inbound;
pub use keyring::{Keyring, Shown, Trust};
pub use material::is_issued_by;
pub use refusal::Refusal;
pub use server::{Chain, Choice, Elsewhere, Opened, Passthrough, ServerStream, Servers, Terms};
pub use stream::Stream;
pub use vouch::vouch;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// ALPN of HTTP/1.1.
const HTTP1: &[u8] = b"http/1.1";
/// ALPN of HTTP/1.0; who speaks it asks for it, and understands what is answered.
const HTTP10: &[u8] = b"http/1.0";
/// ALPN of HTTP/2.
const HTTP2: &[u8] = b"h2";
/// ALPNs by which proxies of a mesh know each other: what they speak is said by the last but one.
const MESH: [&[u8]; 5] =
    [b"istio-http/1.1", b"istio-h2", b"istio-http/1.0", b"istio", b"istio-peer-exchange"];

/// The one provider of this process; never the process default, which any dependency could set.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())).clone()
}

/// SHA-256.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    if let Some(suite) = suite.tls13() {
        out.copy_from_slice(suite.common.hash_provider.hash(bytes).as_ref());
    }
    out
}

/// Lower case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For certificates.
fn unix(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
