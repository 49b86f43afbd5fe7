//! The workload's certificate as its files come, go, and are replaced by worse ones.

use super::*;
use crate::clock;

fn terms(keyring: &Keyring) -> Option<std::sync::Arc<Terms>> {
    let ports = [(&OwnPort::default(), Mtls::Strict)];
    keyring.inbound(&ports, true, &trust(&["td"])).0.terms().cloned()
}

#[test]
fn a_certificate_that_no_peer_would_believe_is_told_of() {
    let td = Authority::new("td").unwrap();
    let folder = Folder::with(&td, "b");
    let keyring = Keyring::new(Some(&folder.0));
    let ports = [(&OwnPort::default(), Mtls::Strict)];
    for (domains, told) in [(&["td"][..], false), (&["new", "td"], false), (&["new"], true)] {
        let (inbound, problem) = keyring.inbound(&ports, true, &trust(domains));
        assert!(inbound.terms().is_some());
        let said = problem.is_some_and(|why| why.contains("spiffe://td/ns/default/sa/b"));
        assert_eq!(said, told, "{domains:?}");
    }
}

#[test]
fn files_that_come_later_are_found_by_either_of_their_names() {
    let td = Authority::new("td").unwrap();
    let names = Names::Workload { namespace: "default", account: "b" };
    let either = [["cert-chain.pem", "key.pem", "root-cert.pem"], ["tls.crt", "tls.key", "ca.crt"]];
    for names_of_files in either {
        let folder = Folder::new();
        let keyring = Keyring::new(Some(&folder.0));
        assert!(terms(&keyring).is_none());
        assert!(keyring.trouble(clock::wall()).is_some());
        td.issue_until(&names, HOUR).unwrap().write(&folder.0, names_of_files).unwrap();
        assert!(keyring.refresh(), "{names_of_files:?}");
        let found = terms(&keyring).unwrap();
        assert_eq!(keyring.trouble(clock::wall()), None);
        assert_eq!(keyring.shown()[0].name, "workload");
        // What has gone stays in force, under the names it had.
        names_of_files.iter().for_each(|name| std::fs::remove_file(folder.0.join(name)).unwrap());
        assert!(!keyring.refresh());
        assert!(std::sync::Arc::ptr_eq(&found, &terms(&keyring).unwrap()));
        assert!(keyring.shown()[0].problem.as_ref().unwrap().contains(names_of_files[0]));
    }
}

#[test]
fn a_pair_that_has_expired_replaces_none_that_has_not_but_authorities_are_what_the_files_say() {
    let td = Authority::new("td").unwrap();
    let folder = Folder::with(&td, "b");
    let keyring = Keyring::new(Some(&folder.0));
    let first = terms(&keyring).unwrap();
    let ends = keyring.shown()[0].not_after;
    folder.put(&td, "b", -60);
    assert!(!keyring.refresh());
    assert_eq!(keyring.shown()[0].not_after, ends);
    assert!(keyring.shown()[0].problem.as_ref().unwrap().contains("has expired"));
    assert_eq!(keyring.trouble(clock::wall()), None);
    assert!(std::sync::Arc::ptr_eq(&first, &terms(&keyring).unwrap()));
    let other = Authority::new("td").unwrap();
    std::fs::write(folder.0.join("root-cert.pem"), &other.certificate).unwrap();
    assert!(keyring.refresh());
    assert!(!terms(&keyring).unwrap().asks_the_same(&first));
    assert_eq!(keyring.shown()[0].not_after, ends);
    folder.put(&td, "b", HOUR);
    assert!(keyring.refresh());
    assert_eq!(keyring.shown()[0].problem, None);
    // Where there is nothing better it is taken, and what is wrong is said.
    let late = Folder::new();
    late.put(&td, "b", -60);
    let keyring = Keyring::new(Some(&late.0));
    assert!(terms(&keyring).is_some());
    assert!(keyring.trouble(clock::wall()).unwrap().contains("expired"));
}

#[test]
fn authorities_are_taken_back_though_a_pair_does_not_fit_or_is_not_there() {
    let (td, other) = (Authority::new("td").unwrap(), Authority::new("td").unwrap());
    let folder = Folder::with(&td, "b");
    let both = td.certificate.clone() + &other.certificate;
    std::fs::write(folder.0.join("root-cert.pem"), both).unwrap();
    let keyring = Keyring::new(Some(&folder.0));
    let first = terms(&keyring).unwrap();
    let ends = keyring.shown()[0].not_after;
    let stranger = Folder::with(&td, "b");
    std::fs::copy(stranger.0.join("key.pem"), folder.0.join("key.pem")).unwrap();
    assert!(!keyring.refresh());
    std::fs::write(folder.0.join("root-cert.pem"), &td.certificate).unwrap();
    assert!(keyring.refresh());
    let second = terms(&keyring).unwrap();
    assert!(!second.asks_the_same(&first));
    assert!(!keyring.refresh(), "nothing has changed since");
    std::fs::remove_file(folder.0.join("cert-chain.pem")).unwrap();
    std::fs::write(folder.0.join("root-cert.pem"), &other.certificate).unwrap();
    assert!(keyring.refresh());
    assert!(!terms(&keyring).unwrap().asks_the_same(&second));
    assert_eq!(keyring.shown()[0].not_after, ends);
    // Authorities that cannot be read are those of before.
    std::fs::write(folder.0.join("root-cert.pem"), "nothing").unwrap();
    assert!(!keyring.refresh());
}
