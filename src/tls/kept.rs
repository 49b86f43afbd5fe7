//! One certificate with its authorities, as it is found again and again: what is good replaces what was, what is not
//! leaves it in force and is told.

use super::material::{self, Material, Trouble};
use crate::clock;
use proxy_config::model::{Credential, Pem};
use std::path::Path;
use std::time::Duration;

/// How often a pair that does not fit together is read again, and how long after: it is being replaced.
const AGAIN: (u32, Duration) = (5, Duration::from_millis(20));

/// One credential: where it is, and the best that was found there.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) credential: Credential,
    pub(super) good: Option<Material>,
    pub(super) problem: Option<String>,
    /// Asked for since the last [`super::Keyring::begin`].
    pub(super) used: bool,
}

impl Kept {
    /// Looks what is there now; what is better stays.
    pub(super) fn look(&mut self) {
        let mut tries = AGAIN.0;
        self.problem = loop {
            match material::load(&self.credential) {
                Ok(material) => {
                    let now = clock::wall();
                    let before = self.good.as_ref().filter(|good| good.is_unusable(now).is_none());
                    let unusable = before.and(material.is_unusable(now));
                    match unusable {
                        Some(_) => self.follow(material),
                        None => self.good = Some(material),
                    }
                    break unusable;
                }
                Err(Trouble::Mismatch(_)) if tries > 0 && files(&self.credential).next().is_some() => {
                    tries -= 1;
                    std::thread::sleep(AGAIN.1);
                }
                Err(trouble) => {
                    let others = Credential { pair: None, ..self.credential.clone() };
                    if let Ok(material) = material::load(&others) {
                        self.follow(material);
                    }
                    break Some(trouble.text());
                }
            }
        };
    }

    /// Authorities are what is there, whatever the pair is: one that was taken back is gone.
    fn follow(&mut self, found: Material) {
        if let Some(good) = &mut self.good
            && good.trust != found.trust
        {
            *good = found.with_pair_of(good);
        }
    }

    /// Says what is wrong, where something older stands in for it.
    pub(super) fn tell(&self) {
        let Some(problem) = &self.problem else { return };
        let meanwhile = match &self.good {
            Some(_) => "what was good before stays in force",
            None => "there is none before it",
        };
        tracing::warn!("certificate: {problem}; {meanwhile}");
    }
}

/// A workload's own certificate.
pub(super) fn in_directory(directory: &Path) -> Credential {
    let set = |chain: &str, key: &str, roots: &str| Credential {
        pair: Some((Pem::File(directory.join(chain)), Pem::File(directory.join(key)))),
        roots: Some(Pem::File(directory.join(roots))),
        ..Credential::default()
    };
    // The first unless only the second is there; which it is may be known only later.
    if !directory.join("cert-chain.pem").exists() && directory.join("tls.crt").exists() {
        set("tls.crt", "tls.key", "ca.crt")
    } else {
        set("cert-chain.pem", "key.pem", "root-cert.pem")
    }
}

fn texts(credential: &Credential) -> impl Iterator<Item = &Pem> {
    let pair = credential.pair.iter().flat_map(|(chain, key)| [chain, key]);
    pair.chain(&credential.roots).chain(&credential.revoked)
}

/// Where it is read.
pub(super) fn files(credential: &Credential) -> impl Iterator<Item = &Path> {
    texts(credential).filter_map(|pem| match pem {
        Pem::File(path) => Some(path.as_path()),
        Pem::Text { .. } => None,
    })
}

/// Where a credential comes from, without what it says.
pub(super) fn source(credential: &Credential) -> String {
    let names: Vec<String> = texts(credential).map(material::name).collect();
    if names.is_empty() { credential.missing.clone().unwrap_or_default() } else { names.join(", ") }
}
