//! PEM texts to what can be used: a certificate with its key, authorities, revoked certificates.
//!
//! Errors say which file or object, what is wrong with it, and what to do. No error shows a text.

use super::certificate::facts;
use super::{hex, provider, sha256};
use proxy_config::model::{Credential, Pem};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes of one file at most; bundles of all public authorities have 300 KiB.
const MAX_FILE: u64 = 4 << 20;

/// What a credential is made of, ready for use.
#[derive(Clone)]
pub(super) struct Material {
    /// Certificate chain and key.
    pub(super) own: Option<Own>,
    /// Authorities of the other side.
    pub(super) roots: Option<Arc<Roots>>,
    /// Changes whenever anything here does.
    pub(super) digest: Arc<str>,
    /// Changes whenever the authorities or what they took back does.
    pub(super) trust: Arc<str>,
}

/// A certificate of ours.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) key: Arc<CertifiedKey>,
    /// What the certificate is called in messages.
    pub(super) from: Arc<str>,
    /// SPIFFE identity without `spiffe://`.
    pub(super) principal: Option<Arc<str>>,
    /// The URI as it stands in the certificate.
    pub(super) uri: Option<Arc<str>>,
    pub(super) not_after: SystemTime,
    /// From its beginning to its end.
    pub(super) lifetime: Duration,
}

/// Authorities, and what they took back.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    pub(super) revoked: Vec<webpki::CertRevocationList<'static>>,
}

/// Why a credential cannot be used.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Certificate and key do not belong together: perhaps one of them is just being replaced.
    Mismatch(String),
    /// Anything else.
    Other(String),
}

impl Material {
    /// Why the pair is of no use at `now`, whoever looks at it.
    pub(super) fn is_unusable(&self, now: SystemTime) -> Option<String> {
        let own = self.own.as_ref()?;
        let why = if own.not_after <= now {
            "has expired"
        } else if own.not_after.checked_sub(own.lifetime).is_some_and(|from| now < from) {
            "is not valid yet"
        } else {
            return None;
        };
        Some(format!("{}: the certificate {why}", own.from))
    }

    /// The same with the certificate and key of another.
    pub(super) fn with_pair_of(self, other: &Material) -> Material {
        // Not what is made of these files once their pair is of use.
        let digest = hex(&sha256(format!("{} {}", self.digest, other.digest).as_bytes())).into();
        Material { own: other.own.clone(), digest, ..self }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({})", self.digest)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} authorities, {} lists)", self.store.len(), self.revoked.len())
    }
}

impl Trouble {
    pub(super) fn text(self) -> String {
        match self {
            Trouble::Mismatch(text) | Trouble::Other(text) => text,
        }
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Trouble {
        Trouble::Other(text)
    }
}

/// Reads texts, each directory that Kubernetes swaps as one in the state it has at first.
#[derive(Default)]
struct Reader {
    settled: HashMap<PathBuf, PathBuf>,
    digest: Vec<u8>,
}

impl Reader {
    fn text(&mut self, pem: &Pem) -> Result<Arc<str>, String> {
        let text = match pem {
            Pem::Text { text, .. } => text.clone(),
            Pem::File(path) => self.file(path)?,
        };
        self.digest.extend(sha256(text.as_bytes()));
        Ok(text)
    }

