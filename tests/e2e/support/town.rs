//! Workloads of one mesh, each beside a sidecar of its own with a certificate of one authority; and certificates of
//! hosts from it.

use super::proxy::{Directory, PILOTLIGHT, Setup};
use super::{Origin, Proxy, Target};
use std::net::SocketAddr;
use std::process::Command;

/// An authority, and what it has issued.
pub struct Town(Directory);

impl Town {
    /// One of `workloads`, which are written `namespace/account`.
    #[track_caller]
    pub fn of(workloads: &[&str]) -> Town {
        let town = Town(Directory::new());
        town.issue(&[], workloads);
        town
    }

    /// Issues new certificates.
    #[track_caller]
    pub fn issue(&self, hosts: &[&str], workloads: &[&str]) {
        let mut command = Command::new(PILOTLIGHT);
        command.args(["certs", "--out"]).arg(self.0.path()).args(workloads);
        command.args(hosts.iter().flat_map(|host| ["--host", host]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The path of one of its files: `ca.crt`, `NS/ACCOUNT/key.pem`, `hosts/HOST/tls.crt`.
    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A sidecar beside `app`, which runs as `who`, over `text`.
    pub fn beside(&self, who: &str, labels: &str, app: SocketAddr, text: &str) -> Setup {
        let account = who.split_once('/').map_or(who, |(_, account)| account);
        Proxy::with(text).sidecar(who, labels, app).args([
            "--service-account",
            account,
            "--certs",
            &self.file(who),
        ])
    }

    /// A running one, and where callers come in.
    #[track_caller]
    pub fn callee(&self, who: &str, labels: &str, app: &Origin, text: &str) -> (Proxy, SocketAddr) {
        let proxy = self.beside(who, labels, app.address(), text).start();
        let inbound = proxy.inbound(app).address();
        (proxy, inbound)
    }

    /// One that only calls: what it calls is in `text`.
    #[track_caller]
    pub fn caller(&self, who: &str, text: &str) -> Proxy {
        self.beside(who, "role=caller", SocketAddr::from(([127, 0, 0, 1], 9)), text).start()
    }
}

impl Proxy {
    /// Where callers of `app` come in, at its sidecar.
    #[track_caller]
    pub fn inbound(&self, app: &Origin) -> Target {
        let name = format!("inbound:{}", app.address().port());
        super::eventually(&name, super::seconds(5), || self.find(&name))
    }
}
