//! All certificates in use: read, checked, kept until something better comes.
//!
//! What cannot be read, or does not fit together, leaves what was good before in force and is told. What is
//! made of the same things is the same thing: a reload that changes nothing here keeps sessions, and one that
//! does ends their resumption.

use super::cipher::with_suites;
use super::client::{Client, Protocols};
use super::configure::{client_config, server_terms};
use super::inbound::Inbound;
use super::kept::{Kept, files, in_directory, source};
use super::material::{self, Material, Roots};
use super::server::{Choice, Passthrough, Servers, Terms};
use super::verify::{Ask, ClientCheck};
use super::{HTTP1, HTTP2, HTTP10, provider};
use parking_lot::Mutex;
use proxy_config::model::{
    ClientMode, ClientTls, Credential, Mtls, OwnPort, ServerMode, TlsServer, TlsVersion,
};
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Of a certificate's life: when less is left, its end is warned of. Those that are renewed by themselves are
/// renewed earlier.
const WARN_AT: u32 = 5;
/// However long it lives.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Whose identities are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Trust domains; the mesh's own is first.
    pub domains: Vec<String>,
    /// The oldest version spoken inside the mesh.
    pub oldest: TlsVersion,
}

/// One certificate of ours, for metrics and the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `workload`, or where it was read from.
    pub name: String,
    /// Until when it is valid; `None`: there is none.
    pub not_after: Option<SystemTime>,
    /// How long it is valid from its beginning to its end.
    pub lifetime: Duration,
    /// What is wrong: what is in force may be older than what is there.
    pub problem: Option<String>,
    /// Its SPIFFE identity.
    pub principal: Option<String>,
}

/// All certificates in use.
#[derive(Debug, Default)]
pub struct Keyring {
    /// The directory of the workload's own certificate.
    own: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By where they come from.
    materials: HashMap<String, Kept>,
    terms: HashMap<String, Arc<Terms>>,
    /// What is asked of clients, by authorities and conditions: the same as long as those are.
    checks: HashMap<String, Arc<ClientCheck>>,
    clients: HashMap<String, Arc<Client>>,
    system: Option<Result<Arc<Roots>, String>>,
}

impl Keyring {
    /// With the workload's own certificate in `directory`, if there is one: `cert-chain.pem`, `key.pem`,
    /// `root-cert.pem`, or `tls.crt`, `tls.key`, `ca.crt`.
    pub fn new(directory: Option<&Path>) -> Keyring {
        Keyring { own: directory.map(Path::to_owned), state: Mutex::default() }
    }

