mod files;

use super::*;
use crate::cli::certs::{Authority, Names};
use proxy_config::model::{
    ClientMode, ClientTls, Credential, Mtls, ObjectRef, OwnPort, Pem, ServerMode, TlsServer, TlsVersion,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const HOUR: i64 = 3600;

/// Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pilotlight-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A workload's certificate, as `--certs` wants it.
    fn with(authority: &Authority, account: &str) -> Folder {
        let folder = Folder::new();
        folder.put(authority, account, HOUR);
        folder
    }

    fn put(&self, authority: &Authority, account: &str, seconds: i64) {
        let names = Names::Workload { namespace: "default", account };
        let issued = authority.issue_until(&names, seconds).unwrap();
        issued.write(&self.0, ["cert-chain.pem", "key.pem", "root-cert.pem"]).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn trust(domains: &[&str]) -> Trust {
    Trust { domains: domains.iter().map(|domain| (*domain).to_owned()).collect(), oldest: TlsVersion::V12 }
}

fn text(from: &str, text: &str) -> Pem {
    Pem::Text { from: from.to_owned(), text: text.into() }
}

fn pem(authority: &Authority, names: &Names<'_>) -> Credential {
    let issued = authority.issue_until(names, HOUR).unwrap();
    Credential {
        pair: Some((text("chain", &issued.chain), text("key", &issued.key))),
        roots: Some(text("roots", &issued.roots)),
        ..Credential::default()
    }
}

fn server(hosts: &[&str], mode: ServerMode, credential: Credential) -> TlsServer {
    TlsServer {
        origin: ObjectRef::default(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        mode,
        credential,
        client_names: Vec::new(),
        client_spki: Vec::new(),
        client_hash: Vec::new(),
        versions: (TlsVersion::V12, TlsVersion::V13),
        ciphers: Vec::new(),
        sni_routes: Vec::new(),
        routed: Vec::new(),
    }
}

fn client(mode: ClientMode, credential: Credential, names: &[&str], sni: Option<&str>) -> ClientTls {
    ClientTls {
        mode,
        credential,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        sni: sni.map(str::to_owned),
        insecure: false,
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.unwrap() })
}

/// Both sides of one handshake, and a byte in each direction.
async fn shake(
    terms: &Terms,
    client: &Client,
    host: &str,
) -> (Result<Opened<DuplexStream>, Refusal>, Result<(), Refusal>) {
    let (near, mut far) = duplex(64 * 1024);
    let now = crate::clock::wall();
    let ours = async {
        let hello = Hello::read(&mut far).await?;
        let mut opened = terms.accept(hello, far, now).await?;
        let byte = opened.stream.read_u8().await.map_err(|error| Refusal::of_io(&error))?;
        opened.stream.write_u8(byte).await.map_err(|_| Refusal::Gone)?;
        opened.stream.flush().await.map_err(|_| Refusal::Gone)?;
        Ok(opened)
    };
    let theirs = async {
        let mut stream = client.connect(host, near, now).await.map_err(|(refusal, _)| refusal)?;
        stream.write_u8(7).await.map_err(|error| Refusal::of_io(&error))?;
        stream.flush().await.map_err(|error| Refusal::of_io(&error))?;
        assert_eq!(stream.read_u8().await.map_err(|error| Refusal::of_io(&error))?, 7);
        Ok(())
    };
    tokio::join!(ours, theirs)
}

fn mesh_client(folder: &Folder, domains: &[&str], names: &[&str]) -> std::sync::Arc<Client> {
    let tls =
        client(ClientMode::IstioMutual, Credential::default(), names, Some("outbound_.80_._.b.default"));
    Keyring::new(Some(&folder.0)).client("b", &tls, Protocols::Http1, &trust(domains)).0
}

/// A workload of `theirs` (expiring after `seconds`) calls one of `ours` that trusts `domains`.
fn check_mesh(ours: &Authority, theirs: &Authority, seconds: i64, domains: &[&str], wanted: Option<Refusal>) {
    let (here, there) = (Folder::with(ours, "b"), Folder::new());
    there.put(theirs, "a", seconds);
    // The caller believes the callee in any case: it is the callee that is looked at.
    std::fs::write(there.0.join("root-cert.pem"), &ours.certificate).unwrap();
    let (inbound, problem) =
        Keyring::new(Some(&here.0)).inbound(&[(&OwnPort::default(), Mtls::Strict)], true, &trust(domains));
    assert_eq!(problem.is_none(), domains.contains(&"td"), "{problem:?}");
    let calling = mesh_client(&there, &["td", "other"], &["td/ns/default/sa/b"]);
    let (opened, _) = block(shake(inbound.terms().unwrap(), &calling, "b"));
    match (opened, wanted) {
        (Ok(opened), None) => {
            let peer = opened.secured.peer.as_ref().unwrap();
            assert!(opened.secured.principal().unwrap().ends_with("/ns/default/sa/a"));
            assert_eq!(peer.namespace(), Some("default"));
            assert_eq!(opened.secured.version, "TLSv1.3");
            assert_eq!(opened.secured.local_uri.as_deref(), Some("spiffe://td/ns/default/sa/b"));
        }
        (Err(refusal), Some(wanted)) => assert_eq!(refusal, wanted),
        (got, wanted) => panic!("{got:?} instead of {wanted:?}"),
    }
}

#[test]
fn a_workload_is_let_in_for_its_authority_its_domain_and_its_time() {
    let (td, other, stranger) =
        (Authority::new("td").unwrap(), Authority::new("other").unwrap(), Authority::new("td").unwrap());
    check_mesh(&td, &td, HOUR, &["td"], None);
    check_mesh(&td, &td, HOUR, &["new", "td"], None);
    check_mesh(&td, &td, HOUR, &["new"], Some(Refusal::TrustDomain));
    check_mesh(&td, &td, -HOUR, &["td"], Some(Refusal::Expired));
    check_mesh(&td, &stranger, HOUR, &["td"], Some(Refusal::UnknownAuthority));
    check_mesh(&td, &other, HOUR, &["td"], Some(Refusal::UnknownAuthority));
}

#[test]
fn a_destination_must_be_who_was_asked_for() {
    let td = Authority::new("td").unwrap();
    let (here, there) = (Folder::with(&td, "b"), Folder::with(&td, "a"));
    let (inbound, _) =
        Keyring::new(Some(&here.0)).inbound(&[(&OwnPort::default(), Mtls::Strict)], true, &trust(&["td"]));
    for (domains, names, wanted) in [
        (["td"], &["td/ns/default/sa/b"][..], Ok(())),
        (["td"], &["spiffe://td/ns/default/sa/b"], Ok(())),
        (["td"], &["td/ns/default/sa/x", "td/ns/default/sa/b"], Ok(())),
        (["td"], &[], Ok(())),
        (["td"], &["td/ns/default/sa/x"], Err(Refusal::Name)),
        (["other"], &[], Err(Refusal::TrustDomain)),
    ] {
        let calling = mesh_client(&there, &domains, names);
        let (_, connected) = block(shake(inbound.terms().unwrap(), &calling, "b"));
        assert_eq!(connected, wanted, "{domains:?} {names:?}");
    }
}

#[test]
fn without_a_certificate_of_its_own_a_workload_neither_calls_nor_is_called() {
    let keyring = Keyring::new(None);
    let (inbound, problem) =
        keyring.inbound(&[(&OwnPort::default(), Mtls::Permissive)], true, &trust(&["td"]));
    assert!(inbound.terms().is_none() && problem.unwrap().contains("--certs"));
    let tls = client(ClientMode::Auto, Credential::default(), &[], None);
    let (calling, problem) = keyring.client("b", &tls, Protocols::Http1, &trust(&["td"]));
    assert!(problem.unwrap().contains("--certs"));
    let (near, _far) = duplex(1024);
    let connected = block(calling.connect("b", near, crate::clock::wall()));
    assert_eq!(connected.unwrap_err().0, Refusal::Unprepared);
    assert!(keyring.trouble(crate::clock::wall()).is_some());
}

fn check_edge(mode: ServerMode, shows: bool, change: fn(&mut TlsServer), wanted: Result<(), Refusal>) {
    let td = Authority::new("td").unwrap();
    let mut asked = server(&["shop.example"], mode, pem(&td, &Names::Host("shop.example")));
    change(&mut asked);
    let keyring = Keyring::default();
    let (servers, problems) = keyring.servers(&[asked], &trust(&["td"]));
    assert!(problems.is_empty(), "{problems:?}");
    let Some(Choice::Terminate(terms)) = servers.find(Some("shop.example")) else { panic!("no terms") };
    let (mode, credential) = if shows {
        (ClientMode::Mutual, pem(&td, &Names::Host("client.example")))
    } else {
        let roots = Some(text("roots", &td.certificate));
        (ClientMode::Simple, Credential { roots, ..Credential::default() })
    };
    let tls = client(mode, credential, &[], None);
    let (calling, problem) = keyring.client("b", &tls, Protocols::Http2, &trust(&[]));
    assert_eq!(problem, None);
    let (opened, _) = block(shake(terms, &calling, "shop.example"));
    assert_eq!(opened.as_ref().map(|_| ()).map_err(|refusal| *refusal), wanted);
    if let Ok(opened) = opened {
        assert_eq!(opened.http2, Some(true));
        assert_eq!(opened.secured.sni.as_deref(), Some("shop.example"));
        assert_eq!(
            opened.secured.peer.is_some(),
            shows && mode != ClientMode::Simple && opened.chain.is_some()
        );
    }
}

#[test]
fn a_gateway_asks_clients_for_what_its_mode_says() {
    let nothing = |_: &mut TlsServer| {};
    check_edge(ServerMode::Simple, false, nothing, Ok(()));
    check_edge(ServerMode::Simple, true, nothing, Ok(()));
    check_edge(ServerMode::Mutual, true, nothing, Ok(()));
    check_edge(ServerMode::Mutual, false, nothing, Err(Refusal::NoCertificate));
    check_edge(ServerMode::OptionalMutual, false, nothing, Ok(()));
    check_edge(ServerMode::OptionalMutual, true, nothing, Ok(()));
    check_edge(ServerMode::Mutual, true, |s| s.client_names = vec!["client.example".into()], Ok(()));
    check_edge(ServerMode::Mutual, true, |s| s.client_names = vec!["x.example".into()], Err(Refusal::Name));
    check_edge(ServerMode::Mutual, true, |s| s.client_hash = vec!["00".repeat(32)], Err(Refusal::Pin));
    check_edge(ServerMode::Simple, false, |s| s.versions = (TlsVersion::V12, TlsVersion::V12), Ok(()));
    let dead = |s: &mut TlsServer| {
        (s.versions, s.ciphers) =
            ((TlsVersion::V12, TlsVersion::V12), vec!["ECDHE-RSA-AES128-GCM-SHA256".into()]);
    };
    // The certificate has an ECDSA key.
    check_edge(ServerMode::Simple, false, dead, Err(Refusal::Cipher));
}

#[test]
fn a_first_message_may_come_in_any_pieces() {
    let td = Authority::new("td").unwrap();
    let tls = client(
        ClientMode::Simple,
        Credential { roots: Some(text("r", &td.certificate)), ..Credential::default() },
        &[],
        None,
    );
    let (calling, _) = Keyring::default().client("b", &tls, Protocols::Http1, &trust(&[]));
    block(async {
        let (near, mut far) = duplex(16 * 1024);
        let theirs = tokio::spawn(async move {
            let _ = calling.connect("a.example", near, crate::clock::wall()).await;
        });
        let whole = Hello::read(&mut far).await.unwrap();
        assert_eq!(*whole.seen(), Seen { sni: Some("a.example".into()), mesh: false });
        theirs.abort();
        let raw = whole.into_raw();
        for at in 1..raw.len() {
            let (mut near, mut far) = duplex(16 * 1024);
            let (read, ()) = tokio::join!(Hello::read(&mut far), async {
                near.write_all(&raw[..at]).await.unwrap();
                tokio::task::yield_now().await;
                near.write_all(&raw[at..]).await.unwrap();
            });
            let hello = read.unwrap();
            assert_eq!(hello.seen().sni.as_deref(), Some("a.example"));
            assert_eq!(hello.into_raw(), raw);
        }
    });
}

#[test]
fn what_is_not_tls_or_has_no_end_is_refused() {
    for start in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff]] {
        let refused = block(async {
            let (mut near, mut far) = duplex(256 * 1024);
            near.write_all(start).await.unwrap();
            near.write_all(&vec![0; 2 * MAX_HELLO]).await.unwrap();
            Hello::read(&mut far).await.unwrap_err()
        });
        assert_eq!(refused, Refusal::NotTls, "{start:?}");
    }
}

