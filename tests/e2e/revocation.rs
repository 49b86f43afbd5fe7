//! Certificates that are taken back: lists of them at gateways and towards destinations.

use crate::support::proxy::Directory;
use crate::support::secure::Dial;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, seconds, yaml};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

/// An authority that takes certificates back, and all it makes.
struct Office {
    issuer: Issuer<'static, KeyPair>,
    home: Directory,
}

impl Office {
    fn new() -> Office {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let home = Directory::new();
        home.write("ca.crt", &params.self_signed(&key).unwrap().pem());
        let office = Office { issuer: Issuer::new(params, key), home };
        office.take_back(&[]);
        office
    }

    fn file(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// A certificate with this number, for `host`.
    fn issue(&self, host: &str, number: u64) {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(number));
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        self.home.write(&format!("{number}.crt"), &made.pem());
        self.home.write(&format!("{number}.key"), &key.serialize_pem());
    }

    /// The certificates with these numbers are not to be believed.
    fn take_back(&self, numbers: &[u64]) {
        let now = SystemTime::now();
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(numbers.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.home.write("next.crl", &list.signed_by(&self.issuer).unwrap().pem().unwrap());
        std::fs::rename(self.file("next.crl"), self.file("ca.crl")).unwrap();
    }

    /// A gateway at port 8443 with certificate `number`; `tls` is what else it says.
    fn gateway(&self, number: u64, tls: &str, origin: &Origin) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  selector: {{a: \
             b}}\n  servers:\n  - port: {{number: 8443, name: https, protocol: HTTPS}}\n    hosts: [shop.example]\n    \
             tls: {{serverCertificate: {}, privateKey: {}, {tls}}}\n---\n{}",
            self.file(&format!("{number}.crt")),
            self.file(&format!("{number}.key")),
            yaml::all_to("HTTP", &[origin.address()])
        )
    }
}

#[test]
fn a_client_whose_certificate_is_taken_back_is_refused_and_its_connection_ends() {
    let (office, origin) = (Office::new(), Origin::h1().reply("hello"));
    office.issue("shop.example", 1);
    office.issue("good.example", 2);
    office.issue("bad.example", 3);
    let tls =
        format!("mode: MUTUAL, caCertificates: {}, caCrl: {}", office.file("ca.crt"), office.file("ca.crl"));
    let proxy = Proxy::with(office.gateway(1, &tls, &origin)).start();
    let at = proxy.gateway(8443).address();
    let [good, bad] = [2, 3].map(|number| {
        let (chain, key) = (office.file(&format!("{number}.crt")), office.file(&format!("{number}.key")));
        Dial::new(&["http/1.1"], Some((chain.as_ref(), key.as_ref())))
    });
    let ok = |dial: &Dial| dial.get(at, "shop.example").is_ok_and(|(_, line)| line == "HTTP/1.1 200 OK");
    assert!(ok(&good) && ok(&bad));
    let mut open = bad.to(at, "shop.example").unwrap();
    office.take_back(&[3]);
    proxy.logs("certificates have changed");
    assert!(becomes_true(seconds(5), || !ok(&bad)), "{}", proxy.log());
    assert!(ok(&good));
    // What was open serves no more, by a resumed session neither.
    let _ = write!(open, "GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    let mut answer = String::new();
    let _ = open.read_to_string(&mut answer);
    assert!(!answer.contains(" 200 OK"), "{answer}");
    assert!(!ok(&bad));
    let reason = [("reason", "revoked"), ("side", "downstream")];
    let refused = || proxy.metrics().sum("pilotlight_tls_handshakes_failed_total", &reason);
    assert!(becomes_true(seconds(5), || refused() >= 1.0));
    // A list that cannot be read leaves the last one in force.
    office.home.write("ca.crl", "-----BEGIN X509 CRL-----\n!\n-----END X509 CRL-----\n");
    proxy.logs("ca.crl");
    assert!(ok(&good) && !ok(&bad));
}

#[test]
fn a_destination_whose_certificate_is_taken_back_is_not_spoken_to() {
    let (office, origin) = (Office::new(), Origin::h1().reply("hello"));
    office.issue("shop.example", 1);
    let server = Proxy::with(office.gateway(1, "mode: SIMPLE", &origin)).start();
    let text = yaml::all_to("HTTP", &[server.gateway(8443).address()])
        .replace("upstream.test", "shop.example")
        .replace("upstream-test", "shop-example")
        + &yaml::destination_rule(
            "shop.example",
            &format!(
                "tls: {{mode: SIMPLE, caCertificates: {}, caCrl: {}}}",
                office.file("ca.crt"),
                office.file("ca.crl")
            ),
        );
    let proxy = Proxy::with(text).start();
    let ask = || proxy.get("/").host("shop.example").send().status;
    assert_eq!(ask(), 200);
    office.take_back(&[1]);
    // Connections made before it are not used again.
    assert!(becomes_true(seconds(10), || ask() == 503), "{}", proxy.log());
    assert_eq!((0..5).map(|_| ask()).max(), Some(503));
    proxy.access_line(&["503 UF", "TLS_error:revoked"]);
}