    /// Whether there is nothing in it, and nothing is asked of it.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.state.lock().materials.is_empty()
    }

    /// Directories whose files matter.
    pub fn directories(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let kept = state.materials.values().map(|kept| &kept.credential);
        let own = self.own(&state);
        let mut found: Vec<PathBuf> = kept
            .chain(&own)
            .flat_map(files)
            .filter_map(|path| Some(path.parent()?.to_owned()))
            .map(|path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// A configuration is about to be compiled: what it does not ask for is forgotten by [`Keyring::end`].
    pub fn begin(&self) {
        self.state.lock().materials.values_mut().for_each(|kept| kept.used = false);
    }

    /// A configuration has been compiled.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.materials.retain(|_, kept| kept.used);
        state.terms.retain(|_, terms| Arc::strong_count(terms) > 1);
        state.clients.retain(|_, client| Arc::strong_count(client) > 1);
        state.checks.retain(|_, check| Arc::strong_count(check) > 1);
    }

    /// Reads all files again. True: something is different, and a configuration is to be compiled anew.
    pub fn refresh(&self) -> bool {
        let mut state = self.state.lock();
        let mut changed = false;
        if let Some(own) = self.own(&state)
            && let Some(kept) = state.materials.get_mut(OWN)
        {
            kept.credential = own;
        }
        for kept in state.materials.values_mut().filter(|kept| files(&kept.credential).next().is_some()) {
            let before = kept.good.as_ref().map(|good| good.digest.clone());
            let problem = kept.problem.clone();
            kept.look();
            changed |= before != kept.good.as_ref().map(|good| good.digest.clone());
            if kept.problem != problem {
                kept.tell();
            }
        }
        changed
    }

    /// The certificates in use.
    pub fn shown(&self) -> Vec<Shown> {
        let state = self.state.lock();
        let mut shown: Vec<Shown> = state
            .materials
            .iter()
            .filter(|(_, kept)| kept.credential.pair.is_some())
            .map(|(from, kept)| {
                let mine = kept.good.as_ref().and_then(|good| good.own.as_ref());
                let pair = kept.credential.pair.as_ref();
                Shown {
                    name: match pair {
                        _ if from == OWN => OWN.to_owned(),
                        Some((chain, _)) => material::name(chain),
                        None => from.clone(),
                    },
                    not_after: mine.map(|own| own.not_after),
                    lifetime: mine.map(|own| own.lifetime).unwrap_or_default(),
                    problem: kept.problem.clone(),
                    principal: mine.and_then(|own| own.principal.as_deref()).map(str::to_owned),
                }
            })
            .collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        shown
    }

    /// Why the workload's own certificate is not usable at `now`; `None`: it is, or nobody needs it.
    pub fn trouble(&self, now: SystemTime) -> Option<String> {
        let state = self.state.lock();
        let kept = state.materials.get(OWN)?;
        match kept.good.as_ref().and_then(|good| good.own.as_ref()) {
            None => Some(kept.problem.clone().unwrap_or_else(|| "there is no certificate".to_owned())),
            Some(mine) if mine.not_after <= now => {
                Some("the workload's own certificate has expired".to_owned())
            }
            Some(_) => None,
        }
    }

    /// Certificates of ours that end soon after `now`, with what is left.
    pub fn ending(&self, now: SystemTime) -> Vec<(String, Duration)> {
        let left = |shown: Shown| {
            let left = shown.not_after?.duration_since(now).unwrap_or_default();
            (left < WARN_BEFORE.min(shown.lifetime / WARN_AT)).then_some((shown.name, left))
        };
        self.shown().into_iter().filter_map(left).collect()
    }

    /// The TLS servers of a gateway's port. What cannot be had refuses its own clients, and is told.
    pub fn servers(&self, servers: &[TlsServer], trust: &Trust) -> (Servers, Vec<String>) {
        let mut state = self.state.lock();
        let (mut out, mut problems) = (Servers::default(), Vec::new());
        for server in servers {
            let choice = match server.mode {
                ServerMode::Passthrough => {
                    Choice::Passthrough(Arc::new(Passthrough::new(&server.sni_routes)))
                }
                _ => match self.gateway(&mut state, server, trust, &mut problems) {
                    Ok(terms) => Choice::Terminate(terms),
                    Err(why) => {
                        problems
                            .push(format!("{}: {why}; TLS clients of its hosts are refused", server.origin));
                        Choice::Unprepared
                    }
                },
            };
            for host in out.add(&server.hosts, &server.routed, &choice) {
                problems.push(format!("{}: {host} is another server's on this port already", server.origin));
            }
        }
        (out, problems)
    }

    fn gateway(
        &self,
        state: &mut State,
        server: &TlsServer,
        trust: &Trust,
        problems: &mut Vec<String>,
    ) -> Result<Arc<Terms>, String> {
        let mesh = server.mode == ServerMode::IstioMutual;
        let material = if mesh { self.workload(state)? } else { state.material(&server.credential)? };
        let own = material
            .own
            .clone()
            .ok_or("it has no certificate: set credentialName, or serverCertificate and privateKey")?;
        let check = match server.mode {
            ServerMode::Simple | ServerMode::Passthrough => None,
            ServerMode::IstioMutual => {
                let roots =
                    material.roots.clone().ok_or("the workload's certificate comes without authorities")?;
                Some((roots, Ask::Member(trust.domains.clone()), true))
            }
            ServerMode::Mutual | ServerMode::OptionalMutual => {
                let roots = material
                    .roots
                    .clone()
                    .ok_or("client certificates are asked for, and there are no authorities (caCertificates, or ca.crt in the Secret)")?;
                let ask = Ask::Edge {
                    names: server.client_names.clone(),
                    keys: server.client_spki.clone(),
                    certificates: server.client_hash.iter().map(|hash| plain_hex(hash)).collect(),
                };
                Some((roots, ask, server.mode == ServerMode::Mutual))
            }
        };
        let (suites, unknown) = with_suites(&server.ciphers);
        if !unknown.is_empty() {
            problems.push(format!(
                "{}: cipher suites that are not spoken here, and left out: {}",
                server.origin,
                unknown.join(", ")
            ));
        }
        let spec = format!(
            "{check:?} {:?} {:?} {:?} {}",
            server.mode, server.versions, server.ciphers, material.digest
        );
        if let Some(terms) = state.terms.get(&spec) {
            return Ok(terms.clone());
        }
        let face = format!("{check:?} {}", material.digest).into();
        let alpn = [HTTP2, HTTP1, HTTP10].into_iter().map(<[u8]>::to_vec).collect();
        let check = check.map(|(roots, ask, required)| state.check(&material, roots, ask, required));
        let terms = server_terms(own, check, suites, server.versions, alpn)?;
        let terms = Arc::new(Terms { face, misdirects: !mesh, ..terms });
        state.terms.insert(spec, terms.clone());
        Ok(terms)
    }

    /// A workload's inbound listener, by the ports of its program and the mode of each. `unopened`: what the
    /// program encrypts itself may reach it.
    ///
    /// The result without terms lets nobody in with TLS; the text says why there are none, or why they help nobody.
    pub fn inbound(
        &self,
        ports: &[(&OwnPort, Mtls)],
        unopened: bool,
        trust: &Trust,
    ) -> (Inbound, Option<String>) {
        if ports.iter().all(|(_, mode)| *mode == Mtls::Disable) {
            return (Inbound::new(ports, unopened, None), None);
        }
        let mut state = self.state.lock();
        match self.mesh_terms(&mut state, trust) {
            Ok(terms) => {
                let foreign = terms.foreign(&trust.domains);
                (Inbound::new(ports, unopened, Some(terms)), foreign)
            }
            Err(why) => {
                // Plaintext must not stand in for what cannot be had.
                let closed: Vec<_> = ports.iter().map(|(port, _)| (*port, Mtls::Strict)).collect();
                (Inbound::new(&closed, false, None), Some(why))
            }
        }
    }

    fn mesh_terms(&self, state: &mut State, trust: &Trust) -> Result<Arc<Terms>, String> {
        let material = self.workload(state)?;
        let spec = format!("mesh {trust:?} {}", material.digest);
        if let Some(terms) = state.terms.get(&spec) {
            return Ok(terms.clone());
        }
        let own = material.own.clone().ok_or(NO_OWN)?;
        let roots = material.roots.clone().ok_or("the workload's certificate comes without authorities")?;
        let check = Some(state.check(&material, roots, Ask::Member(trust.domains.clone()), true));
        let alpn = [HTTP2, HTTP1, HTTP10, b"istio-h2", b"istio-http/1.1", b"istio-http/1.0", b"istio"];
        let alpn = alpn.into_iter().map(<[u8]>::to_vec).collect();
        let terms = server_terms(own, check, provider(), (trust.oldest, TlsVersion::V13), alpn)?;
        let terms = Arc::new(Terms { face: material.digest, ..terms });
        state.terms.insert(spec, terms.clone());
        Ok(terms)
    }

    /// How a cluster is spoken to. What cannot be had refuses to connect: nothing goes in plaintext instead.
    pub fn client(
        &self,
        cluster: &str,
        tls: &ClientTls,
        protocols: Protocols,
        trust: &Trust,
    ) -> (Arc<Client>, Option<String>) {
        let mut state = self.state.lock();
        let mesh = matches!(tls.mode, ClientMode::IstioMutual | ClientMode::Auto);
        let material = if mesh { self.workload(&mut state) } else { state.material(&tls.credential) };
        let digest = match &material {
            Ok(material) => material.digest.to_string(),
            Err(why) => why.clone(),
        };
        // One for each cluster: sessions of one are not another's.
        let spec = format!("{cluster} {tls:?} {protocols:?} {:?} {digest}", trust.domains);
        if let Some(client) = state.clients.get(&spec) {
            return (client.clone(), client.trouble().map(|why| format!("cluster {cluster}: {why}")));
        }
        let made = material.and_then(|material| {
            let roots = match (&material.roots, tls.insecure) {
                (Some(roots), _) => Ok(roots.clone()),
                (None, true) => {
                    Ok(Arc::new(Roots { store: rustls::RootCertStore::empty(), revoked: Vec::new() }))
                }
                (None, false) if mesh => {
                    Err("the workload's certificate comes without authorities".to_owned())
                }
                (None, false) => state.system.get_or_insert_with(material::system).clone(),
            }?;
            client_config(&material, roots, tls, protocols, mesh, trust)
        });
        let (mut config, mut sni) = (made, None);
        if let Some(name) = &tls.sni {
            match ServerName::try_from(name.clone()) {
                Ok(name) => sni = Some(name),
                Err(_) => config = Err(format!("sni {name:?} is not a name that can be asked for")),
            }
        }
        let problem =
            config.as_ref().err().map(|why| format!("cluster {cluster}: {why}; nothing is sent to it"));
        state.next += 1;
        let client =
            Arc::new(Client { id: state.next, mode: tls.mode, config: config.map_err(Arc::from), sni });
        state.clients.insert(spec, client.clone());
        (client, problem)
    }

    fn workload(&self, state: &mut State) -> Result<Material, String> {
        let none = || Credential { missing: Some(NO_OWN.to_owned()), ..Credential::default() };
        let own = self.own(state).unwrap_or_else(none);
        state.kept(OWN.to_owned(), &own)
    }

    /// The files of the workload's own certificate: by the names that are there now, else those known.
    fn own(&self, state: &State) -> Option<Credential> {
        let found = in_directory(self.own.as_deref()?);
        let there = files(&found).next().is_some_and(Path::exists);
        match state.materials.get(OWN) {
            Some(kept) if !there => Some(kept.credential.clone()),
            _ => Some(found),
        }
    }
}