/// Whether the second of two handshakes was a resumption, with something between them.
fn resumed(folder: &Folder, keyring: &Keyring, there: &Folder, between: impl Fn()) -> bool {
    let calling = mesh_client(there, &["td"], &[]);
    let shake = || {
        let (inbound, problem) =
            keyring.inbound(&[(&OwnPort::default(), Mtls::Strict)], true, &trust(&["td"]));
        assert_eq!(problem, None, "{:?}", folder.0);
        let (opened, connected) = block(shake(inbound.terms().unwrap(), &calling, "b"));
        connected.unwrap();
        opened.unwrap().stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!shake());
    between();
    shake()
}

#[test]
fn a_session_is_resumed_until_anything_about_trust_changes() {
    let (td, new) = (Authority::new("td").unwrap(), Authority::new("td").unwrap());
    let (here, there) = (Folder::with(&td, "b"), Folder::with(&td, "a"));
    let keyring = Keyring::new(Some(&here.0));
    assert!(resumed(&here, &keyring, &there, || {}));
    assert!(resumed(&here, &keyring, &there, || assert!(!keyring.refresh())));
    let more_roots = || {
        let both = format!("{}{}", td.certificate, new.certificate);
        std::fs::write(here.0.join("root-cert.pem"), both).unwrap();
        assert!(keyring.refresh());
    };
    assert!(!resumed(&here, &keyring, &there, more_roots));
}

