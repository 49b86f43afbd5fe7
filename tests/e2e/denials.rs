//! What the audit stream says of those whom no policy refused: the mode of a port did, or their trust has ended.

use crate::support::proxy::Directory;
use crate::support::raw::{RawClient, RawOrigin};
use crate::support::secure::Dial;
use crate::support::wait::becomes_true;
use crate::support::{Origin, Proxy, Target, Town, millis, seconds};
use serde_json::Value;

/// An audit stream in a file of its own.
struct Stream(Directory);

impl Stream {
    fn file(&self) -> String {
        self.0.path().join("audit.jsonl").to_str().unwrap().to_owned()
    }

    /// What it says of refusals by `fault`, for the client that this test is.
    fn denied(&self, fault: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        assert!(!text.contains("hidden"), "a query may hold a secret");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line["event"] == "denied" && line["fault"] == fault).collect()
    }

    /// Waits for one with these members.
    #[track_caller]
    fn tells(&self, fault: &str, wanted: &[(&str, Value)]) {
        let fits = |line: &Value| {
            let source = line["source"].as_str().is_some_and(|text| text.starts_with("127.0.0.1:"));
            let timed = line["time"].is_string() && line["details"].is_string();
            source && timed && wanted.iter().all(|(name, value)| line[*name] == *value)
        };
        let told = || self.denied(fault).iter().any(fits);
        assert!(becomes_true(seconds(10), told), "{fault} {wanted:?}: {:?}", self.denied(fault));
    }
}

fn modes(mode: &str, strict: u16) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: \
         {{selector: {{matchLabels: {{app: till}}}}, mtls: {{mode: {mode}}}, portLevelMtls: {{{strict}: {{mode: \
         STRICT}}}}}}\n---\n"
    )
}

#[test]
fn the_audit_stream_tells_whom_a_port_refused_and_whose_trust_has_ended() {
    let (strict, open) = (Origin::h1().reply("strict"), Origin::h1().reply("open"));
    let socket = RawOrigin::script(|mut connection, _| {
        connection.read_head();
        connection.send("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket\n\n");
        while connection.offer(b".") {
            std::thread::sleep(millis(20));
        }
    });
    let town = Town::of(&["shop/till"]);
    let (first, second) = (strict.address().port(), open.address().port());
    let stream = Stream(Directory::new());
    let proxy = town
        .beside("shop/till", "app=till", strict.address(), &modes("PERMISSIVE", first))
        .args(["--app", &open.address().to_string(), "--app", &socket.address().to_string()])
        .args(["--audit-log", &stream.file(), "--drain-timeout", "1s", "--drain-delay", "0s"])
        .start();
    let inbound = proxy.inbound(&strict);
    let host = |port: u16| format!("till.shop:{port}");

    let refused = inbound.get("/a?token=hidden").host(&host(first)).header("x-request-id", "id-1");
    refused.send().expect(403);
    stream.tells(
        "PortRefused",
        &[
            ("method", "GET".into()),
            ("path", "/a".into()),
            ("authority", host(first).into()),
            ("request_id", "id-1".into()),
            ("details", "peer_authentication_refused".into()),
            ("status", 403.into()),
        ],
    );
    assert_eq!(stream.denied("PortRefused").len(), 1);

    let mut tunnel = RawClient::to(inbound.address());
    let to = host(socket.address().port());
    tunnel.send(&format!(
        "GET /ws?token=hidden HTTP/1.1\nhost: {to}\nconnection: upgrade\nupgrade: websocket\n\n"
    ));
    assert!(tunnel.read_head().contains(" 101 "));
    let asked = || is_asked_too_late(&proxy, &inbound, &host(second), first);
    assert!(becomes_true(seconds(30), asked));
    stream.tells("TrustEnded", &[("method", "GET".into()), ("path", "/b".into()), ("status", 503.into())]);
    tunnel.read_to_end();
    let ws =
        [("method", "GET".into()), ("path", "/ws".into()), ("authority", to.into()), ("status", 101.into())];
    stream.tells("TrustEnded", &ws);

    assert!(RawClient::to(inbound.address()).send("GET / HTTP/1.1\nhost: a\n\n").is_at_end());
    let _ = Dial::new(&["istio-http/1.1"], None).to(inbound.address(), "till.shop");
    stream.tells("PeerRefused", &[("status", 0.into()), ("details", "tls_peer_certificate_refused".into())]);
    stream.tells("PlaintextRefused", &[("status", 0.into()), ("details", "filter_chain_not_found".into())]);
}

/// Whether a request comes between the change that ends its connection's trust and the next look at open connections.
fn is_asked_too_late(proxy: &Proxy, inbound: &Target, host: &str, strict: u16) -> bool {
    let request = format!("GET /b HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let takes = || {
        let mut client = RawClient::to(inbound.address());
        client.offer(request.as_bytes()) && !client.is_at_end()
    };
    proxy.write("config.yaml", &modes("PERMISSIVE", strict));
    assert!(becomes_true(seconds(5), takes));
    let mut client = RawClient::to(inbound.address());
    assert!(client.offer(request.as_bytes()) && client.read_head().contains(" 200 "));
    client.read_exactly(4);
    proxy.write("config.yaml", &modes("STRICT", strict));
    while client.offer(request.as_bytes()) && !client.is_at_end() {
        if client.read_head().contains(" 503 ") {
            return true;
        }
        client.read_exactly(4);
    }
    false
}
