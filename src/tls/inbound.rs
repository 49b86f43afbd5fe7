//! A workload's door: what may come in, and which port of the program is meant.
//!
//! Where ports differ in mode, a connection is let in if one of them takes it, and every request is asked again
//! for the port it goes to.

use super::server::{Passthrough, Terms};
use proxy_config::model::{Mtls, ObjectRef, OwnPort, SniRoute};
use std::sync::Arc;

/// A workload's inbound listener.
#[derive(Debug)]
pub struct Inbound {
    ports: Box<[Port]>,
    /// Ports differ in mode.
    mixed: bool,
    terms: Option<Arc<Terms>>,
    /// Where the TLS of others goes.
    unopened: Option<Arc<Passthrough>>,
}

/// A port of the program.
#[derive(Debug)]
struct Port {
    number: u16,
    dialled: Box<[u16]>,
    mode: Mtls,
}

impl Inbound {
    pub(super) fn new(ports: &[(&OwnPort, Mtls)], unopened: bool, terms: Option<Arc<Terms>>) -> Inbound {
        // A client of no mesh says by nothing which port it means.
        let opaque = ports.iter().find(|(port, mode)| unopened && port.opaque && *mode != Mtls::Strict);
        let unopened = opaque.map(|(port, _)| {
            Arc::new(Passthrough::new(&[SniRoute {
                origin: ObjectRef::default(),
                names: vec!["*".to_owned()],
                clusters: vec![(port.cluster.clone(), 1)],
            }]))
        });
        let mixed = ports.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let known = ports.iter().map(|(port, mode)| Port {
            number: port.port,
            dialled: port.dialled.iter().copied().collect(),
            mode: *mode,
        });
        Inbound { ports: known.collect(), mixed, terms, unopened }
    }

    /// Whether clients may come in plaintext.
    pub fn takes_plaintext(&self) -> bool {
        self.ports.iter().any(|port| port.mode != Mtls::Strict)
    }

    /// Whether clients may come with TLS.
    pub fn takes_tls(&self) -> bool {
        self.ports.iter().any(|port| port.mode != Mtls::Disable)
    }

    /// Whether every client that speaks TLS is a proxy of the mesh or refused.
    pub fn is_strict(&self) -> bool {
        !self.takes_plaintext()
    }

    /// The terms; `None`: there is no certificate.
    pub fn terms(&self) -> Option<&Arc<Terms>> {
        self.terms.as_ref()
    }

    /// Where TLS goes that is the program's own business; `None`: it is refused.
    pub fn unopened(&self) -> Option<&Arc<Passthrough>> {
        self.unopened.as_ref()
    }

    /// Whether a request to this port of the program may come over a connection that is encrypted, or not.
    #[inline]
    pub fn admits(&self, port: u16, encrypted: bool) -> bool {
        if !self.mixed {
            // Asked when the connection was let in.
            return true;
        }
        let wrong = if encrypted { Mtls::Disable } else { Mtls::Strict };
        self.ports.iter().find(|own| own.number == port).is_none_or(|own| own.mode != wrong)
    }

    /// The port that a proxy of the mesh means by the name it asks for, `outbound_.80_.v1_.host`, where there are
    /// several.
    #[inline]
    pub fn meant(&self, sni: Option<&str>) -> Option<u16> {
        if self.ports.len() < 2 {
            return None;
        }
        let dialled = sni?.strip_prefix("outbound_.")?.split("_.").next()?.parse().ok()?;
        self.ports.iter().find(|own| own.dialled.contains(&dialled)).map(|own| own.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(port: u16, dialled: &[u16], opaque: bool) -> OwnPort {
        let cluster = format!("inbound|{port}||");
        OwnPort { port, dialled: dialled.iter().copied().collect(), cluster, opaque }
    }

    #[test]
    fn the_name_asked_for_says_which_port_is_meant() {
        let (one, two) = (port(8080, &[80, 8080], false), port(9090, &[81, 9090], false));
        let both = Inbound::new(&[(&one, Mtls::Strict), (&two, Mtls::Strict)], true, None);
        let check = |sni: Option<&str>, wanted: Option<u16>| assert_eq!(both.meant(sni), wanted, "{sni:?}");
        check(Some("outbound_.80_._.b.default.svc.cluster.local"), Some(8080));
        check(Some("outbound_.81_.v1_.b.default.svc.cluster.local"), Some(9090));
        check(Some("outbound_.9090_._.b"), Some(9090));
        check(Some("outbound_.82_._.b"), None);
        check(Some("outbound_.x_._.b"), None);
        check(Some("b.default"), None);
        check(None, None);
        let alone = Inbound::new(&[(&two, Mtls::Strict)], true, None);
        assert_eq!(alone.meant(Some("outbound_.81_._.b")), None);
    }

    #[test]
    fn ports_that_differ_are_asked_one_by_one() {
        let (one, two) = (port(1, &[], false), port(2, &[], false));
        let check = |modes: [Mtls; 2], takes: [bool; 2], admitted: [bool; 4]| {
            let inbound = Inbound::new(&[(&one, modes[0]), (&two, modes[1])], true, None);
            assert_eq!([inbound.takes_plaintext(), inbound.takes_tls()], takes, "{modes:?}");
            let asked = [(1, false), (1, true), (2, false), (2, true)];
            assert_eq!(asked.map(|(port, tls)| inbound.admits(port, tls)), admitted, "{modes:?}");
        };
        check([Mtls::Strict, Mtls::Disable], [true, true], [false, true, true, false]);
        check([Mtls::Strict, Mtls::Permissive], [true, true], [false, true, true, true]);
        check([Mtls::Disable, Mtls::Permissive], [true, true], [true, false, true, true]);
        check([Mtls::Strict, Mtls::Strict], [false, true], [true; 4]);
        check([Mtls::Disable, Mtls::Disable], [true, false], [true; 4]);
    }

    #[test]
    fn the_tls_of_others_goes_unopened_where_no_http_is_declared_and_no_policy_asks() {
        let (http, own) = (port(1, &[], false), port(2, &[], true));
        let check = |modes: [Mtls; 2], allowed: bool, wanted: Option<&str>| {
            let inbound = Inbound::new(&[(&http, modes[0]), (&own, modes[1])], allowed, None);
            let to = inbound.unopened().and_then(|route| route.find(None)).map(|to| to[0].0.as_str());
            assert_eq!(to, wanted, "{modes:?} {allowed}");
        };
        check([Mtls::Permissive, Mtls::Permissive], true, Some("inbound|2||"));
        check([Mtls::Strict, Mtls::Disable], true, Some("inbound|2||"));
        check([Mtls::Permissive, Mtls::Strict], true, None);
        check([Mtls::Permissive, Mtls::Permissive], false, None);
    }
}