#[test]
fn an_open_connection_is_judged_by_what_is_in_force_now() {
    let (td, new) = (Authority::new("td").unwrap(), Authority::new("td").unwrap());
    let (here, there) = (Folder::with(&td, "b"), Folder::with(&td, "a"));
    let keyring = Keyring::new(Some(&here.0));
    let inbound = || keyring.inbound(&[(&OwnPort::default(), Mtls::Strict)], true, &trust(&["td"])).0;
    let calling = mesh_client(&there, &["td"], &[]);
    let (opened, _) = block(shake(inbound().terms().unwrap(), &calling, "b"));
    let chain = opened.unwrap().chain;
    let now = crate::clock::wall();
    let judged = |at| inbound().terms().unwrap().admits(chain.as_ref(), at);
    assert_eq!(judged(now), Ok(()));
    assert_eq!(judged(now + Duration::from_secs(2 * 3600)), Err(Refusal::Expired));
    assert_eq!(inbound().terms().unwrap().admits(None, now), Err(Refusal::NoCertificate));
    std::fs::write(here.0.join("root-cert.pem"), &new.certificate).unwrap();
    assert!(keyring.refresh());
    assert_eq!(judged(now), Err(Refusal::UnknownAuthority));
}

#[test]
fn a_pair_that_does_not_fit_leaves_the_last_good_one_in_force() {
    let td = Authority::new("td").unwrap();
    let here = Folder::with(&td, "b");
    let keyring = Keyring::new(Some(&here.0));
    let terms = || {
        keyring
            .inbound(&[(&OwnPort::default(), Mtls::Strict)], true, &trust(&["td"]))
            .0
            .terms()
            .cloned()
            .unwrap()
    };
    let first = terms();
    let other = Folder::with(&td, "b");
    std::fs::copy(other.0.join("key.pem"), here.0.join("key.pem")).unwrap();
    assert!(!keyring.refresh());
    assert!(std::sync::Arc::ptr_eq(&first, &terms()));
    assert!(keyring.shown()[0].problem.as_ref().unwrap().contains("do not belong together"));
    assert_eq!(keyring.trouble(crate::clock::wall()), None);
    std::fs::copy(other.0.join("cert-chain.pem"), here.0.join("cert-chain.pem")).unwrap();
    assert!(keyring.refresh());
    assert!(!std::sync::Arc::ptr_eq(&first, &terms()));
    assert_eq!(keyring.shown()[0].problem, None);
    let later = crate::clock::wall() + Duration::from_secs(2 * 3600);
    assert!(keyring.trouble(later).unwrap().contains("expired"));
}

