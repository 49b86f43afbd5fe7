//! Certificates that change under connections, as Kubernetes changes them; sessions that are resumed, and when not.

use crate::support::secure::{Dial, shown};
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Town, millis, seconds, yaml};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A volume as the kubelet keeps it: files are links into `..data`, itself a link that is swapped.
struct Volume {
    home: PathBuf,
    count: usize,
}

impl Volume {
    const FILES: [&'static str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];

    /// With copies of the files in `from`.
    fn new(home: PathBuf, from: &Path) -> Volume {
        std::fs::create_dir_all(&home).unwrap();
        for name in Volume::FILES {
            symlink(format!("..data/{name}"), home.join(name)).unwrap();
        }
        let mut volume = Volume { home, count: 0 };
        volume.swap(from);
        volume
    }

    /// All of them at once.
    fn swap(&mut self, from: &Path) {
        self.count += 1;
        let (old, new) = (format!("..{}", self.count - 1), format!("..{}", self.count));
        std::fs::create_dir(self.home.join(&new)).unwrap();
        for name in Volume::FILES {
            std::fs::copy(from.join(name), self.home.join(&new).join(name)).unwrap();
        }
        symlink(&new, self.home.join("..data_tmp")).unwrap();
        std::fs::rename(self.home.join("..data_tmp"), self.home.join("..data")).unwrap();
        let _ = std::fs::remove_dir_all(self.home.join(old));
    }
}

fn pair(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("cert-chain.pem"), folder.join("key.pem"))
}

/// A request on a connection that stays; the status line.
fn again(stream: &mut (impl Read + Write)) -> std::io::Result<String> {
    stream.write_all(b"GET /kept HTTP/1.1\r\nhost: till.shop\r\n\r\n")?;
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"hello") {
        stream.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&read).lines().next().unwrap_or_default().to_owned())
}

#[test]
fn volumes_are_swapped_under_load_and_no_connection_is_dropped() {
    let (app, town) = (Origin::h1().reply("hello"), Town::of(&["shop/till", "shop/clerk"]));
    let issued = |who: &str| PathBuf::from(town.file(who));
    let mut volumes = ["till", "clerk"]
        .map(|who| Volume::new(issued(&format!("volume-{who}")), &issued(&format!("shop/{who}"))));
    let beside = |who: &str, account: &str, app, text: &str| {
        let certs = town.file(&format!("volume-{account}"));
        Proxy::with(text).sidecar(who, "app=x", app).args(["--service-account", account, "--certs", &certs])
    };
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: \
                  shop}\nspec: {mtls: {mode: STRICT}}\n---\n";
    let callee = beside("shop/till", "till", app.address(), strict).workers(2).start();
    let inbound = callee.inbound(&app).address();
    let entry = yaml::service_entry("till.shop", "HTTP", &[inbound])
        .replace("ports: {http:", "labels: {security.istio.io/tlsMode: istio}, ports: {http:");
    let caller = beside("shop/clerk", "clerk", ([127, 0, 0, 1], 9).into(), &entry).workers(2).start();
    let (chain, key) = pair(&issued("shop/clerk"));
    let dial = Dial::new(&["istio-http/1.1"], Some((&chain, &key)));
    let mut kept = dial.to(inbound, "till.shop").unwrap();
    let first = shown(&kept);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mesh, done, count) = (caller.mesh(), &stop, &served);
    std::thread::scope(|scope| {
        for fresh in [false, false, true, true] {
            scope.spawn(move || {
                let mut connection = mesh.connect();
                while !done.load(Ordering::SeqCst) {
                    if fresh {
                        connection = mesh.connect();
                    }
                    let request = mesh.get("/").host("till.shop");
                    connection.send(request).expect(200);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let long = std::env::var("PILOTLIGHT_ROTATIONS").ok().and_then(|text| text.parse::<u32>().ok());
        for _ in 0..long.unwrap_or(10) {
            town.issue(&[], &["shop/till", "shop/clerk"]);
            volumes[0].swap(&issued("shop/till"));
            volumes[1].swap(&issued("shop/clerk"));
            assert_eq!(again(&mut kept).unwrap(), "HTTP/1.1 200 OK");
            std::thread::sleep(if long.is_some() { seconds(1) } else { millis(200) });
        }
        stop.store(true, Ordering::SeqCst);
    });
    println!("{} requests were served", served.load(Ordering::SeqCst));
    assert_eq!(again(&mut kept).unwrap(), "HTTP/1.1 200 OK");
    let other = |dial: &Dial| dial.to(inbound, "till.shop").is_ok_and(|stream| shown(&stream) != first);
    assert!(becomes_true(seconds(20), || other(&dial)), "{}", callee.log());
    assert!(served.load(Ordering::SeqCst) > 100, "{served:?}");
    callee.logs("certificates have changed");
    for proxy in [&callee, &caller] {
        let metrics = proxy.metrics();
        assert_eq!(metrics.sum("istio_requests_total", &[("response_code", "503")]), 0.0);
        assert_eq!(metrics.sum("pilotlight_tls_handshakes_failed_total", &[]), 0.0);
    }
}

/// A gateway at port 8443 for `shop.example` that asks for certificates of `ca`.
fn mutual(town: &Town, ca: &Path, origin: &Origin) -> String {
    let file = |name: &str| town.file(&format!("hosts/shop.example/{name}"));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: b}}\n  \
         servers:\n  - port: {{number: 8443, name: https, protocol: HTTPS}}\n    hosts: [shop.example]\n    tls: {{mode: \
         MUTUAL, serverCertificate: {}, privateKey: {}, caCertificates: {}}}\n---\n{}",
        file("tls.crt"),
        file("tls.key"),
        ca.display(),
        yaml::all_to("HTTP", &[origin.address()])
    )
}