    fn file(&mut self, path: &Path) -> Result<Arc<str>, String> {
        let open = |path: &Path| -> std::io::Result<String> {
            let mut text = String::new();
            std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
            Ok(text)
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(format!("{}: not a file", path.display()));
        };
        // A projected volume is swapped by one link: all of it is read from behind the same one.
        let home = self.settled.entry(parent.to_owned()).or_insert_with(|| {
            std::fs::canonicalize(parent.join("..data")).unwrap_or_else(|_| parent.to_owned())
        });
        let settled = home.join(name);
        let text = open(&settled).or_else(|_| open(path));
        text.map(Arc::from)
            .map_err(|error| format!("{}: {error}; it must be a readable PEM file", path.display()))
    }
}

/// Reads and checks a credential.
pub(super) fn load(credential: &Credential) -> Result<Material, Trouble> {
    if let Some(missing) = &credential.missing {
        return Err(Trouble::Other(missing.clone()));
    }
    let mut reader = Reader::default();
    let own = match &credential.pair {
        Some((chain, key)) => Some(own(&mut reader, chain, key)?),
        None => None,
    };
    let before = reader.digest.len();
    let mut roots = None;
    if let Some(pem) = &credential.roots {
        let text = reader.text(pem)?;
        roots = Some((pem, text));
    }
    let revoked = match &credential.revoked {
        Some(pem) => lists(pem, &reader.text(pem)?)?,
        None => Vec::new(),
    };
    let roots = match roots {
        Some((pem, text)) => Some(Arc::new(Roots { store: authorities(pem, &text)?, revoked })),
        None => None,
    };
    let trust = hex(&sha256(&reader.digest[before..])).into();
    Ok(Material { own, roots, digest: hex(&sha256(&reader.digest)).into(), trust })
}

fn own(reader: &mut Reader, chain: &Pem, key: &Pem) -> Result<Own, Trouble> {
    let (chain_text, key_text) = (reader.text(chain)?, reader.text(key)?);
    let certificates = certificates(chain, &chain_text)?;
    let der = PrivateKeyDer::from_pem_slice(key_text.as_bytes()).map_err(|_| {
        let hint = if key_text.contains("ENCRYPTED") {
            "it is encrypted; decrypt it first"
        } else {
            "no private key in PEM form"
        };
        format!("{}: {hint}", name(key))
    })?;
    let signing = provider()
        .key_provider
        .load_private_key(der)
        .map_err(|error| format!("{}: {error}; use an ECDSA P-256, P-384, Ed25519 or RSA key", name(key)))?;
    let facts = facts(&certificates[0]).ok_or_else(|| format!("{}: not a certificate", name(chain)))?;
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => {
            return Err(Trouble::Mismatch(format!(
                "{} and {} do not belong together: the certificate is for another key",
                name(chain),
                name(key)
            )));
        }
    }
    let uri = facts.uris.first().map(|uri| Arc::from(&**uri));
    Ok(Own {
        key: Arc::new(certified),
        from: name(chain).into(),
        principal: facts.principal.as_deref().map(Arc::from),
        uri,
        not_after: facts.not_after,
        lifetime: facts.not_after.duration_since(facts.not_before).unwrap_or_default(),
    })
}

fn certificates(pem: &Pem, text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{}: no certificate in PEM form", name(pem))),
        Err(error) => Err(format!("{}: {error}", name(pem))),
    }
}

fn authorities(pem: &Pem, text: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let mut seen: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in certificates(pem, text)? {
        // Bundles of rotations repeat themselves, and many of one name exhaust a verifier.
        if !seen.contains(&certificate) {
            store
                .add(certificate.clone())
                .map_err(|error| format!("{}: an authority cannot be used: {error}", name(pem)))?;
            seen.push(certificate);
        }
    }
    Ok(store)
}

fn lists(pem: &Pem, text: &str) -> Result<Vec<webpki::CertRevocationList<'static>>, String> {
    CertificateRevocationListDer::pem_slice_iter(text.as_bytes())
        .map(|list| {
            let list = list.map_err(|error| format!("{}: {error}", name(pem)))?;
            webpki::OwnedCertRevocationList::from_der(&list)
                .map(webpki::CertRevocationList::from)
                .map_err(|error| format!("{}: not a revocation list: {error}", name(pem)))
        })
        .collect()
}

/// What a text is called in messages.
pub(super) fn name(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text { from, .. } => from.clone(),
    }
}

/// The authorities of this system, for destinations that name none.
pub(super) fn system() -> Result<Arc<Roots>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        return Err(
            "this system has no certificate authorities; name some with caCertificates, or set SSL_CERT_FILE"
                .to_owned(),
        );
    }
    Ok(Arc::new(Roots { store, revoked: Vec::new() }))
}

impl Roots {
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.store.roots
    }
}

/// Whether a certificate was signed by an authority; both in PEM.
pub fn is_issued_by(chain: &str, authority: &str) -> bool {
    let (Ok(leaf), Ok(root)) = (
        CertificateDer::from_pem_slice(chain.as_bytes()),
        CertificateDer::from_pem_slice(authority.as_bytes()),
    ) else {
        return false;
    };
    let mut store = RootCertStore::empty();
    if store.add(root).is_err() {
        return false;
    }
    let roots = Roots { store, revoked: Vec::new() };
    super::verify::is_from(&roots, &leaf, super::unix(crate::clock::wall()))
}