#[test]
fn a_volume_is_read_from_behind_one_link() {
    let td = Authority::new("td").unwrap();
    let folder = Folder::new();
    for version in ["..1", "..2"] {
        let names = Names::Workload { namespace: "default", account: "b" };
        let issued = td.issue_until(&names, HOUR).unwrap();
        issued.write(&folder.0.join(version), ["tls.crt", "tls.key", "ca.crt"]).unwrap();
    }
    std::os::unix::fs::symlink("..1", folder.0.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), folder.0.join(name)).unwrap();
    }
    let keyring = Keyring::new(Some(&folder.0));
    assert!(keyring.inbound(&[(&OwnPort::default(), Mtls::Strict)], true, &trust(&["td"])).1.is_none());
    std::os::unix::fs::symlink("..2", folder.0.join("..new")).unwrap();
    std::fs::rename(folder.0.join("..new"), folder.0.join("..data")).unwrap();
    assert!(keyring.refresh());
    assert_eq!(keyring.directories(), std::slice::from_ref(&folder.0));
}

#[test]
fn a_request_is_misdirected_only_where_another_certificate_or_authority_answers() {
    let td = Authority::new("td").unwrap();
    let shared = pem(&td, &Names::Host("*.example"));
    let own = |name| pem(&td, &Names::Host(name));
    let keyring = Keyring::default();
    let mut strict = server(&["d.example"], ServerMode::Mutual, shared.clone());
    strict.client_names = vec!["x".into()];
    let servers = [
        server(&["a.example"], ServerMode::Simple, shared.clone()),
        server(&["b.example"], ServerMode::Simple, shared),
        server(&["c.example"], ServerMode::Simple, Credential { ..own("c.example") }),
        strict,
    ];
    // Each credential has names of its own, as Secrets do.
    let mut servers = servers.to_vec();
    if let Some((chain, key)) = &mut servers[2].credential.pair {
        for pem in [chain, key] {
            if let Pem::Text { from, .. } = pem {
                *from = format!("c {from}");
            }
        }
    }
    let (servers, problems) = keyring.servers(&servers, &trust(&["td"]));
    assert!(problems.is_empty(), "{problems:?}");
    for (sni, host, wanted) in [
        (Some("a.example"), "a.example", false),
        (Some("a.example"), "A.EXAMPLE", false),
        (Some("a.example"), "b.example", false),
        (Some("a.example"), "c.example", true),
        (Some("a.example"), "d.example", true),
        (Some("d.example"), "a.example", true),
        (Some("a.example"), "nobody.example", false),
        (None, "c.example", false),
    ] {
        assert_eq!(servers.elsewhere(sni, host), wanted.then_some(Elsewhere::Misdirected), "{sni:?} {host}");
    }
}

