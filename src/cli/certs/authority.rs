//! A development authority: made once, kept in files, issuing as often as it is asked.

use crate::clock;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Of the authority itself.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks differ.
const EARLIER: Duration = Duration::from_secs(300);

/// A development authority of one trust domain.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    /// Its certificate, in PEM.
    pub certificate: String,
}

/// Whose certificate it is to be.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// A workload of the mesh.
    Workload {
        /// Its namespace.
        namespace: &'a str,
        /// Its service account.
        account: &'a str,
    },
    /// A server outside the mesh.
    Host(&'a str),
}

/// A certificate with its key and authority, in PEM.
pub struct Issued {
    /// SPIFFE identity or host.
    pub name: String,
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
    /// The authority's certificate.
    pub roots: String,
}

impl Authority {
    /// A new authority that is in no file.
    ///
    /// # Errors
    /// There is no randomness, or the name cannot stand in a certificate.
    pub fn new(trust_domain: &str) -> Result<Authority, String> {
        let key = KeyPair::generate().map_err(failed)?;
        let params = params(trust_domain)?;
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), trust_domain: trust_domain.to_owned(), certificate })
    }

    /// The authority in `directory`, made if there is none; true: it was made.
    ///
    /// # Errors
    /// What is there is not one of this trust domain that this program made, or nothing can be written.
    pub fn in_directory(directory: &Path, trust_domain: &str) -> Result<(Authority, bool), String> {
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !certificate.exists() && !key.exists() {
            let authority = Authority::new(trust_domain)?;
            fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            write_new(&key, &authority.issuer.key().serialize_pem(), 0o600)?;
            write_new(&certificate, &authority.certificate, 0o644)?;
            return Ok((authority, true));
        }
        let text = read(&certificate)?;
        let key = KeyPair::from_pem(&read(&key)?)
            .map_err(|error| format!("{}: {error}; it is not replaced", key.display()))?;
        let params = params(trust_domain)?;
        let again = Authority {
            issuer: Issuer::new(params, key),
            trust_domain: trust_domain.to_owned(),
            certificate: text,
        };
        again.check(&certificate)?;
        Ok((again, false))
    }

    /// Whether the certificate that was read is of this name and key.
    fn check(&self, path: &Path) -> Result<(), String> {
        let other = |why: &str| {
            format!(
                "{}: {why}; it is not replaced. Give another --out, or the --trust-domain it was made for",
                path.display()
            )
        };
        let body: String = self.certificate.lines().filter(|line| !line.starts_with("-----")).collect();
        use base64::Engine;
        let der = base64::engine::general_purpose::STANDARD.decode(body).ok();
        let facts = der.as_deref().and_then(crate::tls::facts).ok_or_else(|| other("not a certificate"))?;
        if *facts.subject != format!("CN={}", name(&self.trust_domain)) {
            return Err(other(&format!("the authority there is {}", facts.subject)));
        }
        let probe = self.issue(&Names::Host("probe.invalid"), Duration::from_secs(3600))?;
        if crate::tls::is_issued_by(&probe.chain, &self.certificate) {
            Ok(())
        } else {
            Err(other("ca.key beside it is the key of another"))
        }
    }

    /// A certificate that is valid from now on for `validity`.
    ///
    /// # Errors
    /// There is no randomness, or a name cannot stand in a certificate.
    pub fn issue(&self, names: &Names<'_>, validity: Duration) -> Result<Issued, String> {
        self.issue_until(names, validity.as_secs() as i64)
    }

    /// The same; less than nothing: it has expired so many seconds ago.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_until(&self, names: &Names<'_>, seconds: i64) -> Result<Issued, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let (san, name) = match names {
            Names::Workload { namespace, account } => {
                let id = format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain);
                (SanType::URI(id.as_str().try_into().map_err(failed)?), id)
            }
            Names::Host(host) => {
                params.distinguished_name.push(DnType::CommonName, *host);
                (SanType::DnsName((*host).try_into().map_err(failed)?), (*host).to_owned())
            }
        };
        params.subject_alt_names = vec![san];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = clock::wall();
        let far = Duration::from_secs(seconds.unsigned_abs());
        let end = if seconds < 0 { now.checked_sub(far) } else { now.checked_add(far) };
        let end = end.ok_or("the validity is beyond all calendars")?;
        params.not_before = (now.min(end) - EARLIER).into();
        params.not_after = end.into();
        let key = KeyPair::generate().map_err(failed)?;
        let made: Certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued { name, chain: made.pem(), key: key.serialize_pem(), roots: self.certificate.clone() })
    }
}

impl Issued {
    /// Writes certificate, key and authority under these names, each file replaced as a whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, directory: &Path, [chain, key, roots]: [&str; 3]) -> Result<(), String> {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let texts = [(roots, &self.roots, 0o644), (key, &self.key, 0o600), (chain, &self.chain, 0o644)];
        for (name, text, mode) in texts {
            let (path, fresh) = (directory.join(name), directory.join(format!(".{name}.new")));
            let _ = fs::remove_file(&fresh);
            write_new(&fresh, text, mode)?;
            fs::rename(&fresh, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

fn name(trust_domain: &str) -> String {
    format!("Pilotlight development authority of {trust_domain}")
}

fn params(trust_domain: &str) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name(trust_domain));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = clock::wall();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + TEN_YEARS).into();
    Ok(params)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}; it is not replaced", path.display()))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let write = |mut file: fs::File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    options.open(path).and_then(write).map_err(|error| format!("{}: {error}", path.display()))
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("a certificate cannot be made: {error}")
}
