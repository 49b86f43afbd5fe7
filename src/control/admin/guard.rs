//! Who may ask: a browser on this host can be lured into asking the admin API on behalf of a page from
//! elsewhere. What it sends gives it away: the name it believes to be talking to (`Host`, which a rebound
//! DNS name cannot hide) and the page that asks (`Origin`, `Sec-Fetch-Site`).

use super::Face;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::IpAddr;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is turned away, if it is. `local` is the address the connection arrived at.
pub fn refusal(face: Face, local: IpAddr, headers: &HeaderMap) -> Option<&'static str> {
    let open = !is_loopback(local);
    if face == Face::Stats && open {
        // Scrapers come by the names of pods and services; there is nothing to be done here but to read.
        return None;
    }
    // A name that is no address may be rebound to this host; an address cannot, so where the listener is
    // open to the network, any address will do.
    let allowed = |authority: &str| {
        let host = host_of(authority);
        match host.parse::<IpAddr>() {
            Ok(ip) => open || is_loopback(ip),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    };
    let passes = |name: HeaderName, authority_of: fn(&str) -> &str| {
        headers.get_all(name).iter().all(|value| value.to_str().is_ok_and(|text| allowed(authority_of(text))))
    };
    if !passes(HOST, |text| text) {
        return Some("ask by the address of this host or as localhost\n");
    }
    if !passes(ORIGIN, |text| text.split_once("://").map_or(text, |(_, rest)| rest)) {
        return Some("not for pages from elsewhere\n");
    }
    // Browsers say so even where they send no origin: links, images, forms.
    let elsewhere = |value: &HeaderValue| matches!(value.as_bytes(), b"cross-site" | b"same-site");
    if headers.get_all(FETCH_SITE).iter().any(elsewhere) {
        return Some("not for pages from elsewhere\n");
    }
    None
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// An authority without its port and brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(face: Face, local: &str, headers: &[(&HeaderName, &str)], passes: bool) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let refused = refusal(face, local.parse().unwrap(), &map);
        assert_eq!(refused.is_none(), passes, "{face:?} {local} {headers:?}: {refused:?}");
    }

    #[test]
    fn on_loopback_only_names_and_addresses_of_this_host_are_answered() {
        let rows = [
            ("localhost:15000", true),
            ("LOCALHOST", true),
            ("127.0.0.1:15000", true),
            ("127.1.2.3", true),
            ("[::1]:15000", true),
            ("evil.example:15000", false),
            ("localhost.evil.example", false),
            ("10.0.0.1:15000", false),
            ("", false),
            ("[::1", true),
        ];
        for (host, passes) in rows {
            check(Face::Admin, "127.0.0.1", &[(&HOST, host)], passes);
            check(Face::Stats, "::1", &[(&HOST, host)], passes);
        }
        check(Face::Admin, "127.0.0.1", &[], true);
        check(Face::Admin, "127.0.0.1", &[(&HOST, "localhost"), (&HOST, "evil.example")], false);
    }

    #[test]
    fn on_the_network_addresses_are_answered_but_no_names() {
        check(Face::Admin, "10.0.0.1", &[(&HOST, "10.0.0.1:15000")], true);
        check(Face::Admin, "10.0.0.1", &[(&HOST, "evil.example")], false);
        check(Face::Stats, "10.0.0.1", &[(&HOST, "pilotlight.default.svc:15090")], true);
    }

    #[test]
    fn a_page_from_elsewhere_is_turned_away_even_if_it_knows_the_address() {
        let rows = [
            ("http://evil.example", false),
            ("null", false),
            ("http://localhost:15000", true),
            ("http://127.0.0.1", true),
        ];
        for (origin, passes) in rows {
            check(Face::Admin, "127.0.0.1", &[(&HOST, "localhost"), (&ORIGIN, origin)], passes);
        }
        for (site, passes) in
            [("cross-site", false), ("same-site", false), ("same-origin", true), ("none", true)]
        {
            check(Face::Admin, "127.0.0.1", &[(&HOST, "localhost"), (&FETCH_SITE, site)], passes);
        }
    }
}
