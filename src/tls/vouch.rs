//! What the next reader is told of a client's certificate: one element of `X-Forwarded-Client-Cert`.

use crate::record::Secured;
use http::HeaderValue;

/// What is said of a client's certificate, as Envoy writes it; `None`: it showed none.
pub fn vouch(secured: &Secured) -> Option<HeaderValue> {
    let peer = secured.peer.as_ref()?;
    let mut text = String::new();
    if let Some(own) = &secured.local_uri {
        text.push_str(&format!("By={own};"));
    }
    // Quotes end a value, and backslashes are for quotes.
    let subject = peer.subject.replace('\\', "\\\\").replace('"', "\\\"");
    text.push_str(&format!("Hash={};Subject=\"{subject}\";URI=", peer.sha256));
    text.push_str(&peer.uris.iter().map(|uri| value(uri)).collect::<Vec<_>>().join(";URI="));
    peer.dns.iter().for_each(|name| text.push_str(&format!(";DNS={}", value(name))));
    HeaderValue::from_str(&text).ok()
}

/// A name from a certificate, which must not end the element it stands in.
fn value(name: &str) -> String {
    let plain = !name.contains([',', ';', '=', '"', '\\']);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Certificate;
    use std::time::SystemTime;

    fn check(uris: &[&str], dns: &[&str], subject: &str, wanted: &str) {
        let peer = Certificate {
            principal: None,
            uris: uris.iter().map(|uri| Box::from(*uri)).collect(),
            dns: dns.iter().map(|name| Box::from(*name)).collect(),
            ips: Vec::new(),
            subject: subject.into(),
            issuer: "".into(),
            serial: "".into(),
            sha256: "ab".into(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
        };
        let secured =
            Secured { local_uri: Some("spiffe://td/b".into()), peer: Some(peer), ..Secured::default() };
        assert_eq!(vouch(&secured).unwrap(), wanted);
    }

    #[test]
    fn names_and_subjects_cannot_say_more_than_they_are() {
        check(&["spiffe://td/a"], &[], "", r#"By=spiffe://td/b;Hash=ab;Subject="";URI=spiffe://td/a"#);
        check(
            &["u:a,By=x"],
            &["a;URI=b"],
            r#"CN=a",URI=x\"#,
            r#"By=spiffe://td/b;Hash=ab;Subject="CN=a\",URI=x\\";URI="u:a,By=x";DNS="a;URI=b""#,
        );
    }
}
