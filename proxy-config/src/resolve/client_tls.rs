//! How the endpoints of a cluster are spoken to: what a rule says, else what the mesh does by itself.

use super::registry::Service;
use super::rules::{self, Rule, Subset, Tls};
use crate::model::{ClientMode, ClientTls, Credential, Endpoints, Mesh, Mtls, MtlsPolicy};

/// Who speaks.
pub(crate) struct Caller<'m> {
    /// Settings of the mesh.
    pub mesh: &'m Mesh,
    /// It has a certificate of the mesh (a sidecar).
    pub certified: bool,
}

/// What is being called.
pub(crate) struct Callee<'c> {
    /// The service.
    pub service: &'c Service,
    /// The port as it is dialled.
    pub port: u16,
    /// The subset, and the rule that holds.
    pub subset: Option<&'c Subset>,
    /// The rule for the service.
    pub rule: Option<&'c Rule>,
    /// The endpoints that are left.
    pub endpoints: &'c Endpoints,
    /// What they accept.
    pub accepts: &'c MtlsPolicy,
}

impl Caller<'_> {
    /// The TLS spoken, if any.
    pub fn tls(&self, to: &Callee<'_>) -> Option<ClientTls> {
        let base = to.rule.and_then(|rule| rule.terms.as_ref());
        let own = to.subset.and_then(|subset| subset.terms.as_ref());
        match rules::tls(base, own, to.port) {
            Some(Tls::Plain) => None,
            Some(Tls::Spoken(written)) if written.mode == ClientMode::IstioMutual => {
                self.certified.then(|| self.mutual((*written).clone(), to))
            }
            Some(Tls::Spoken(written)) => {
                let mut tls = (*written).clone();
                if tls.names.is_empty() {
                    tls.names.clone_from(&to.service.behind.certified);
                }
                Some(tls)
            }
            None => (self.certified && self.mesh.auto_mtls && self.joins(to)).then(|| {
                let none = ClientTls {
                    mode: ClientMode::Auto,
                    credential: Credential::default(),
                    names: Vec::new(),
                    sni: None,
                    insecure: false,
                };
                self.mutual(none, to)
            }),
        }
    }

    /// Whether any endpoint has a proxy of the mesh that takes mutual TLS.
    fn joins(&self, to: &Callee<'_>) -> bool {
        let Endpoints::Static(all) = to.endpoints else { return false };
        let takes = |port: u16| to.accepts.at(port) != Mtls::Disable;
        !to.service.behind.outside && all.iter().any(|e| e.mesh_tls && takes(e.address.port()))
    }

    /// Names and SNI of the mesh where none are written.
    fn mutual(&self, mut tls: ClientTls, to: &Callee<'_>) -> ClientTls {
        let subset = to.subset.map_or("", |subset| subset.name.as_str());
        if tls.sni.is_none() {
            tls.sni = Some(format!("outbound_.{}_.{subset}_.{}", to.port, to.service.host));
        }
        if tls.names.is_empty() {
            let behind = &to.service.behind;
            tls.names.clone_from(&behind.certified);
            let domains = std::iter::once(&self.mesh.trust_domain).chain(&self.mesh.trust_domain_aliases);
            for domain in domains {
                let accounts = behind.accounts.iter().filter_map(|account| account.split_once('/'));
                tls.names
                    .extend(accounts.map(|(namespace, name)| format!("{domain}/ns/{namespace}/sa/{name}")));
            }
        }
        tls
    }
}