/// The workload's own material among all.
const OWN: &str = "workload";
const NO_OWN: &str =
    "this workload has no certificate: give --certs DIR (`pilotlight certs` makes some to try with)";

impl State {
    fn check(&mut self, of: &Material, roots: Arc<Roots>, ask: Ask, required: bool) -> Arc<ClientCheck> {
        let spec = format!("{ask:?} {required} {}", of.trust);
        self.checks.entry(spec).or_insert_with(|| ClientCheck::new(roots, ask, required)).clone()
    }

    fn material(&mut self, credential: &Credential) -> Result<Material, String> {
        self.kept(source(credential), credential)
    }

    fn kept(&mut self, from: String, credential: &Credential) -> Result<Material, String> {
        let kept = self.materials.entry(from).or_insert_with(|| {
            let mut kept = Kept { credential: credential.clone(), good: None, problem: None, used: true };
            kept.look();
            kept
        });
        kept.used = true;
        if kept.credential != *credential {
            kept.credential = credential.clone();
            kept.look();
            if kept.good.is_some() {
                kept.tell();
            }
        }
        match &kept.good {
            Some(good) => Ok(good.clone()),
            None => Err(kept.problem.clone().unwrap_or_default()),
        }
    }
}

/// Pins are also written in capitals and with colons.
fn plain_hex(text: &str) -> String {
    text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase()
}
