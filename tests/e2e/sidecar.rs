//! `pilotlight sidecar`: what stands in front of one workload, and what keeps it shut.

use crate::support::secure::Dial;
use crate::support::{Origin, Proxy, Town, eventually, seconds};
use std::path::PathBuf;

const ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: open, namespace: \
                     shop}\nspec: {selector: {matchLabels: {app: till}}, rules: [{to: [{operation: {paths: \
                     ['/open']}}]}]}\n---\n";

fn disabled(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: \
         {{mtls: {{mode: {mode}}}}}\n---\n"
    )
}

#[test]
fn what_selects_the_workload_is_asked_in_front_of_its_program() {
    let app = Origin::h1().reply("the till");
    let proxy = Proxy::with(disabled("DISABLE") + ALLOW).beside(&app).start();
    let inbound = proxy.find(&format!("inbound:{}", app.address().port())).expect("an inbound listener");
    assert_eq!(inbound.get("/open").host("till.shop").send().expect(200).text(), "the till");
    assert_eq!(inbound.get("/closed").host("till.shop").send().expect(403).text(), "RBAC: access denied");
    assert_eq!(app.hits(), 1);
}

#[test]
fn a_sidecar_that_cannot_know_what_to_enforce_is_never_ready_never_plaintext_and_never_allows() {
    let peer = disabled("PERMISSIVE");
    let bad = ALLOW.replace("rules: [{to", "rules: [{two");
    let null = ALLOW.split("spec:").next().unwrap_or_default().to_owned() + "spec:\n";
    let broken = ALLOW.replace("rules: [{to", "rules: [{to: [");
    let town = Town::of(&["shop/till", "shop/keyless"]);
    std::fs::remove_file(town.file("shop/keyless/key.pem")).unwrap();
    let (good, keyless) = (town.file("shop/till"), town.file("shop/keyless"));
    let rows = [
        ("an empty directory", String::new(), good.as_str()),
        ("a bad policy", peer.clone() + &bad, &good),
        ("a null spec", peer.clone() + &null, &good),
        ("a syntax error", peer.clone() + &broken, &good),
        ("an unreadable file", peer.clone() + ALLOW, &good),
        ("no certificates", peer.clone() + ALLOW, ""),
        ("a certificate without its key", peer.clone() + ALLOW, &keyless),
        ("a folder without a certificate", peer + ALLOW, "/nonexistent"),
    ];
    for (what, text, certificates) in rows {
        let app = Origin::h1().reply("the till");
        let setup = Proxy::with(text).beside(&app);
        let setup = match certificates {
            "" => setup,
            folder => setup.args(["--certs", folder]),
        };
        if what == "an unreadable file" {
            std::os::unix::fs::symlink("/nonexistent", setup.directory().join("more.yaml")).unwrap();
        }
        let proxy = setup.spawn();
        let inbound = format!("inbound:{}", app.address().port());
        let inbound = eventually(what, seconds(10), || proxy.find(&inbound));
        let admin = proxy.admin();
        // Ready it would be once names are looked up; then it says why it is not.
        eventually(what, seconds(10), || {
            let answer = admin.get("/ready").try_send().ok()?;
            assert_ne!(answer.status, 200, "{what}: {}", answer.text());
            (!answer.text().contains("still starting")).then_some(())
        });
        let answer = inbound.get("/open").host("till.shop").try_send();
        assert!(answer.as_ref().map_or(true, |answer| answer.status == 403), "{what}: {answer:?}");
        // Nor is a certificate of the mesh enough.
        let file = |name: &str| PathBuf::from(town.file(&format!("shop/till/{name}")));
        let dial = Dial::new(&["istio-http/1.1"], Some((&file("cert-chain.pem"), &file("key.pem"))));
        let answer = dial.get(inbound.address(), "till.shop").map(|(_, line)| line);
        assert!(answer.as_ref().map_or(true, |line| line.contains(" 403 ")), "{what}: {answer:?}");
        assert_eq!(app.hits(), 0, "{what}");
    }
}