#[test]
fn sessions_are_resumed_by_every_worker_until_trust_changes() {
    let (origin, town) = (Origin::h1().reply("hello"), Town::of(&["default/client"]));
    town.issue(&["shop.example"], &[]);
    let ca = PathBuf::from(town.file("asked.crt"));
    std::fs::copy(town.file("ca.crt"), &ca).unwrap();
    let proxy = Proxy::with(mutual(&town, &ca, &origin)).workers(4).start();
    let at = proxy.gateway(8443).address();
    let (chain, key) = pair(Path::new(&town.file("default/client")));
    let dial = Dial::new(&["http/1.1"], Some((&chain, &key)));
    let ok = "HTTP/1.1 200 OK".to_owned();
    assert_eq!(dial.get(at, "shop.example").unwrap(), (false, ok.clone()));
    // TLS 1.3: each connection uses up a ticket and brings another.
    for _ in 0..24 {
        assert_eq!(dial.get(at, "shop.example").unwrap(), (true, ok.clone()));
    }
    assert!(origin.last().header("x-forwarded-client-cert").contains("/sa/client"), "known by its session");
    // One authority more is another trust: whoever comes must prove anew who they are.
    let changes = proxy.metrics().sum("pilotlight_tls_handshakes_total", &[]);
    assert_eq!(changes, 25.0);
    let more = std::fs::read_to_string(&ca).unwrap() + &std::fs::read_to_string(other(&town)).unwrap();
    std::fs::write(town.file("next.crt"), more).unwrap();
    std::fs::rename(town.file("next.crt"), &ca).unwrap();
    proxy.logs("certificates have changed");
    assert_eq!(dial.get(at, "shop.example").unwrap(), (false, ok.clone()));
    assert_eq!(dial.get(at, "shop.example").unwrap(), (true, ok));
    // And without the one that vouched for the client its session is worth nothing.
    std::fs::copy(other(&town), town.file("next.crt")).unwrap();
    std::fs::rename(town.file("next.crt"), &ca).unwrap();
    assert!(becomes_true(seconds(10), || dial.get(at, "shop.example").is_err()), "{}", proxy.log());
    let refused = || proxy.metrics().sum("pilotlight_faults_total", &[("fault", "PeerRefused")]);
    assert!(becomes_true(seconds(5), || refused() >= 1.0));
}

/// The certificate of another authority.
fn other(town: &Town) -> String {
    let home = town.file("other");
    let output = std::process::Command::new(crate::support::proxy::PILOTLIGHT)
        .args(["certs", "--out", &home])
        .output();
    assert!(output.unwrap().status.success());
    format!("{home}/ca.crt")
}