#[test]
fn who_asks_for_no_name_reaches_what_its_own_gateway_routes() {
    let td = Authority::new("td").unwrap();
    let folder = Folder::with(&td, "edge");
    let keyring = Keyring::new(Some(&folder.0));
    let all = pem(&td, &Names::Host("*.example"));
    for (mode, sni) in
        [(ServerMode::Simple, None), (ServerMode::IstioMutual, Some("outbound_.443_._.b.example"))]
    {
        let mut servers =
            [server(&["*"], mode, all.clone()), server(&["b.example"], ServerMode::Mutual, all.clone())];
        let elsewhere = |servers: &[TlsServer]| {
            let (servers, problems) = keyring.servers(servers, &trust(&["td"]));
            assert!(problems.is_empty(), "{problems:?}");
            ["a.example", "b.example", "B.example.", "nobody.example"]
                .map(|host| servers.elsewhere(sni, host))
        };
        assert_eq!(elsewhere(&servers), [None; 4], "of one Gateway");
        servers[0].routed = vec!["a.example".to_owned()];
        servers[1].routed = vec!["b.example".to_owned()];
        let unrouted = Some(Elsewhere::Unrouted);
        assert_eq!(elsewhere(&servers), [None, unrouted, unrouted, None], "{mode:?}");
        servers[0].routed.push("b.example".to_owned());
        assert_eq!(elsewhere(&servers), [None; 4], "bound to both");
    }
}

#[test]
fn what_is_routed_behind_a_server_that_came_too_late_for_its_name_is_for_nobody() {
    let td = Authority::new("td").unwrap();
    let keyring = Keyring::default();
    let all = pem(&td, &Names::Host("*.example"));
    for (mode, wanted) in [(ServerMode::Mutual, Some(Elsewhere::Unrouted)), (ServerMode::Simple, None)] {
        let first = server(&["b.example"], ServerMode::Simple, all.clone());
        let mut late = server(&["b.example"], mode, all.clone());
        late.routed = vec!["b.example".to_owned()];
        let (servers, problems) = keyring.servers(&[first, late], &trust(&["td"]));
        assert!(problems[0].contains("another server's"), "{problems:?}");
        assert_eq!(servers.elsewhere(Some("b.example"), "b.example"), wanted, "{mode:?}");
    }
}

#[test]
fn connections_are_told_apart_by_name_where_the_request_says_it() {
    let td = Authority::new("td").unwrap();
    let roots = Credential { roots: Some(text("r", &td.certificate)), ..Credential::default() };
    let keyring = Keyring::default();
    let made = |sni| {
        keyring
            .client("b", &client(ClientMode::Simple, roots.clone(), &[], sni), Protocols::Http1, &trust(&[]))
            .0
    };
    let (open, fixed) = (made(None), made(Some("b.example")));
    assert_ne!(open.key("a"), open.key("b"));
    assert_eq!(open.key("A"), open.key("a"));
    assert_eq!(fixed.key("a"), fixed.key("b"));
    assert_ne!(fixed.key("a"), open.key("a"));
    assert_eq!(made(None).key("a"), open.key("a"));
}
