//! What a certificate says, in plain words. Read after a handshake or when a file is loaded, never for a
//! request.

use super::{hex, sha256};
use crate::record::Certificate;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

/// Of names of one kind in one certificate, more are not kept.
const MAX_NAMES: usize = 64;

/// The facts of a certificate; `None`: it is not one.
pub fn facts(der: &[u8]) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let (mut uris, mut dns, mut ips) = (Vec::new(), Vec::new(), Vec::new());
    if let Ok(Some(names)) = parsed.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) if uris.len() < MAX_NAMES => uris.push(Box::from(*uri)),
                GeneralName::DNSName(name) if dns.len() < MAX_NAMES => dns.push(Box::from(*name)),
                GeneralName::IPAddress(bytes) if ips.len() < MAX_NAMES => ips.extend(address(bytes)),
                _ => {}
            }
        }
    }
    let principal = spiffe(uris.iter().map(|uri| &**uri)).map(Box::from);
    Some(Certificate {
        principal,
        uris,
        dns,
        ips,
        subject: parsed.subject().to_string().into(),
        issuer: parsed.issuer().to_string().into(),
        serial: hex(parsed.raw_serial()).into(),
        sha256: hex(&sha256(der)).into(),
        not_before: time(parsed.validity().not_before),
        not_after: time(parsed.validity().not_after),
    })
}

/// Until when a certificate is valid.
pub fn expiry(der: &[u8]) -> Option<SystemTime> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(time(parsed.validity().not_after))
}

/// The public key of a certificate, as pins are made of it.
pub(super) fn key_of(der: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

/// The SPIFFE identity among URIs, without the scheme. More than one is none: it would not be clear who it is.
pub(super) fn spiffe<'a>(uris: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut found = uris.filter_map(|uri| uri.strip_prefix("spiffe://"));
    let first = found.next()?;
    (found.next().is_none() && !first.is_empty()).then_some(first)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let sum = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    sum.unwrap_or(SystemTime::UNIX_EPOCH)
}
