//! The first message of a client: read whole before anything is answered, so that who answers, and whether it
//! is answered here at all, can depend on the name and protocols it asks for.

use super::MESH;
use super::refusal::Refusal;
use rustls::server::{Accepted, Acceptor};
use std::fmt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a first message at most; those of today have 2 KiB.
pub const MAX_HELLO: usize = 32 * 1024;
/// Read at once.
const CHUNK: usize = 2048;
/// A fatal alert: nobody answers for this name.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A first message, with the bytes it came as.
pub struct Hello {
    pub(super) accepted: Accepted,
    raw: Vec<u8>,
    seen: Seen,
}

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The name; `None`: none, which is also how clients ask for an address.
    pub sni: Option<String>,
    /// It is a proxy of a mesh.
    pub mesh: bool,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hello({:?})", self.seen)
    }
}

impl Hello {
    /// Reads it from `io`, which has given nothing yet.
    ///
    /// # Errors
    /// It is not TLS, or too long; the client has been told where there is a way to.
    pub async fn read<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO) -> Result<Hello, Refusal> {
        let mut acceptor = Acceptor::default();
        let mut raw: Vec<u8> = Vec::with_capacity(CHUNK);
        loop {
            let start = raw.len();
            if start >= MAX_HELLO {
                return Err(Refusal::NotTls);
            }
            if io.read_buf(&mut raw).await.map_err(|_| Refusal::Gone)? == 0 {
                return Err(Refusal::Gone);
            }
            let mut fresh = &raw[start..];
            while !fresh.is_empty() {
                let taken = acceptor.read_tls(&mut fresh).map_err(|_| Refusal::NotTls)?;
                if taken == 0 {
                    return Err(Refusal::NotTls);
                }
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(Hello { seen: seen(&accepted), accepted, raw }),
                Err((error, mut alert)) => {
                    let mut out = Vec::new();
                    if alert.write_all(&mut out).is_ok() {
                        let _ = io.write_all(&out).await;
                    }
                    return Err(Refusal::of(&error));
                }
            }
        }
    }

    /// What the client asks for.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The bytes it came as, for whoever answers it.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }

    /// Tells the client that nobody answers for the name it asked for.
    pub async fn unrecognized<IO: AsyncWrite + Unpin>(io: &mut IO) {
        let _ = io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = io.shutdown().await;
    }
}

fn seen(accepted: &Accepted) -> Seen {
    let hello = accepted.client_hello();
    let mesh = hello.alpn().is_some_and(|mut names| names.any(|name| MESH.contains(&name)));
    Seen { sni: hello.server_name().map(str::to_owned), mesh }
}
