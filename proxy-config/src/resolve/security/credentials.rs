//! Certificates, keys and authorities: from Secrets of the input by name, or from files.
//!
//! What cannot be had is said, and stays a credential that says why: what needs it is refused, never served
//! without.

use crate::api::Meta;
use crate::api::istio::{ServerTls, TlsMode};
use crate::api::kubernetes::Secret;
use crate::model::{Credential, Pem};
use crate::report::{At, Level, Problem};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keys of a Secret by what they hold, the usual one first.
const CERTIFICATE: [&str; 2] = ["tls.crt", "cert"];
const KEY: [&str; 2] = ["tls.key", "key"];
const ROOTS: [&str; 2] = ["ca.crt", "cacert"];
const REVOKED: [&str; 2] = ["ca.crl", "crl"];

/// Every Secret by namespace and name, and the namespace where gateways stand.
pub(crate) struct Credentials<'a> {
    secrets: BTreeMap<(&'a str, &'a str), &'a Secret>,
    root: &'a str,
}

/// Where a credential is written.
pub(crate) struct Written<'w> {
    /// The object.
    pub meta: &'w Meta,
    /// The field: `spec.servers[0].tls`.
    pub path: String,
}

impl<'a> Credentials<'a> {
    /// From the Secrets of the input.
    pub fn new(secrets: &[&'a Secret], root: &'a str) -> Credentials<'a> {
        let by_name = |secret: &&'a Secret| {
            let object = &secret.meta.object;
            ((object.namespace.as_str(), object.name.as_str()), *secret)
        };
        Credentials { secrets: secrets.iter().map(by_name).collect(), root }
    }

    /// `name`, `kubernetes://name` or `kubernetes-gateway://namespace/name`, seen from `namespace`. Gateways
    /// look where they stand, so the root namespace is tried too.
    fn find(&self, name: &str, namespace: &str) -> Option<&'a Secret> {
        let (namespaces, name) = match name.strip_prefix("kubernetes-gateway://") {
            Some(full) => {
                let (namespace, name) = full.split_once('/')?;
                (vec![namespace], name)
            }
            None => (vec![namespace, self.root], name.strip_prefix("kubernetes://").unwrap_or(name)),
        };
        namespaces.into_iter().find_map(|namespace| self.secrets.get(&(namespace, name)).copied())
    }

    /// The Secret, or why there is none, which is told.
    fn secret(
        &self,
        name: &At<String>,
        written: &Written<'_>,
        problems: &mut Vec<Problem>,
    ) -> Result<&'a Secret, String> {
        let namespace = &written.meta.object.namespace;
        self.find(&name.value, namespace).ok_or_else(|| {
            let why = format!("there is no Secret {:?} in namespace {namespace}", name.value);
            let message = format!("Referenced credentialName not found: {:?}", name.value);
            let help =
                format!("{why}: handshakes that need it are refused; add it to the YAML, or name files");
            let path = format!("{}.credentialName", written.path);
            let problem = written.meta.problem(Level::Error, "IST0101", path, name.at, message);
            problems.push(problem.with_help(help));
            why
        })
    }

    /// What a Gateway's server shows, and whom it trusts.
    pub fn server(&self, tls: &ServerTls, written: &Written<'_>, problems: &mut Vec<Problem>) -> Credential {
        if matches!(tls.mode, TlsMode::Passthrough | TlsMode::AutoPassthrough | TlsMode::IstioMutual) {
            return Credential::default();
        }
        let file = |name: &String| Pem::File(beside(&written.meta.file, name));
        let mut credential = Credential {
            pair: tls.files.as_ref().map(|(certificate, key)| (file(certificate), file(key))),
            roots: tls.ca_file.as_ref().map(file),
            revoked: tls.crl_file.as_ref().map(file),
            missing: None,
        };
        let asks = matches!(tls.mode, TlsMode::Mutual | TlsMode::OptionalMutual);
        if let Some(name) = &tls.credential {
            self.pair(name, asks, &mut credential, written, problems);
        }
        if let (Some(name), true) = (&tls.ca_credential, asks) {
            match self.secret(name, written, problems) {
                Ok(secret) => credential.roots = secret.value(&ROOTS).cloned(),
                Err(why) => credential.missing = Some(why),
            }
        }
        if asks && credential.roots.is_none() && credential.missing.is_none() {
            let name = tls.credential.as_ref().map_or("", |name| &name.value);
            let why = format!("no authorities for the certificates of clients in Secret {name:?}");
            let help = format!("add ca.crt to it, or a Secret {name}-cacert with cacert");
            let problem = written.meta.problem(Level::Error, "IST0161", &written.path, tls.at, why.clone());
            problems.push(problem.with_help(help));
            credential.missing = Some(why);
        }
        credential
    }

    /// Certificate and key of a Secret, and the authorities that stand in it or beside it.
    pub fn pair(
        &self,
        name: &At<String>,
        authorities: bool,
        credential: &mut Credential,
        written: &Written<'_>,
        problems: &mut Vec<Problem>,
    ) {
        let secret = match self.secret(name, written, problems) {
            Ok(secret) => secret,
            Err(why) => {
                credential.missing = Some(why);
                return;
            }
        };
        match (secret.value(&CERTIFICATE), secret.value(&KEY)) {
            (Some(certificate), Some(key)) => credential.pair = Some((certificate.clone(), key.clone())),
            (certificate, _) => {
                let lacks = if certificate.is_none() { "tls.crt (or cert)" } else { "tls.key (or key)" };
                let why = format!("Secret {} has no {lacks}", secret.meta.object.name);
                let path = format!("{}.credentialName", written.path);
                problems.push(written.meta.problem(Level::Error, "IST0161", path, name.at, why.clone()));
                credential.missing = Some(why);
            }
        }
        if authorities {
            self.authorities(name, secret, credential, &written.meta.object.namespace);
        }
    }

    /// What is shown to a destination (`shows`), and whom it must come from.
    pub fn client(
        &self,
        name: &At<String>,
        shows: bool,
        credential: &mut Credential,
        written: &Written<'_>,
        problems: &mut Vec<Problem>,
    ) {
        if shows {
            return self.pair(name, true, credential, written, problems);
        }
        match self.secret(name, written, problems) {
            Ok(secret) => self.authorities(name, secret, credential, &written.meta.object.namespace),
            Err(why) => credential.missing = Some(why),
        }
        // Without the authorities that were asked for, others are not believed instead.
        if credential.roots.is_none() && credential.missing.is_none() {
            let why = format!("Secret {} has no ca.crt (or cacert)", name.value);
            let path = format!("{}.credentialName", written.path);
            problems.push(written.meta.problem(Level::Error, "IST0161", path, name.at, why.clone()));
            credential.missing = Some(why);
        }
    }

    fn authorities(&self, name: &At<String>, secret: &Secret, credential: &mut Credential, namespace: &str) {
        let beside = self.find(&format!("{}-cacert", name.value), namespace);
        let all = || beside.into_iter().chain([secret]);
        if let Some(roots) = all().find_map(|secret| secret.value(&ROOTS)) {
            credential.roots = Some(roots.clone());
        }
        if let Some(revoked) = all().find_map(|secret| secret.value(&REVOKED)) {
            credential.revoked = Some(revoked.clone());
        }
    }
}

/// A path in a YAML file is seen from where that file stands.
pub(crate) fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}
