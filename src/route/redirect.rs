//! The `Location` of a redirect.
//!
//! Answers in place of a destination; what the route does not say is taken from the request, as in Envoy.

use super::change::{HeaderChange, Side};
use super::matcher::Head;
use super::path::PathChange;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use proxy_config::model::{self, RedirectPort};
use std::io::Write;

/// A compiled [`model::Redirect`].
#[derive(Clone, Debug)]
pub struct Redirect {
    status: StatusCode,
    scheme: Option<Box<str>>,
    authority: Option<Box<str>>,
    port: Option<RedirectPort>,
    path: Option<PathChange>,
    headers: HeaderChange,
}

impl Redirect {
    /// Compiles a redirect.
    ///
    /// # Errors
    /// A part that could not stand in a `Location`.
    pub fn compile(wanted: &model::Redirect) -> Result<Redirect, String> {
        let status = StatusCode::from_u16(wanted.code)
            .ok()
            .filter(StatusCode::is_redirection)
            .ok_or_else(|| format!("{} is not a redirect code", wanted.code))?;
        if let Some(authority) = &wanted.authority
            && authority.parse::<http::uri::Authority>().is_err()
        {
            return Err(format!("`{authority}` is not an authority"));
        }
        if let Some(scheme) = &wanted.scheme
            && scheme.parse::<http::uri::Scheme>().is_err()
        {
            return Err(format!("`{scheme}` is not a scheme"));
        }
        Ok(Redirect {
            status,
            scheme: wanted.scheme.as_deref().map(Into::into),
            authority: wanted.authority.as_deref().map(Into::into),
            port: wanted.port,
            path: wanted.path.as_ref().map(PathChange::compile).transpose()?,
            headers: HeaderChange::compile(&wanted.headers, Side::Response)?,
        })
    }

    /// The status to answer with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Changes to the response head.
    pub fn headers(&self) -> &HeaderChange {
        &self.headers
    }

    /// Where the client is sent. `port` is that of the listener the request came in on; `None` when the
    /// request's authority and path cannot stand in a header.
    pub fn location(&self, head: &Head<'_>, target: &PathAndQuery, port: u16) -> Option<HeaderValue> {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme);
        let mut out = Vec::with_capacity(scheme.len() + head.authority.len() + target.as_str().len() + 32);
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        let host = match &self.authority {
            Some(authority) => authority,
            None => self.host(head, scheme),
        };
        out.extend_from_slice(host.as_bytes());
        // Writing to a Vec cannot fail.
        _ = match self.port {
            Some(RedirectPort::Number(number)) => write!(out, ":{number}"),
            Some(RedirectPort::FromRequest) => write!(out, ":{port}"),
            Some(RedirectPort::FromProtocol) | None => Ok(()),
        };
        match &self.path {
            Some(change) => out.extend_from_slice(&change.redirect(target)),
            None => out.extend_from_slice(target.as_str().as_bytes()),
        }
        HeaderValue::from_maybe_shared(bytes::Bytes::from(out)).ok()
    }

    /// The request's host; its port goes when another is written or when it is the default of a scheme that
    /// is left.
    fn host<'a>(&self, head: &Head<'a>, scheme: &str) -> &'a str {
        let Some((host, port)) = split_port(head.authority) else { return head.authority };
        let default_of_old = match head.scheme {
            "https" => port == "443",
            _ => port == "80",
        };
        if self.port.is_some() || (scheme != head.scheme && default_of_old) { host } else { head.authority }
    }
}

/// Host and port of an authority that has a port; an IPv6 host keeps its brackets.
fn split_port(authority: &str) -> Option<(&str, &str)> {
    authority.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use proxy_config::model::PathRewrite;

    fn redirect() -> model::Redirect {
        model::Redirect {
            path: None,
            authority: None,
            port: None,
            scheme: None,
            code: 301,
            headers: model::MessageOps::default(),
        }
    }

    fn check(wanted: model::Redirect, rows: &[(&str, &str)]) {
        let compiled = Redirect::compile(&wanted).unwrap();
        for (from, to) in rows {
            let uri: http::Uri = from.parse().unwrap();
            let headers = HeaderMap::new();
            let head = Head {
                method: &Method::GET,
                path: uri.path(),
                query: uri.query(),
                authority: uri.authority().unwrap().as_str(),
                scheme: uri.scheme_str().unwrap(),
                headers: &headers,
            };
            let location = compiled.location(&head, uri.path_and_query().unwrap(), 8080).unwrap();
            assert_eq!(location, *to, "{wanted:?} on {from}");
        }
    }

    #[test]
    fn what_is_not_said_is_taken_from_the_request() {
        check(
            model::Redirect { scheme: Some("https".into()), ..redirect() },
            &[
                ("http://a.b/x?y", "https://a.b/x?y"),
                ("http://a.b:80/", "https://a.b/"),
                ("http://a.b:8080/", "https://a.b:8080/"),
                ("http://a.b:443/", "https://a.b:443/"),
                ("https://a.b:443/", "https://a.b:443/"),
                ("http://[::1]:80/", "https://[::1]/"),
                ("http://[::1]/", "https://[::1]/"),
            ],
        );
        check(
            model::Redirect { authority: Some("new.example".into()), ..redirect() },
            &[("http://a.b:8080/x", "http://new.example/x")],
        );
    }

    #[test]
    fn the_port_is_a_number_the_listeners_or_none() {
        let with = |port| model::Redirect { port: Some(port), ..redirect() };
        check(
            with(RedirectPort::Number(8443)),
            &[("http://a:80/", "http://a:8443/"), ("http://[::1]/", "http://[::1]:8443/")],
        );
        check(
            with(RedirectPort::FromRequest),
            &[("http://a:1/", "http://a:8080/"), ("http://a/", "http://a:8080/")],
        );
        check(with(RedirectPort::FromProtocol), &[("http://a:8080/", "http://a/")]);
    }

    #[test]
    fn a_new_path_keeps_the_query_unless_it_has_its_own() {
        let with = |path| model::Redirect { path: Some(path), ..redirect() };
        check(with(PathRewrite::Full("/new".into())), &[("http://a/old?q=1", "http://a/new?q=1")]);
        check(with(PathRewrite::Full("/new?z".into())), &[("http://a/old?q=1", "http://a/new?z")]);
        check(
            with(PathRewrite::Prefix { from_len: 4, with: "/v2".into() }),
            &[("http://a/old/x?q", "http://a/v2/x?q")],
        );
    }

    #[test]
    fn what_could_not_be_answered_does_not_compile() {
        for wrong in [
            model::Redirect { code: 200, ..redirect() },
            model::Redirect { code: 1000, ..redirect() },
            model::Redirect { authority: Some("a\r\nb".into()), ..redirect() },
            model::Redirect { scheme: Some("ht tp".into()), ..redirect() },
            model::Redirect { path: Some(PathRewrite::Full("/a b".into())), ..redirect() },
        ] {
            assert!(Redirect::compile(&wrong).is_err(), "{wrong:?}");
        }
    }
}
